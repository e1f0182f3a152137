"""Embedders without a model: a vector for each text, from a table; and a dataset whose queries are turned documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectune.dataset import Qrels, RetrievalDataset
from vectune.records import Chunk, Query
from vectune.runs import hash_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.float64] | Vectors) -> Vectors:
    """Rows of unit norm."""
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


class TableEmbedder:
    """Looks vectors up; counts what it was asked."""

    def __init__(self, name: str, table: dict[str, Vectors]) -> None:
        self.name, self.table = name, table
        self.dim = len(next(iter(table.values())))
        self.asked: list[str] = []

    @property
    def fingerprint(self) -> str:
        return hash_of([self.name, {text: vector.tolist() for text, vector in self.table.items()}])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        self.asked.extend(texts)
        return np.stack([self.table[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)


def turned_space(
    documents: int = 60, chunks: int = 4, dim: int = 16, queries: int = 2, seed: int = 0, noise: float = 0.3
) -> tuple[RetrievalDataset, TableEmbedder]:
    """A dataset in which a query is its chunk's vector, turned by one matrix that an adapter can learn, and noise.

    Two thirds of the documents are for training, one third for test.
    """
    rng = np.random.default_rng(seed)
    turn = np.eye(dim) + 0.8 * rng.normal(size=(dim, dim)) / dim**0.5
    corpus, asked, table = {}, {}, {}
    qrels: dict[str, Qrels] = {"train": {}, "test": {}}
    for document in range(documents):
        for place in range(chunks):
            chunk = Chunk(
                f"chunk {place} of document {document}", document_id=f"d{document}", id=f"d{document}c{place}"
            )
            corpus[chunk.id] = chunk
            table[chunk.content] = unit(rng.normal(size=dim))
            for number in range(queries):
                query = Query(f"query {number} for {chunk.id}")
                asked[query.id] = query
                table[query.text] = unit(turn @ table[chunk.content] + noise * rng.normal(size=dim) / dim**0.5)
                split = "train" if document % 3 else "test"
                qrels[split][query.id] = {chunk.id: 1}
    return RetrievalDataset(corpus, asked, qrels, {"name": "turned"}), TableEmbedder("table", table)
