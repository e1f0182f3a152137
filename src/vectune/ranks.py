"""Exact ranks of a few chunks of each query, without the ranking: a rank is one more than how many come before.

Scores are rough, and it is known how far they are off (``products.py``). What is higher by more than that is counted;
what is too close to tell is scored exactly. A chunk that has as many before it as anybody looks at is followed no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectune.products import Rows, exact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.products import Floats, Ints

_CLOSE = 1 << 18  # pairs too close to tell that are kept before they are scored


class Pairs(NamedTuple):
    """Chunks whose ranks are asked for: ``chunks[i]`` in the ranking of the query ``queries[i]``; both of shape (p,).

    Queries are in ascending order.
    """

    queries: Ints
    chunks: Ints

    def part(self, start: int, stop: int) -> Pairs:
        """The pairs of the queries from ``start`` to ``stop``, counted from ``start``."""
        first, last = np.searchsorted(self.queries, [start, stop])
        return Pairs(self.queries[first:last] - start, self.chunks[first:last])


class Ranks:
    """What is known so far of the ranks in one block of queries.

    Args:
        queries, corpus: unit vectors.
        pairs: which chunks' ranks.
        depth: the last rank of interest.
        ties: of equal scores the chunk with the lower value comes first.
        relative: how much scores are rounded, as a share of their size.
    """

    def __init__(
        self, queries: Floats, corpus: Rows, pairs: Pairs, depth: int, ties: Ints, relative: np.float32
    ) -> None:
        self.queries, self.corpus, self.pairs, self.depth, self.ties = queries, corpus, pairs, depth, ties
        self.relative = relative
        self.scores = exact(queries, corpus, *pairs)
        self.before = np.zeros(len(self.scores), dtype=np.int64)  # chunks that are known to come before
        self.open = np.arange(len(self.scores))  # pairs that may be within the depth
        self.close: list[tuple[Ints, Ints]] = []  # pairs, and chunks too close to theirs to tell
        self.waiting = 0

    def add(self, rough: Floats, error: Floats, at_least: Floats | None, start: int) -> None:
        """Look at the chunks from ``start`` on.

        Args:
            rough: their scores, shape (q, block).
            error: how far each query's scores are off beyond the relative part, shape (q,).
            at_least: shape (q,); ``depth`` of these rough scores are at least that. None where it is not known.
            start: the first one's index.
        """
        if at_least is not None:
            self.open = self.open[at_least[self.pairs.queries[self.open]] <= self._margins(self.open, error)[1]]
        for first in range(0, len(self.open), len(rough)):
            self._count(rough, error, self.open[first : first + len(rough)], start)
        self.open = self.open[self.before[self.open] < self.depth]
        if self.waiting > _CLOSE:
            self._settle()

    def result(self) -> Ints:
        """Each pair's rank, counted from 1; 0 where it is beyond the depth; shape (p,)."""
        self._settle()
        found = np.zeros(len(self.before), dtype=np.int64)
        found[self.open] = self.before[self.open] + 1
        return found

    def _margins(self, which: Ints, error: Floats) -> tuple[Floats, Floats]:
        """Between these rough scores a chunk may come before or behind."""
        scores = self.scores[which]
        off = (error[self.pairs.queries[which]] + self.relative * np.abs(scores)).astype(np.float32, copy=False)
        return scores - off, scores + off

    def _count(self, rough: Floats, error: Floats, which: Ints, start: int) -> None:
        rows = self.pairs.queries[which]
        mine = rough if len(rows) == len(rough) and rows[0] == 0 and (np.diff(rows) == 1).all() else rough[rows]
        low, high = self._margins(which, error)
        places = np.flatnonzero(mine >= low[:, None])
        rows, columns = np.divmod(places, mine.shape[1])
        sure = mine.ravel()[places] > high[rows]
        self.before[which] += np.bincount(rows[sure], minlength=len(which))
        close: NDArray[np.bool_] = ~sure & (self.before[which] < self.depth)[rows]
        self.close.append((which[rows[close]], columns[close] + start))
        self.waiting += int(np.count_nonzero(close))

    def _settle(self) -> None:
        """Score what was too close to tell."""
        if not self.close:
            return
        pairs = np.concatenate([pairs for pairs, _ in self.close])
        chunks = np.concatenate([chunks for _, chunks in self.close])
        self.close, self.waiting = [], 0
        if len(pairs):
            scores, own = exact(self.queries, self.corpus, self.pairs.queries[pairs], chunks), self.scores[pairs]
            tied = (scores == own) & (self.ties[chunks] < self.ties[self.pairs.chunks[pairs]])
            self.before += np.bincount(pairs[(scores > own) | tied], minlength=len(self.before))
            self.open = self.open[self.before[self.open] < self.depth]
