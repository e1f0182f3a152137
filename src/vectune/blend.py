"""A blend: one unit vector that holds an embedder's vector and a lexical tail, so that one index serves a hybrid.

What is ranked by is ``w · z(lexical) + (1 − w) · z(cosine)``, as in ``lexical.fuse``. The means of the z-scores are the
same for every chunk, so they change no ranking; the standard deviations over the corpus follow for any query from the
covariances of the two parts. They are scalars of the query, so the sum is one inner product. Document vectors get one
more dimension that brings them to unit norm (Bachrach et al., "Speeding up the Xbox recommender", RecSys 2014), so that
a store's cosine gives the very same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune.adapters import check_base, read_json
from vectune.carded import Carded
from vectune.embedders.models import ARTIFACT_FILE, INNER
from vectune.errors import ModelError
from vectune.protocols import Embedder
from vectune.tail import Tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Vectors

    Floats = NDArray[np.float32]

NAME = "blend"  # of its files
SAMPLE = 100_000  # chunks by which larger corpora are measured
_ROOM = 1.1  # chunks that come later may be longer than the longest of the corpus


@dataclass(frozen=True)
class Blend:
    """How base vectors and tail make one vector.

    Attributes:
        tail: the lexical part.
        weight: of the lexical part, 0 to 1.
        dense_covariance: of the corpus's base vectors, shape (base dim, base dim).
        tail_covariance: of the corpus's tails, shape (tail dim, tail dim).
        scale: what document tails are multiplied by.
        radius: norm of a document vector before the last dimension brings it to 1.
    """

    tail: Tail
    weight: float
    dense_covariance: Floats
    tail_covariance: Floats
    scale: float
    radius: float

    @classmethod
    def fit(cls, tail: Tail, texts: Sequence[str], vectors: Vectors, weight: float) -> Blend:
        """Measure the corpus.

        Args:
            tail: fitted on the same corpus.
            texts: the chunks' contents.
            vectors: the base's unit vectors of the chunks, shape (len(texts), base dim).
            weight: of the lexical part.
        """
        step = -(-len(texts) // SAMPLE)
        tails = tail.documents(texts[::step])
        squares = np.einsum("ij,ij->i", tails, tails)
        scale = float(1 / np.sqrt(max(float(squares.mean()), 1e-9)))
        radius = float(np.sqrt(1 + _ROOM * float(squares.max()) * scale**2))
        return cls(tail, weight, _covariance(vectors[::step]), _covariance(tails), scale, radius)

    @property
    def dim(self) -> int:
        return len(self.dense_covariance) + self.tail.dim + 1

    def weighing(self, weight: float) -> Blend:
        """The same with another weight; documents keep their vectors."""
        return replace(self, weight=weight)

    def documents(self, vectors: Vectors, texts: Sequence[str]) -> Vectors:
        """Base vectors and their texts → unit vectors of shape (n, dim)."""
        tails = self.tail.documents(texts) * np.float32(self.scale)
        room = self.radius**2 - 1
        squares = np.einsum("ij,ij->i", tails, tails)
        tails *= np.sqrt(np.minimum(1, room / np.maximum(squares, 1e-9)))[:, None].astype(np.float32)
        rest = np.sqrt(np.maximum(room - np.minimum(squares, room), 0))[:, None]
        return np.hstack([vectors, tails, rest]).astype(np.float32) / np.float32(self.radius)

    def queries(self, vectors: Vectors, texts: Sequence[str]) -> Vectors:
        """Base vectors and their texts → unit vectors of shape (n, dim)."""
        tails = self.tail.queries(texts)
        dense = (1 - self.weight) / spread(vectors, self.dense_covariance)
        lexical = self.weight / spread(tails, self.tail_covariance) / self.scale
        lexical[~tails.any(axis=1)] = 0
        dense[(lexical == 0) & (dense == 0)] = 1  # all weight on words, and none of them known
        found = np.hstack([vectors * dense[:, None], tails * lexical[:, None], np.zeros((len(vectors), 1))])
        unit: Vectors = (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the vectors depend on, the base apart."""
        return self._carded.fingerprint

    def save(self, folder: Path) -> None:
        """Write ``blend.safetensors`` and ``blend.json`` into an existing folder."""
        self._carded.save(folder, NAME)

    @classmethod
    def load(cls, folder: Path) -> Blend:
        """Read what ``save`` wrote.

        Raises:
            ModelError: a file is missing or damaged.
        """
        found = Carded.load(folder, NAME)
        try:
            facts, tensors = found.facts, found.tensors
            tail = Tail.stored(facts, tensors)
            dense, lexical = tensors["dense_covariance"], tensors["tail_covariance"]
            return cls(tail, facts["weight"], dense, lexical, facts["scale"], facts["radius"])
        except KeyError as error:
            raise ModelError(f"{folder}: holds no whole blend ({error}).") from None

    @property
    def _carded(self) -> Carded:
        facts = {"weight": self.weight, "scale": self.scale, "radius": self.radius, **self.tail.facts}
        covariances = {"dense_covariance": self.dense_covariance, "tail_covariance": self.tail_covariance}
        return Carded(facts, {**self.tail.tensors, **covariances})


@dataclass(frozen=True)
class BlendedEmbedder:
    """An Embedder: the base's vectors with a lexical tail. ``source`` is the folder that it was opened from."""

    base: Embedder
    blend: Blend
    name: str
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.blend.dense_covariance) != self.base.dim:
            made = len(self.blend.dense_covariance)
            raise ModelError(
                f"{self.name}: made for a base of {made} dimensions, {self.base.name} has {self.base.dim}."
            )

    @property
    def dim(self) -> int:
        return self.blend.dim

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"blend {self.base.fingerprint} {self.blend.fingerprint}".encode()).hexdigest()

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.blend.queries(self.base.embed_queries(texts), texts)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self.blend.documents(self.base.embed_documents(texts), texts)


def open_blend(
    folder: str | Path, open_base: Callable[[str], Embedder], open_inner: Callable[[Path], Embedder]
) -> BlendedEmbedder:
    """The embedder of an artifact folder of kind ``blend``.

    Args:
        folder: what ``tune`` wrote.
        open_base: opens a base by its name, with its cache.
        open_inner: opens the tuned model inside the folder, where there is one; it is the base then.

    Raises:
        ModelError: the folder is damaged or of another kind.
        FingerprintError: the base of that name now makes other vectors than the blend was made for.
    """
    folder = Path(folder)
    source = str(folder.resolve())
    marker = read_json(folder / ARTIFACT_FILE)
    name = marker.get("base")
    if marker.get("kind") != "blend" or not isinstance(name, str) or not name:
        raise ModelError(f"{folder / ARTIFACT_FILE}: is not the marker of a blend.")
    if (folder / INNER).is_dir():
        return BlendedEmbedder(open_inner(folder / INNER), Blend.load(folder), folder.name, source)
    base = open_base(name)
    check_base(base, name, str(marker.get("base_fingerprint") or ""), "blend")
    return BlendedEmbedder(base, Blend.load(folder), folder.name, source)


def _covariance(vectors: Floats) -> Floats:
    """Of rows, shape (d, d)."""
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    covariance: Floats = (centred.T @ centred / len(vectors)).astype(np.float32)
    return covariance


def spread(queries: Floats, covariance: Floats) -> NDArray[np.float64]:
    """Standard deviation over the corpus of each query's scores."""
    variance = np.einsum("ij,jk,ik->i", queries, covariance, queries, optimize=True).astype(np.float64)
    spread: NDArray[np.float64] = np.sqrt(np.maximum(variance, 1e-12))
    return spread
