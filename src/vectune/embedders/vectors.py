"""Rows of vectors: gathered from batches; at unit norm, and refused when they hold nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectune.errors import ModelError

if TYPE_CHECKING:
    from vectune.protocols import Vectors


def unit_rows(vectors: Vectors, texts: Sequence[str], name: str) -> Vectors:
    """The rows at unit norm.

    Raises:
        ModelError: a row is zero or not finite.
    """
    norms = _norms(vectors)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
    if bad.size:
        row = int(bad[0])
        kind = "a zero vector" if np.isfinite(norms[row]) else "NaN or infinity"
        raise ModelError(
            f"{name}: gives {kind} for {bad.size} of {len(texts)} texts, first {row + 1}: {texts[row][:60]!r}.",
            "An empty text may have no vector. If it is not empty, the model's weights are broken.",
        )
    return _divided(vectors, norms)


def at_unit_norm(vectors: Vectors) -> Vectors:
    """The rows at unit norm; a row that has none (zero, NaN) stays as it is, for whoever reads it to refuse."""
    return _divided(vectors, _norms(vectors))


def _norms(vectors: Vectors) -> Vectors:
    norms: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return norms


def _divided(vectors: Vectors, norms: Vectors) -> Vectors:
    """The rows at unit norm where they have another one that is a norm."""
    other = np.isfinite(norms) & (norms >= 1e-12) & (np.abs(norms - 1) > 1e-6)
    if other.any():
        vectors = np.divide(vectors, norms[:, None], out=vectors.copy(), where=other[:, None])
    return np.ascontiguousarray(vectors, dtype=np.float32)


def gathered(batches: Iterable[tuple[Sequence[int], Vectors]], count: int) -> Vectors:
    """One array of ``count`` > 0 rows from (places, vectors) of batches that hold each place once, in any order."""
    out: Vectors | None = None
    for places, vectors in batches:
        if out is None:
            out = np.empty((count, vectors.shape[1]), dtype=np.float32)
        out[places] = vectors
    assert out is not None
    return out
