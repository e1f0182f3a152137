"""CachedEmbedder: an embedder that asks the vector cache first, and keeps what is new as soon as it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vectune.embedders.cache import VectorCache
from vectune.embedders.vectors import at_unit_norm
from vectune.errors import ModelError
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder

if TYPE_CHECKING:
    from vectune.protocols import Vectors

BLOCK = 4096  # texts of one call to an embedder that cannot hand over its batches one by one
KEEP_EVERY = 1024  # new vectors that a killed process may lose


class CachedEmbedder:
    """The same vectors as ``inner`` gives, each computed once.

    Args:
        inner: the embedder. Where it has ``stream(texts, role)``, which yields (indices, vectors) as they become
            ready, all that came before a failure is kept; else whole blocks are.
        progress: counts the texts that are new.
        limit_gib: see ``VectorCache``.
    """

    def __init__(self, inner: Embedder, progress: Progress = SILENT, limit_gib: float = 20.0) -> None:
        self.inner = inner
        self.progress = progress
        self.limit_gib = limit_gib
        self.hits = self.misses = 0
        self._caches: dict[str, VectorCache] = {}

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def dim(self) -> int:
        return self.cache.dim  # from disk where known: asking an API costs a request

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    @property
    def cache(self) -> VectorCache:
        """The vectors on disk of what the embedder is now."""
        key = str(getattr(self.inner, "cache_key", self.inner.fingerprint))
        if key not in self._caches:
            paid = bool(getattr(self.inner, "paid", True))  # who knows what somebody's own embedder asks
            cache = VectorCache(key, name=self.name, limit_gib=self.limit_gib, paid=paid, warn=self.progress.warn)
            self._caches[key] = cache if cache.dim else cache.with_dim(self.inner.dim)
        return self._caches[key]

    def __getattr__(self, name: str) -> Any:
        """What only this kind of embedder has: ``truncated``, ``tokenizer``, ``usage`` …"""
        if name.startswith("_") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "query")

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "document")

    def _embed(self, texts: Sequence[str], role: str) -> Vectors:
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        if not len(texts):
            return out
        missing = self.cache.get(texts, role, out)
        self.hits += len(texts) - len(missing)
        self.misses += len(missing)
        if missing.size:
            self._compute(texts, role, missing, out)
        return out

    def _compute(self, texts: Sequence[str], role: str, missing: NDArray[np.intp], out: Vectors) -> None:
        """Embed each missing text once, and keep it."""
        places: dict[str, list[int]] = {}
        for index in missing.tolist():
            places.setdefault(texts[index], []).append(index)
        new = list(places)
        pending = _Pending(self.cache, role)
        try:
            for indices, vectors in self._stream(new, role):
                if vectors.shape[1] != out.shape[1]:
                    raise ModelError(
                        f"{self.name}: gave vectors of {vectors.shape[1]} dimensions, {out.shape[1]} are in the cache.",
                        "Another model answers to this name now; vectors of two models must not be mixed. "
                        f"To forget the old ones: vectune cache prune {self.cache.folder.name[:12]}",
                    )
                batch, vectors = [new[index] for index in indices], at_unit_norm(vectors)  # others are not kept
                for text, vector in zip(batch, vectors, strict=True):
                    out[places[text]] = vector
                pending.add(batch, vectors)
        finally:  # also when the embedder fails half way: what is computed or paid for is kept
            pending.flush()

    def _stream(self, texts: list[str], role: str) -> Iterator[tuple[Sequence[int], Vectors]]:
        stream = getattr(self.inner, "stream", None)
        if stream is not None:
            yield from stream(texts, role)
            return
        embed = self.inner.embed_queries if role == "query" else self.inner.embed_documents
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            yield range(start, start + len(block)), embed(block)


class _Pending:
    """New vectors on their way to the disk."""

    def __init__(self, cache: VectorCache, role: str) -> None:
        self.cache, self.role = cache, role
        self.texts: list[str] = []
        self.vectors: list[Vectors] = []

    def add(self, texts: list[str], vectors: Vectors) -> None:
        self.texts += texts
        self.vectors.append(vectors)
        if len(self.texts) >= KEEP_EVERY:
            self.flush()

    def flush(self) -> None:
        if self.texts:
            self.cache.put(self.texts, self.role, np.concatenate(self.vectors))
            self.texts, self.vectors = [], []
