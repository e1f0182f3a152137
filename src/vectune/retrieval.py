"""Exact search: the best k chunks of every query, in blocks, the same whatever the blocks are.

One pass over the corpus, which may be a memory map; never a queries × corpus matrix. A block's products come from
BLAS in float32 and only decide who is looked at: a survivor's score is its float64 dot product, rounded to float32.
So equal vectors have equal scores wherever they stand, and ties go by one order that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

QUERY_BLOCK = 512
CORPUS_BLOCK = 8192
_SLACK = np.float32(2e-5)  # more than a float32 product of unit vectors can be off, at up to 8,192 dimensions
_PAIRS = 1 << 15  # pairs rescored at a time: 100 MB in float64 at 384 dimensions


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
    n, k = len(corpus), min(k, len(corpus))
    ties = np.arange(n, dtype=np.int64) if ties is None else ties
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    best = [_Best(queries[start : start + QUERY_BLOCK], k, ties) for start in range(0, len(queries), QUERY_BLOCK)]
    for start in range(0, n, CORPUS_BLOCK):
        block = np.ascontiguousarray(corpus[start : start + CORPUS_BLOCK], dtype=np.float32)
        for part in best:
            part.add(block, start)
        if advance is not None:
            advance(len(block))
    if not best:
        return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    return np.concatenate([part.indices for part in best]), np.concatenate([part.scores for part in best])


class Rows(Protocol):
    """Vectors that are read in slices: an array, a memory map, or codes that turn into floats when asked."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Floats: ...


class _Best:
    """The best k so far of one block of queries."""

    def __init__(self, queries: Floats, k: int, ties: Ints) -> None:
        self.queries, self.k, self.ties = queries, k, ties
        self.indices: Ints = np.zeros((len(queries), 0), dtype=np.int64)
        self.scores: Floats = np.zeros((len(queries), 0), dtype=np.float32)

    def add(self, block: Floats, start: int) -> None:
        rough = self.queries @ block.T
        rows, columns = np.divmod(np.flatnonzero(rough >= self._threshold(rough)[:, None]), block.shape[0])
        if len(rows):
            self._merge(rows, columns + start, _exact(self.queries, block, rows, columns))

    def _threshold(self, rough: Floats) -> Floats:
        """No chunk below it can be among the best k of its query; shape (q,)."""
        if self.scores.shape[1] >= self.k:
            return self.scores[:, -1] - _SLACK
        if rough.shape[1] <= self.k:
            return np.full(len(rough), -np.inf, dtype=np.float32)
        kth: Floats = np.partition(rough, rough.shape[1] - self.k, axis=1)[:, rough.shape[1] - self.k]
        return kth - _SLACK

    def _merge(self, rows: Ints, indices: Ints, scores: Floats) -> None:
        have = self.indices.shape[1]
        rows = np.concatenate([np.repeat(np.arange(len(self.queries)), have), rows])
        indices = np.concatenate([self.indices.ravel(), indices])
        scores = np.concatenate([self.scores.ravel(), scores])
        order = np.lexsort((self.ties[indices], -scores, rows))
        rows, indices, scores = rows[order], indices[order], scores[order]
        starts = np.searchsorted(rows, np.arange(len(self.queries)))
        keep = min(self.k, int(np.bincount(rows, minlength=len(self.queries)).min()))
        taken = starts[:, None] + np.arange(keep)
        self.indices, self.scores = indices[taken], scores[taken]


def _exact(queries: Floats, block: Floats, rows: Ints, columns: Ints) -> Floats:
    """Float64 dot products of the pairs, rounded to float32; shape (pairs,)."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        left, right = queries[rows[part]].astype(np.float64), block[columns[part]].astype(np.float64)
        found[part] = np.einsum("ij,ij->i", left, right)
    return found


def top_of_scores(scores: NDArray[Any], k: int, ties: Ints) -> Ints:
    """The ``min(k, n)`` highest of one row of scores, best first; of equal scores the one with the lower tie order."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= kth)
    return found[np.lexsort((ties[found], -scores[found]))][:k]
