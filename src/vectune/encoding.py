"""A dataset as vectors: each model embeds the corpus once, whatever number of rows is made of it, and is checked.

A model that answers with fewer rows than it was asked for, with another dimension, with NaN or with a zero vector
stops the evaluation with an error that names the chunk or the query: scores of such vectors would mean nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.dataset import RetrievalDataset
from vectune.embedders.cached import CachedEmbedder
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import API
from vectune.embedders.options import DEFAULTS
from vectune.errors import ModelError
from vectune.lexical import BM25
from vectune.progress import Progress
from vectune.protocols import Embedder
from vectune.queries.pricing import count_tokens, price_table
from vectune.retrieval import tie_order

if TYPE_CHECKING:
    from vectune.embedders.settings import Settings
    from vectune.products import Floats, Ints

BATCH = 1024  # texts for one call; the embedder makes its own batches of them, and the cache keeps each
IN_MEMORY = 2 << 30  # bytes of one model's vectors above which they go to a temporary file
TIMED_CHUNKS = 64
_SHOWN = 60


class Encoder:
    """One embedder, checked, with the corpus's vectors.

    Args:
        embedder: what embeds.
        label: as errors name it.
        texts: the corpus's contents, in order.
    """

    def __init__(self, embedder: Embedder, label: str, texts: Sequence[str], progress: Progress) -> None:
        self.embedder, self.label, self.texts, self.progress = embedder, label, texts, progress
        self._corpus: Floats | None = None
        self._queries: dict[str, Floats] = {}
        self._seconds: dict[tuple[str, ...], list[float]] = {}

    @property
    def corpus(self) -> Floats:
        """Unit vectors of all chunks, float32 of shape (n, dim); embedded when first asked for."""
        if self._corpus is None:
            self._corpus = self._embed_corpus()
        return self._corpus

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of these queries, float32 of shape (len(texts), dim); each text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._queries]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            found = checked(self.embedder.embed_queries(batch), batch, self.embedder.dim, self.label, "query")
            self._queries.update(zip(batch, found, strict=True))
        return np.stack([self._queries[text] for text in texts])

    @property
    def untuned(self) -> Embedder | None:
        """What embedded queries before an adapter or a query encoder was fitted, in the end on dev's queries as well.

        There the tuned one looks too good, so nothing may be chosen by it. None where dev was not trained on, and where
        documents pass through an adapter as well: see ``fitted_on_dev``.
        """
        found: Embedder | None = getattr(self.embedder, "untuned", None)
        return found

    def untuned_queries(self, texts: Sequence[str]) -> Floats:
        """As ``queries``, before an adapter or a query encoder where there is one."""
        if self.untuned is None:
            return self.queries(texts)
        found = self.untuned.embed_queries(texts)
        return checked(found, texts, self.untuned.dim, self.label, "query")

    def query_seconds(self, texts: tuple[str, ...]) -> list[float]:
        """Seconds to embed each of these queries alone and past the cache; measured once, the first one warms up."""
        if texts and texts not in self._seconds:
            embedder = _uncached(self.embedder)
            embedder.embed_queries([texts[0]])
            self._seconds[texts] = [_seconds(partial(embedder.embed_queries, [text])) for text in texts]
        return self._seconds.get(texts, [])

    @cached_property
    def truncated(self) -> int | None:
        """How many chunks are longer than what the model reads; None where the embedder cannot tell."""
        for part in _inside(self.embedder):
            if callable(count := getattr(part, "truncated", None)):
                return int(count(self.texts))
        return None

    @cached_property
    def documents_per_second(self) -> float | None:
        """Chunks embedded a second, past the cache, on 64 of them; None for an API, which would charge for it."""
        embedder = _uncached(self.embedder)
        if not self.texts or _api(embedder) is not None:
            return None
        places = np.linspace(0, len(self.texts) - 1, min(TIMED_CHUNKS, len(self.texts)), dtype=int)
        texts = [self.texts[place] for place in places]
        return round(len(texts) / max(_seconds(lambda: embedder.embed_documents(texts)), 1e-9), 1)

    @cached_property
    def api_price(self) -> tuple[int, float | None] | None:
        """Tokens of the corpus, estimated, and what an API charges to embed them (None where its price is unknown)."""
        name = _api(self.embedder)
        if name is None:
            return None
        tokens = sum(count_tokens(text) for text in self.texts)
        price = price_table().of(name)
        return tokens, None if price is None else round(price.of(tokens, 0), 6)

    def _embed_corpus(self) -> Floats:
        dim = self.embedder.dim
        found = _array(len(self.texts), dim)
        with self.progress.task(f"embed with {self.label}", total=len(self.texts), unit="chunks") as task:
            for start in range(0, len(self.texts), BATCH):
                batch = self.texts[start : start + BATCH]
                vectors = self.embedder.embed_documents(batch)
                found[start : start + len(batch)] = checked(vectors, batch, dim, self.label, "chunk")
                task.advance(len(batch))
        return found


class EncodedDataset:
    """The corpus's texts, BM25 over them, and one Encoder for each model named."""

    def __init__(
        self,
        dataset: RetrievalDataset,
        *,
        language: str | None,
        cache: bool,
        progress: Progress,
        settings: Settings = DEFAULTS,
    ) -> None:
        self.dataset, self.progress = dataset, progress
        self.language, self.cache, self.settings = language, cache, settings
        self.ids = list(dataset.corpus)
        self.texts = [chunk.content for chunk in dataset.corpus.values()]
        self.ties: Ints = tie_order(self.ids)
        self._bm25: BM25 | None = None
        self._encoders: dict[str, Encoder] = {}

    @property
    def bm25(self) -> BM25:
        """BM25 over the corpus; built when first asked for."""
        if self._bm25 is None:
            self._bm25 = BM25(self.texts, self.language)
        return self._bm25

    def encoder(self, label: str, model: Any) -> Encoder:
        """The encoder of a model, opened when it is first asked for.

        Raises:
            ModelError: the model cannot be loaded.
        """
        if label not in self._encoders:
            embedder = model if isinstance(model, Embedder) else open_embedder(model, self.settings, self.cache)
            self._encoders[label] = Encoder(embedder, label, self.texts, self.progress)
        return self._encoders[label]


def checked(vectors: Any, texts: Sequence[str], dim: int, label: str, kind: str) -> Floats:
    """The vectors with unit norm, if they are vectors of these texts.

    Raises:
        ModelError: too few or too many rows, another dimension, NaN or infinity, or a zero vector.
    """
    found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2 or found.shape[0] != len(texts):
        raise ModelError(f"{label}: asked for {len(texts)} vectors, answered with an array of shape {found.shape}.")
    if found.shape[1] != dim:
        raise ModelError(f"{label}: answered with {found.shape[1]} dimensions, but says it has {dim}.")
    norms = np.sqrt(np.einsum("ij,ij->i", found, found))
    for bad, what in ((~np.isfinite(norms), "is not finite (NaN or infinity)"), (norms == 0, "is zero")):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            text = texts[first] if len(texts[first]) <= _SHOWN else texts[first][:_SHOWN] + "…"
            raise ModelError(
                f"{label}: the vector of the {kind} '{text}' {what}"
                f"{'' if bad.sum() == 1 else f', like {int(bad.sum()) - 1} more of {len(texts)}'}.",
                "Such a vector cannot be ranked. Is the text empty, or the model damaged?",
            )
    if np.abs(norms - 1).max(initial=0) > 1e-5:
        found = found / norms[:, None]
    return found


def truncated(vectors: Floats, dims: int, label: str) -> Floats:
    """The first ``dims`` dimensions, with unit norm again (Kusupati et al., Matryoshka representation learning, 2022).

    Raises:
        ModelError: the vectors have fewer dimensions.
    """
    if dims > vectors.shape[1]:
        raise ModelError(f"{label}: asks for {dims} dimensions, but the model has {vectors.shape[1]}.")
    part = np.asarray(vectors[:, :dims])
    norms = np.linalg.norm(part, axis=1, keepdims=True)
    found: Floats = np.divide(part, norms, out=np.zeros_like(part), where=norms > 0)
    return found


def latency(seconds: Sequence[float]) -> dict[str, float] | None:
    """Median and 95th percentile in milliseconds; None of nothing."""
    if not seconds:
        return None
    median, p95 = np.percentile(seconds, [50, 95])
    return {"median": round(float(median) * 1000, 3), "p95": round(float(p95) * 1000, 3)}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _uncached(embedder: Embedder) -> Embedder:
    """The embedder without any cache: around it, or inside it where an adapter or the like is around that."""
    if isinstance(embedder, CachedEmbedder):
        return _uncached(embedder.inner)
    known: Any = embedder  # to mypy no Embedder is a dataclass
    if not hasattr(known, "__dataclass_fields__"):
        return embedder
    parts = {part.name: getattr(known, part.name) for part in fields(known)}
    bare: Embedder = replace(
        known, **{name: _uncached(part) for name, part in parts.items() if isinstance(part, Embedder)}
    )
    return bare


def _inside(embedder: Embedder) -> Iterator[object]:
    """The embedder, and one after another what is in it and embeds its documents."""
    part: object = embedder
    while part is not None:
        yield part
        part = next((found for name in ("inner", "base", "document") if (found := getattr(part, name, None))), None)


def _api(embedder: Embedder) -> str | None:
    """The name of the API that vectors are bought from, behind caches and adapters; None where nothing is bought."""
    for part in _inside(embedder):
        if hasattr(part, "usage"):
            return str(getattr(part, "name", "")).removeprefix(API)
    return None


def _array(rows: int, dim: int) -> Floats:
    if rows * dim * 4 <= IN_MEMORY:
        return np.empty((rows, dim), dtype=np.float32)
    file = tempfile.TemporaryFile(prefix="vectune-vectors-")  # the map keeps it open
    return np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, dim))
