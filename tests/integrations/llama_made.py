"""Datasets and a black-box embedding for the tests of LlamaIndex's names."""

from __future__ import annotations

from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_server import USES

from vectune.integrations.llama_index import EmbeddingQAFinetuneDataset
from vectune.testing import hashed_embedding

THEIRS = Path(__file__).parent / "from_llama_index"


def dataset_about(things: list[str]) -> EmbeddingQAFinetuneDataset:
    pairs = [(f"{thing}-{use}", f"how do I {use} a {thing}", use, thing) for thing in things for use in USES]
    return EmbeddingQAFinetuneDataset(
        queries={f"q-{key}": query for key, query, *_ in pairs},
        corpus={key: f"you can {use} the {thing} with your hand" for key, _, use, thing in pairs},
        relevant_docs={f"q-{key}": [key] for key, *_ in pairs},
    )


class Hashed(BaseEmbedding):
    """A black box that counts what it is asked."""

    asked: dict[str, int]
    lists: list[int]

    def _vector(self, text: str) -> list[float]:
        self.asked[text] = self.asked.get(text, 0) + 1
        return [3.0 * value for value in hashed_embedding(text, 32)]  # not of unit norm

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.lists.append(len(texts))
        return [self._vector(text) for text in texts]


def hashed() -> Hashed:
    return Hashed(model_name="hashed", embed_batch_size=50, asked={}, lists=[])
