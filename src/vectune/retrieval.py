"""Exact search: the best k chunks of every query, in blocks, the same whatever the blocks are.

One pass over the corpus, which may be a memory map; never a queries × corpus matrix. The pass computes rough scores, of
which it is known how far they can be off: in float32 by BLAS, whose last digits depend on where in a block a vector
stands, or in bf16 where that is faster. A chunk is passed over only where k others are better by more than that. What
is left and so close that the roughness could decide is computed again in float64 and rounded: equal vectors have equal
scores wherever they stand, and ties go by one order that the caller gives.
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
_PAIRS = 4096  # pairs whose float64 products are computed at a time
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
    n, k = len(corpus), min(k, len(corpus))
    ties = np.arange(n, dtype=np.int64) if ties is None else ties
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    parts = [queries[start : start + QUERY_BLOCK] for start in range(0, len(queries), QUERY_BLOCK)]
    kind = _Bf16 if n >= _WORTH_BF16 * k and _bf16_is_faster() else _Float32
    product = kind(min(QUERY_BLOCK, len(queries)))
    best = [_Best(product, part, corpus, k, ties) for part in parts]
    for start in range(0, n, CORPUS_BLOCK):
        block = np.ascontiguousarray(corpus[start : start + CORPUS_BLOCK], dtype=np.float32)
        right = product.right(block)
        for part in best:
            part.add(right, start)
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


class _Float32:
    """Products in float32.

    Attributes:
        relative: how much scores are rounded, as a share of their size.
        rescored: whether every candidate is scored again, or only near ties.
        room: where scores are put, taken once: new memory for each block costs as much as the product.
    """

    relative, rescored = np.float32(0), False

    def __init__(self, queries: int) -> None:
        self.room = np.empty(queries * CORPUS_BLOCK, dtype=np.float32)

    def left(self, queries: Floats) -> Floats:
        """Queries as ``rough`` takes them."""
        return queries

    def right(self, block: Floats) -> Floats:
        """A block of the corpus as ``rough`` takes it."""
        return block

    def rough(self, queries: Floats, block: Floats) -> tuple[Floats, Floats]:
        """Scores of shape (q, len(block)), kept until the next call, and how much each query's may be off."""
        shape = (len(queries), len(block))
        found: Floats = np.matmul(queries, block.T, out=self.room[: shape[0] * shape[1]].reshape(shape))
        return found, np.full(len(queries), _float32_error(queries.shape[1]))


class _Bf16:
    """Products of vectors rounded to bf16, added up in float32, and rounded to bf16. Attributes as in ``_Float32``.

    With q = q' + e and c = c' + f, where q' and c' are what bf16 keeps, q·c − q'·c' = e·c + q'·f, so that by Cauchy and
    Schwarz the product of unit vectors is off by at most |e| + |q'| |f|. The norms of what was lost are computed, not
    assumed. To that comes d · 2⁻²³ for the additions, and rounding the result, which depends on its size.
    """

    relative, rescored = np.float32(2.0**-8 * 1.03), True  # a little more than 2⁻⁸, of the true score: it is not known

    def __init__(self, queries: int) -> None:
        import torch

        self.room = np.empty(queries * CORPUS_BLOCK, dtype=np.float32)
        self.product = torch.empty(queries * CORPUS_BLOCK, dtype=torch.bfloat16)

    def left(self, queries: Floats) -> tuple[Any, Floats]:
        return _rounded(queries)

    def right(self, block: Floats) -> tuple[Any, np.float32]:
        rounded, lost = _rounded(block)
        return rounded, lost.max()

    def rough(self, queries: tuple[Any, Floats], block: tuple[Any, np.float32]) -> tuple[Floats, Floats]:
        import torch

        (left, lost_left), (right, lost_right) = queries, block
        error = np.float32(1.02) * (lost_left + lost_right + np.float32(left.shape[1] * 2.0**-23))
        shape, size = (len(left), len(right)), len(left) * len(right)
        with torch.inference_mode():
            product = torch.mm(left, right.T, out=self.product[:size].view(shape))
            found = self.room[:size].reshape(shape)
            torch.from_numpy(found).copy_(product)
        return found, error


def _rounded(vectors: Floats) -> tuple[Any, Floats]:
    """Vectors as a bf16 tensor, and for each the norm of what it lost."""
    import torch

    whole = torch.from_numpy(np.require(vectors, requirements="W"))
    kept = whole.bfloat16()
    lost = (whole - kept).numpy()
    return kept, np.sqrt(np.einsum("ij,ij->i", lost, lost))


def _bf16_is_faster() -> bool:
    from vectune.embedders.machine import fast_bf16

    return fast_bf16()


class _Best:
    """The best k so far of one block of queries, and what may yet be among them."""

    def __init__(self, product: _Float32 | _Bf16, queries: Floats, corpus: Rows, k: int, ties: Ints) -> None:
        self.product, self.queries, self.corpus, self.k, self.ties = product, queries, corpus, k, ties
        self.left: Any = product.left(queries)
        self.error = np.zeros(len(queries), dtype=np.float32)  # the most that a query's rough scores were off so far
        self.kth = np.full(len(queries), -np.inf, dtype=np.float32)  # k chunks are known to score as much, roughly
        self.found: list[tuple[Ints, Ints, Floats]] = []  # queries, chunks and their rough scores
        self.pending = 0

    def add(self, block: Any, start: int) -> None:
        """Look at the chunks from ``start`` on."""
        rough, error = self.product.rough(self.left, block)
        self.error = np.maximum(self.error, error)
        if not self.found and rough.shape[1] > self.k:
            self.kth = _at_most_kth(rough, self.k)
        places = np.flatnonzero(rough >= self._threshold(self.kth)[:, None])
        rows, columns = np.divmod(places, rough.shape[1])
        self.found.append((rows, columns + start, rough.ravel()[places]))
        self.pending += len(places)
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
            indices, exact = self.result()
            self.found = [(np.repeat(np.arange(len(indices)), indices.shape[1]), indices.ravel(), exact.ravel())]
        self.pending = len(self.found[0][0])

    def result(self) -> tuple[Ints, Floats]:
        """Indices and scores of the best so far, both of shape (q, min(k, chunks seen)); near ties are settled."""
        rows, indices, scores = (np.concatenate(part) for part in zip(*self.found, strict=True))
        width = min(self.k, int(np.bincount(rows, minlength=len(self.queries)).min()))
        rough, chunks = _grid(len(self.queries), rows, scores, indices)
        rows, columns = np.nonzero(rough >= self._threshold(_kth(rough, width))[:, None])
        scores, chunks = rough[rows, columns], chunks[rows, columns]
        if self.product.rescored:
            scores = _products(self.queries, self.corpus, rows, chunks)
        scores, chunks = _grid(len(self.queries), rows, scores, chunks)
        order = np.argsort(-scores, axis=1)
        scores, chunks = np.take_along_axis(scores, order, axis=1), np.take_along_axis(chunks, order, axis=1)
        rows, columns = np.nonzero(_near(scores, 2 * _float32_error(self.queries.shape[1])))
        scores[rows, columns] = _exact(self.queries, self.corpus, rows, chunks[rows, columns])
        order = np.lexsort((self.ties[chunks], -scores), axis=-1)[:, :width]
        return np.take_along_axis(chunks, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _float32_error(dim: int) -> np.float32:
    """More than a float32 product of unit vectors is off: twice what chance adds up to over the dimensions, and a bit.

    (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019: it grows with the root of d.)
    """
    return np.float32(2.0**-23 * np.sqrt(dim) + 2.0**-22)


def _near(scores: Floats, distance: np.float32) -> NDArray[np.bool_]:
    """Which scores of rows in descending order are closer to a neighbour than that, so that rounding could decide."""
    with np.errstate(invalid="ignore"):  # −∞ − −∞
        close = scores[:, :-1] - scores[:, 1:] < distance
    found = np.zeros(scores.shape, dtype=np.bool_)
    found[:, :-1] |= close
    found[:, 1:] |= close
    return found


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


def _exact(queries: Floats, corpus: Rows, rows: Ints, indices: Ints) -> Floats:
    """Float64 dot products of the pairs, rounded to float32."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        left, right = queries[rows[part]].astype(np.float64), corpus[indices[part]].astype(np.float64)
        found[part] = np.einsum("ij,ij->i", left, right)
    return found


def _products(queries: Floats, corpus: Rows, rows: Ints, indices: Ints) -> Floats:
    """Float32 dot products of the pairs, of which each query has many; ``rows`` are in order."""
    found = np.empty(len(rows), dtype=np.float32)
    asked, starts = np.unique(rows, return_index=True)
    bounds = [*starts.tolist(), len(rows)]
    room = np.empty((max(np.diff(bounds), default=0), queries.shape[1]), dtype=np.float32)
    for row, start, end in zip(asked.tolist(), bounds, bounds[1:], strict=False):
        found[start:end] = _taken(corpus, indices[start:end], room[: end - start]) @ queries[row]
    return found


def _taken(corpus: Rows, indices: Ints, room: Floats) -> Floats:
    """These rows; of plain arrays into the same memory each time, which is twice as fast."""
    if isinstance(corpus, np.ndarray) and corpus.dtype == np.float32:
        return np.take(corpus, indices, axis=0, out=room, mode="clip")
    return corpus[indices]


def top_of_scores(scores: NDArray[Any], k: int, ties: Ints) -> Ints:
    """The ``min(k, n)`` highest of one row of scores, best first; of equal scores the one with the lower tie order."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= kth)
    return found[np.lexsort((ties[found], -scores[found]))][:k]
