"""Exact search: the best k chunks of every query, in blocks, the same whatever the blocks are.

One pass over the corpus, which may be a memory map; never a queries × corpus matrix. Products come from BLAS in
float32, whose last digits depend on where in a block a vector stands. Where two scores are so close that this could
decide, both are computed again in float64 and rounded: equal vectors have equal scores wherever they stand, and ties
go by one order that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

QUERY_BLOCK = 1024
CORPUS_BLOCK = 4096
_SLACK = np.float32(2e-5)  # more than a float32 product of unit vectors can be off, at up to 8,192 dimensions
_PENDING = 4  # times k: so many candidates of a query are gathered before all but the best are dropped


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
    best = [
        _Best(queries[start : start + QUERY_BLOCK], corpus, k, ties) for start in range(0, len(queries), QUERY_BLOCK)
    ]
    for start in range(0, n, CORPUS_BLOCK):
        block = np.ascontiguousarray(corpus[start : start + CORPUS_BLOCK], dtype=np.float32)
        for part in best:
            part.add(block, start)
        if advance is not None:
            advance(len(block))
    if not best or not k:
        return np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    results = [part.result() for part in best]
    return np.concatenate([indices for indices, _ in results]), np.concatenate([scores for _, scores in results])


class Rows(Protocol):
    """Vectors that are read in slices: an array, a memory map, or codes that turn into floats when asked."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice | Ints, /) -> Floats: ...


class _Best:
    """The best k so far of one block of queries, and what may yet be among them."""

    def __init__(self, queries: Floats, corpus: Rows, k: int, ties: Ints) -> None:
        self.queries, self.corpus, self.k, self.ties = queries, corpus, k, ties
        self.threshold = np.full(len(queries), -np.inf, dtype=np.float32)  # what scores less is not among the best k
        self.found: list[tuple[Ints, Ints, Floats]] = []  # queries, chunks and their rough scores

    def add(self, block: Floats, start: int) -> None:
        """Look at the chunks from ``start`` on."""
        rough = self.queries @ block.T
        if not self.found and len(block) > self.k:
            self.threshold = _kth(rough, self.k) - _SLACK
        places = np.flatnonzero(rough >= self.threshold[:, None])
        rows, columns = np.divmod(places, len(block))
        self.found.append((rows, columns + start, rough.ravel()[places]))
        if sum(len(rows) for rows, _, _ in self.found) > _PENDING * self.k * len(self.queries):
            indices, scores = self.result()
            rows = np.repeat(np.arange(len(self.queries)), scores.shape[1])
            self.found = [(rows, indices.ravel(), scores.ravel())]
            if scores.shape[1] == self.k:
                self.threshold = scores[:, -1] - _SLACK

    def result(self) -> tuple[Ints, Floats]:
        """Indices and scores of the best so far, both of shape (q, min(k, chunks seen)); near ties are settled."""
        rows, indices, scores = (np.concatenate(part) for part in zip(*self.found, strict=True))
        width = min(self.k, int(np.bincount(rows, minlength=len(self.queries)).min()))
        rough, chunks = _grid(len(self.queries), rows, scores, indices)
        rows, columns = np.nonzero(rough >= (_kth(rough, width) - _SLACK)[:, None])
        scores, chunks = _grid(len(self.queries), rows, rough[rows, columns], chunks[rows, columns])
        order = np.argsort(-scores, axis=1)
        scores, chunks = np.take_along_axis(scores, order, axis=1), np.take_along_axis(chunks, order, axis=1)
        rows, columns = np.nonzero(_near(scores))
        scores[rows, columns] = _exact(self.queries, self.corpus, rows, chunks[rows, columns])
        order = np.lexsort((self.ties[chunks], -scores), axis=-1)[:, :width]
        return np.take_along_axis(chunks, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _near(scores: Floats) -> NDArray[np.bool_]:
    """Which scores of rows in descending order are so close to a neighbour that rounding could decide."""
    with np.errstate(invalid="ignore"):  # −∞ − −∞
        close = scores[:, :-1] - scores[:, 1:] < _SLACK
    found = np.zeros(scores.shape, dtype=np.bool_)
    found[:, :-1] |= close
    found[:, 1:] |= close
    return found


def _kth(scores: Floats, k: int) -> Floats:
    """The k-th highest score of each row."""
    found: Floats = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
    return found


def _grid(height: int, rows: Ints, scores: Floats, indices: Ints) -> tuple[Floats, Ints]:
    """Scores and indices by row, side by side; rows that have fewer end with −∞."""
    order = np.argsort(rows.astype(np.int16), kind="stable")  # 16 bits: NumPy sorts them in linear time
    rows, counts = rows[order], np.bincount(rows, minlength=height)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = np.full((height, counts.max()), -np.inf, dtype=np.float32)
    chunks = np.zeros(found.shape, dtype=np.int64)
    found[rows, columns], chunks[rows, columns] = scores[order], indices[order]
    return found, chunks


def _exact(queries: Floats, corpus: Rows, rows: Ints, indices: Ints) -> Floats:
    """Float64 dot products of the pairs, rounded to float32; ``rows`` are in order."""
    found = np.empty(len(rows), dtype=np.float32)
    asked, starts = np.unique(rows, return_index=True)
    bounds = [*starts.tolist(), len(rows)]
    for row, start, end in zip(asked.tolist(), bounds, bounds[1:], strict=False):
        found[start:end] = corpus[indices[start:end]].astype(np.float64) @ queries[row].astype(np.float64)
    return found


def top_of_scores(scores: NDArray[Any], k: int, ties: Ints) -> Ints:
    """The ``min(k, n)`` highest of one row of scores, best first; of equal scores the one with the lower tie order."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= kth)
    return found[np.lexsort((ties[found], -scores[found]))][:k]
