"""Exact ranks of a few chunks of each query, without the ranking: a rank is one more than how many come before.

Scores are rough, and it is known how far they are off (``products.py``). What is higher by more than that is counted;
what is too close to tell is scored exactly. A chunk that has as many before it as anybody looks at is followed no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectune.products import Rows, exact

if TYPE_CHECKING:
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

    def least(self, error: Floats, at_least: Floats | None) -> Floats:
        """The lowest rough score of each query that may come before one of its open pairs; ∞ where it has none.

        Args:
            error: how far each query's scores are off beyond the relative part, shape (q,).
            at_least: shape (q,); ``depth`` rough scores are known to be at least that. None where it is not known.
        """
        if at_least is not None:
            self.open = self.open[at_least[self.pairs.queries[self.open]] <= self._margins(self.open, error)[1]]
        found = np.full(len(self.queries), np.inf, dtype=np.float32)
        np.minimum.at(found, self.pairs.queries[self.open], self._margins(self.open, error)[0])
        return found

    def add(self, rows: Ints, chunks: Ints, scores: Floats, error: Floats) -> None:
        """Look at some more chunks.

        Args:
            rows, chunks, scores: queries, and rough scores of chunks with them: all that reach ``least``.
            error: as there.
        """
        for which in self._one_of_each():
            self._count(rows, chunks, scores, error, which)
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

    def _one_of_each(self) -> Iterator[Ints]:
        """The open pairs, in parts that hold a query at most once."""
        queries = self.pairs.queries[self.open]
        turn = np.arange(len(queries)) - np.searchsorted(queries, queries)
        for each in range(int(turn.max(initial=-1)) + 1):
            yield self.open[turn == each]

    def _count(self, rows: Ints, chunks: Ints, scores: Floats, error: Floats, which: Ints) -> None:
        own = self.pairs.queries[which]
        low, high = np.full((2, len(self.queries)), np.inf, dtype=np.float32)
        low[own], high[own] = self._margins(which, error)
        sure = scores > high[rows]
        self.before[which] += np.bincount(rows[sure], minlength=len(self.queries))[own]
        pair = np.full(len(self.queries), -1)
        pair[own] = which
        close = np.flatnonzero((scores >= low[rows]) & ~sure)
        close = close[self.before[pair[rows[close]]] < self.depth]
        self.close.append((pair[rows[close]], chunks[close]))
        self.waiting += len(close)

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
