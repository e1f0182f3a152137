"""Haystack components: in a pipeline, and through its file."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("haystack", reason="needs haystack-ai: pip install 'vectune[haystack]'")

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from vectune.embedders.factory import open_embedder
from vectune.embedders.options import EmbedOptions
from vectune.errors import ModelError, UsageError
from vectune.integrations.haystack import VectuneDocumentEmbedder, VectuneTextEmbedder

TEXTS = ["heat the beer", "sell the car", "open the glass door"]


def test_index_and_search(tiny_static: Path) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("embedder", VectuneDocumentEmbedder(str(tiny_static)))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    indexing.run({"embedder": {"documents": [Document(content=text) for text in TEXTS]}})

    searching = Pipeline()
    searching.add_component("embedder", VectuneTextEmbedder(str(tiny_static)))
    searching.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    searching.connect("embedder.embedding", "retriever.query_embedding")
    trusting = {"allowed_modules": ["vectune.integrations.haystack"]} if _asks_for_trust() else {}
    searching = Pipeline.loads(searching.dumps(), **trusting)  # as a pipeline's file
    searching.get_component("retriever").document_store = store
    for text in TEXTS:
        assert searching.run({"embedder": {"text": text}})["retriever"]["documents"][0].content == text


def _asks_for_trust() -> bool:
    return "allowed_modules" in inspect.signature(Pipeline.loads).parameters  # since Haystack 3


def test_vectors_are_the_embedders(tiny_bert: Path) -> None:
    embedder = open_embedder(str(tiny_bert), cache=False)
    query = VectuneTextEmbedder(str(tiny_bert)).run("heat the beer")
    assert np.allclose(query["embedding"], embedder.embed_queries(["heat the beer"])[0], atol=1e-6)
    documents = [Document(content="heat it", meta={"title": "beer", "page": 3, "none": None})]
    writer = VectuneDocumentEmbedder(str(tiny_bert), meta_fields_to_embed=["title", "none", "page", "other"])
    writer.warm_up()
    found = writer.run(documents)["documents"]
    assert np.allclose(found[0].embedding, embedder.embed_documents(["beer\n3\nheat it"])[0], atol=1e-6)
    assert documents[0].embedding is None and found[0].id == documents[0].id


def test_to_dict_keeps_options_but_no_key(tiny_bert: Path) -> None:
    options = EmbedOptions(dimensions=16, api_key="secret", query_fields={"input_type": "query"})
    saved = VectuneDocumentEmbedder(str(tiny_bert), options, meta_fields_to_embed=["title"]).to_dict()
    assert "secret" not in str(saved)
    again = VectuneDocumentEmbedder.from_dict(saved)
    assert again.options == EmbedOptions(dimensions=16, query_fields={"input_type": "query"})
    assert again.to_dict() == saved and again.meta_fields_to_embed == ["title"]
    assert len(VectuneTextEmbedder(str(tiny_bert), options).run("a")["embedding"]) == 16


def test_wrong_input(tiny_bert: Path) -> None:
    with pytest.raises(UsageError, match="one text, not a list"):
        VectuneTextEmbedder(str(tiny_bert)).run([Document(content="a")])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a list of Documents"):
        VectuneDocumentEmbedder(str(tiny_bert)).run("a")  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        VectuneTextEmbedder("./not-there").warm_up()
    assert VectuneDocumentEmbedder(str(tiny_bert)).run([]) == {"documents": [], "meta": {"model": str(tiny_bert)}}
