"""Exact search: the best k chunks of every query, in blocks, the same whatever the blocks are.

One pass over the corpus, which may be a memory map; never a queries × corpus matrix. The pass computes rough scores, of
which it is known how far they can be off: in float32 by BLAS, whose last digits depend on where in a block a vector
stands, or in bf16 where that is faster. A chunk is passed over only where k others are better by more than that. What
is left and so close that the roughness could decide is computed again in float64 and rounded: equal vectors have equal
scores wherever they stand, and ties go by one order that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.products import Bf16, Float32, Rows, bf16_is_faster, exact, float32_error, products
from vectune.ranks import Pairs, Ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.products import Floats, Ints, Scores

QUERY_BLOCK = 512
CORPUS_BLOCK = 2048
_PENDING = 4  # times k: so many candidates of a query are gathered before those that are too low by now are dropped
_CROWDED = 16  # times k: with more left than that, they are scored exactly and only the best k stay
_WORTH_BF16 = 512  # times k chunks: in fewer, scoring the candidates again takes longer than bf16 saves


def tie_order(ids: Sequence[str]) -> Ints:
    """Where each id stands when ids are sorted in descending order: as trec_eval breaks ties; shape (n,)."""
    order = np.empty(len(ids), dtype=np.int64)
    order[np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), dtype=np.int64)] = np.arange(len(ids))
    return order


def top_k(
    queries: Floats,
    corpus: Rows,
    k: int,
    ties: Ints | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[Ints, Floats]:
    """The ``min(k, n)`` chunks with the highest dot products for each query.

    Args:
        queries: unit vectors, float32 of shape (q, d).
        corpus: unit vectors, float32 of shape (n, d); anything whose slices are arrays, a memory map for instance.
        k: how many.
        ties: shape (n,); of equal scores the chunk with the lower value comes first. None: the lower index.
        advance: called with the number of corpus rows done, after each block.

    Returns:
        Indices into the corpus (int64) and scores (float32), both of shape (q, min(k, n)), best first.
    """
    none = np.zeros(0, dtype=np.int64)
    indices, scores, _ = top_k_and_ranks(queries, corpus, k, Pairs(none, none), 0, ties, advance)
    return indices, scores


def top_k_and_ranks(
    queries: Floats,
    corpus: Rows,
    k: int,
    pairs: Pairs,
    depth: int,
    ties: Ints | None = None,
    advance: Callable[[int], object] | None = None,
) -> tuple[Ints, Floats, Ints]:
    """``top_k``, and in the same pass where some chunks stand in the rankings to a greater depth.

    Args:
        queries, corpus, k, ties, advance: as for ``top_k``.
        pairs: whose ranks are asked for.
        depth: the last rank of interest.

    Returns:
        As ``top_k``, and each pair's rank (int64, shape (p,)), counted from 1, 0 where it is beyond the depth.
    """
    n, k = len(corpus), min(k, len(corpus))
    ties = np.arange(n, dtype=np.int64) if ties is None else ties
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    kind = Bf16 if n >= _WORTH_BF16 * k and bf16_is_faster() else Float32
    product = kind(min(QUERY_BLOCK, len(queries)) * min(CORPUS_BLOCK, n))
    parts = [
        _Part(product, queries[first : first + QUERY_BLOCK], corpus, k, pairs.part(first, first + QUERY_BLOCK), depth,
              ties)
        for first in range(0, len(queries), QUERY_BLOCK)
    ]  # fmt: skip
    for start in range(0, n, CORPUS_BLOCK):
        block = np.ascontiguousarray(corpus[start : start + CORPUS_BLOCK], dtype=np.float32)
        right = product.right(block)
        for part in parts:
            part.add(right, start)
        if advance is not None:
            advance(len(block))
    if not parts or not k:
        shape = (len(queries), k)
        return np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(len(pairs.chunks), np.int64)
    results = [(*part.best.result(), part.ranks.result()) for part in parts]
    indices, scores, ranks = (np.concatenate(each) for each in zip(*results, strict=True))
    return indices, scores, ranks


class _Part:
    """A block of queries: what is asked of each block of the corpus."""

    def __init__(
        self, product: Float32 | Bf16, queries: Floats, corpus: Rows, k: int, pairs: Pairs, depth: int, ties: Ints
    ) -> None:
        self.product, self.depth = product, depth
        self.left: Any = product.left(queries)
        self.best = _Best(product, queries, corpus, k, ties)
        self.ranks = Ranks(queries, corpus, pairs, depth, ties, product.relative)

    def add(self, right: Any, start: int) -> None:
        """Look at the chunks from ``start`` on: once through their scores, for what either asks."""
        rough, error = self.product.rough(self.left, right)
        least = self.best.least(rough, error)
        lower = least
        if len(self.ranks.open):
            known = None
            if start == 0 and rough.width > self.depth:
                known = self.best.kth if self.depth == self.best.k else _at_most_kth(rough.whole(), self.depth)
            lower = np.minimum(least, self.ranks.least(error, known))
        rows, columns, scores = rough.reaching(lower)
        if len(self.ranks.open):
            self.ranks.add(rows, columns + start, scores, error)
        best = slice(None) if lower is least else np.flatnonzero(scores >= least[rows])
        self.best.add(rows[best], columns[best] + start, scores[best])


class _Best:
    """The best k so far of one block of queries, and what may yet be among them."""

    def __init__(self, product: Float32 | Bf16, queries: Floats, corpus: Rows, k: int, ties: Ints) -> None:
        self.product, self.queries, self.corpus, self.k, self.ties = product, queries, corpus, k, ties
        self.error = np.zeros(len(queries), dtype=np.float32)  # the most that a query's rough scores were off so far
        self.kth = np.full(len(queries), -np.inf, dtype=np.float32)  # k chunks are known to score as much, roughly
        self.found: list[tuple[Ints, Ints, Floats]] = []  # queries, chunks and their rough scores
        self.pending = 0

    def least(self, rough: Scores, error: Floats) -> Floats:
        """What each query's rough scores must reach to be of interest, given a block and how far it may be off."""
        self.error = np.maximum(self.error, error)
        if not self.found and rough.width > self.k:
            self.kth = _at_most_kth(rough.whole(), self.k)
        return self._threshold(self.kth)

    def add(self, rows: Ints, chunks: Ints, scores: Floats) -> None:
        """Look at some more chunks: queries, chunks and rough scores, all that reach ``least``."""
        self.found.append((rows, chunks, scores))
        self.pending += len(rows)
        if self.pending > _PENDING * self.k * len(self.queries):
            self._drop()

    def _threshold(self, kth: Floats) -> Floats:
        """What scores less than that is not among the best k: both may be off."""
        with np.errstate(invalid="ignore"):  # −∞ − ∞ while no k-th is known
            lower = kth - 2 * (self.error + self.product.relative * np.abs(kth))
        return np.where(np.isfinite(kth), lower, kth)

    def _drop(self) -> None:
        """Forget what is too low by now."""
        rows, chunks, scores = (np.concatenate(part) for part in zip(*self.found, strict=True))
        grid, _ = _grid(len(self.queries), rows, scores, chunks)
        if grid.shape[1] >= self.k:
            self.kth = np.maximum(self.kth, _kth(grid, self.k))
        stay = scores >= self._threshold(self.kth)[rows]
        self.found = [(rows[stay], chunks[stay], scores[stay])]
        if np.count_nonzero(stay) > _CROWDED * self.k * len(self.queries):
            indices, scored = self.result()
            self.found = [(np.repeat(np.arange(len(indices)), indices.shape[1]), indices.ravel(), scored.ravel())]
        self.pending = len(self.found[0][0])

    def result(self) -> tuple[Ints, Floats]:
        """Indices and scores of the best so far, both of shape (q, min(k, chunks seen)); near ties are settled."""
        rows, indices, scores = (np.concatenate(part) for part in zip(*self.found, strict=True))
        width = min(self.k, int(np.bincount(rows, minlength=len(self.queries)).min()))
        scores, chunks = _grid(len(self.queries), rows, scores, indices)
        rows, scores, chunks = _at_least(scores, chunks, self._threshold(_kth(scores, width)))
        rounding = 2 * float32_error(self.queries.shape[1])
        if self.product.rescored:
            scores, chunks = _grid(len(self.queries), rows, products(self.queries, self.corpus, rows, chunks), chunks)
            rows, scores, chunks = _at_least(scores, chunks, _kth(scores, width) - rounding)
        scores, chunks = _grid(len(self.queries), rows, scores, chunks)
        order = np.argsort(-scores, axis=1)
        scores, chunks = np.take_along_axis(scores, order, axis=1), np.take_along_axis(chunks, order, axis=1)
        rows, columns = np.nonzero(_near(scores, rounding))
        scores[rows, columns] = exact(self.queries, self.corpus, rows, chunks[rows, columns])
        order = np.lexsort((self.ties[chunks], -scores), axis=-1)[:, :width]
        return np.take_along_axis(chunks, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _near(scores: Floats, distance: np.float32) -> NDArray[np.bool_]:
    """Which scores of rows in descending order are closer to a neighbour than that, so that rounding could decide."""
    with np.errstate(invalid="ignore"):  # −∞ − −∞
        close = scores[:, :-1] - scores[:, 1:] < distance
    found = np.zeros(scores.shape, dtype=np.bool_)
    found[:, :-1] |= close
    found[:, 1:] |= close
    return found


def _at_least(scores: Floats, chunks: Ints, least: Floats) -> tuple[Ints, Floats, Ints]:
    """Rows, scores and chunks of what scores at least that in its row, in order of rows."""
    rows, columns = np.nonzero(scores >= least[:, None])
    return rows, scores[rows, columns], chunks[rows, columns]


def _kth(scores: Floats, k: int) -> Floats:
    """The k-th highest score of each row."""
    found: Floats = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
    return found


def _at_most_kth(scores: Floats, k: int) -> Floats:
    """At most the k-th highest score of each row, and near it: the k-th of the maxima of groups, which are fewer."""
    size = max(1, scores.shape[1] // (4 * k))
    width = scores.shape[1] // size
    return _kth(scores[:, : size * width].reshape(len(scores), size, width).max(axis=1), k)


def _grid(height: int, rows: Ints, scores: Floats, indices: Ints) -> tuple[Floats, Ints]:
    """Scores and indices by row, side by side; rows that have fewer end with −∞."""
    order = np.argsort(rows.astype(np.int16), kind="stable")  # 16 bits: NumPy sorts them in linear time
    rows, counts = rows[order], np.bincount(rows, minlength=height)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.full((height, counts.max()), -np.inf, dtype=np.float32)
    chunks = np.zeros(found.shape, dtype=np.int64)
    found[rows, columns], chunks[rows, columns] = scores[order], indices[order]
    return found, chunks


def top_of_scores(scores: NDArray[Any], k: int, ties: Ints) -> Ints:
    """The ``min(k, n)`` highest of one row of scores, best first; of equal scores the one with the lower tie order."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= kth)
    return found[np.lexsort((ties[found], -scores[found]))][:k]
