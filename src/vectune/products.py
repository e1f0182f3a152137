"""Scores of many pairs of vectors: roughly and fast, with a bound on how far they are off, and exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

_PAIRS = 4096  # pairs whose float64 products are computed at a time


class Rows(Protocol):
    """Vectors that are read in slices: an array, a memory map, or codes that turn into floats when asked."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice | Ints, /) -> Floats: ...


class Scores:
    """Rough scores of a block, float32 of shape (q, chunks)."""

    def __init__(self, scores: Floats) -> None:
        self.scores, self.width = scores, scores.shape[1]

    def whole(self) -> Floats:
        """All of them."""
        return self.scores

    def reaching(self, lower: Floats) -> tuple[Ints, Ints, Floats]:
        """Queries, chunks and scores of all that are at least ``lower``, shape (q,); some may be a little below."""
        places = np.flatnonzero(self.scores >= lower[:, None])
        rows, columns = np.divmod(places, self.width)
        return rows, columns, self.scores.ravel()[places]


class Bf16Scores(Scores):
    """The same in bf16, as they come from the product; turned into float32 only where somebody looks at them.

    The bits of positive numbers are in the order of the numbers, and those of negative ones, read as integers with a
    sign, are below all of these. So scores are compared with a positive bound as they are: half the memory to read.
    """

    def __init__(self, product: Any, room: Floats) -> None:
        self.product, self.room, self.width = product, room, product.shape[1]

    def whole(self) -> Floats:
        import torch

        with torch.inference_mode():
            torch.from_numpy(self.room).copy_(self.product)
        return self.room

    def reaching(self, lower: Floats) -> tuple[Ints, Ints, Floats]:
        import torch

        if not (lower > 0).all():
            return Scores(self.whole()).reaching(lower)
        bits = self.product.view(torch.int16).numpy()
        least = (lower.view(np.int32) >> 16).astype(np.int16)  # cut, not rounded: no higher than it was
        places = np.flatnonzero(bits >= least[:, None])
        rows, columns = np.divmod(places, self.width)
        return rows, columns, (bits.ravel()[places].astype(np.int32) << 16).view(np.float32)


class Float32:
    """Products in float32.

    Attributes:
        relative: how much scores are rounded, as a share of their size.
        rescored: whether every candidate is scored again, or only near ties.
        room: where scores are put, taken once: new memory for each block costs as much as the product.
    """

    relative, rescored = np.float32(0), False

    def __init__(self, room: int) -> None:
        self.room = np.empty(room, dtype=np.float32)

    def left(self, queries: Floats) -> Floats:
        """Queries as ``rough`` takes them."""
        return queries

    def right(self, block: Floats) -> Floats:
        """A block of the corpus as ``rough`` takes it."""
        return block

    def rough(self, queries: Floats, block: Floats) -> tuple[Scores, Floats]:
        """Scores, kept until the next call, and how much each query's may be off, shape (q,)."""
        shape = (len(queries), len(block))
        found: Floats = np.matmul(queries, block.T, out=self.room[: shape[0] * shape[1]].reshape(shape))
        return Scores(found), np.full(len(queries), float32_error(queries.shape[1]))


class Bf16:
    """Products of vectors rounded to bf16, added up in float32, and rounded to bf16. Attributes as in ``Float32``.

    With q = q' + e and c = c' + f, where q' and c' are what bf16 keeps, q·c − q'·c' = e·c + q'·f, so that by Cauchy and
    Schwarz the product of unit vectors is off by at most |e| + |q'| |f|. The norms of what was lost are computed, not
    assumed. To that comes d · 2⁻²³ for the additions, and rounding the result, which depends on its size.
    """

    relative, rescored = np.float32(2.0**-8 * 1.03), True  # a little more than 2⁻⁸, of the true score: it is not known

    def __init__(self, room: int) -> None:
        import torch

        self.room = np.empty(room, dtype=np.float32)
        self.product = torch.empty(room, dtype=torch.bfloat16)

    def left(self, queries: Floats) -> tuple[Any, Floats]:
        return _rounded(queries)

    def right(self, block: Floats) -> tuple[Any, np.float32]:
        rounded, lost = _rounded(block)
        return rounded, lost.max()

    def rough(self, queries: tuple[Any, Floats], block: tuple[Any, np.float32]) -> tuple[Scores, Floats]:
        import torch

        (left, lost_left), (right, lost_right) = queries, block
        error = np.float32(1.02) * (lost_left + lost_right + np.float32(left.shape[1] * 2.0**-23))
        shape, size = (len(left), len(right)), len(left) * len(right)
        with torch.inference_mode():
            product = torch.mm(left, right.T, out=self.product[:size].view(shape))
        return Bf16Scores(product, self.room[:size].reshape(shape)), error


def _rounded(vectors: Floats) -> tuple[Any, Floats]:
    """Vectors as a bf16 tensor, and for each the norm of what it lost."""
    import torch

    whole = torch.from_numpy(np.require(vectors, requirements="W"))
    kept = whole.bfloat16()
    return kept, torch.linalg.vector_norm(whole - kept, dim=1).numpy()


def bf16_is_faster() -> bool:
    from vectune.embedders.machine import fast_bf16

    return fast_bf16()


def float32_error(dim: int) -> np.float32:
    """More than a float32 product of unit vectors is off: twice what chance adds up to over the dimensions, and a bit.

    (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019: it grows with the root of d.)
    """
    return np.float32(2.0**-23 * np.sqrt(dim) + 2.0**-22)


def exact(queries: Floats, corpus: Rows, rows: Ints, indices: Ints) -> Floats:
    """Float64 dot products of the pairs, rounded to float32."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        left, right = queries[rows[part]].astype(np.float64), corpus[indices[part]].astype(np.float64)
        found[part] = np.einsum("ij,ij->i", left, right)
    return found


def products(queries: Floats, corpus: Rows, rows: Ints, indices: Ints) -> Floats:
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
