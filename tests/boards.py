"""A small dataset and embedders without a model, for tests of evaluation and what follows it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vectune.dataset import RetrievalDataset
from vectune.records import Chunk, Query

Floats = NDArray[np.float32]
TOPICS = ("river", "engine", "violin", "glacier", "market", "orchid", "harbour", "comet", "ledger", "falcon")


def dataset(documents: int = 12, chunks: int = 4, *, generated: bool = False) -> RetrievalDataset:
    """Documents about a topic each; a query for every chunk, alternately of train, dev and test by document."""
    corpus: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for document in range(documents):
        topic = TOPICS[document % len(TOPICS)]
        for place in range(chunks):
            key = f"d{document:02}c{place}"
            words = f"{topic} item{document} detail{place} note{document * chunks + place}"
            corpus[key] = Chunk(f"The {words} is described here.", document_id=f"doc{document}", id=key)
            query = Query(f"what is {topic} detail{place} item{document}", style="question", id=f"q{key}")
            queries[query.id] = query
            qrels[("train", "dev", "test")[document % 3]][query.id] = {key: 1}
    return RetrievalDataset(corpus, queries, qrels, {"name": "small", "generated": generated})


class WordEmbedder:
    """Sums of random directions, one for each word. ``noise`` spoils it, so that a better and a worse one exist."""

    def __init__(self, name: str = "words", dim: int = 32, noise: float = 0.0) -> None:
        self.name, self.dim, self.noise, self.fingerprint = name, dim, noise, f"{name}-{dim}-{noise}"
        self.asked = 0

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        return self._embed(texts)

    def embed_documents(self, texts: Sequence[str]) -> Floats:
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> Floats:
        self.asked += len(texts)
        found = np.stack([sum((self._direction(word) for word in text.lower().split()), np.zeros(self.dim))
                          + self.noise * self._direction(text + "!") for text in texts])  # fmt: skip
        vectors: Floats = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def _direction(self, word: str) -> NDArray[np.float64]:
        return _direction(word.strip("."), self.dim)


@lru_cache(maxsize=10_000)
def _direction(word: str, dim: int) -> NDArray[np.float64]:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=dim)
