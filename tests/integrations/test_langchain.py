"""LangChain's own standard tests, over each kind of thing that vectune opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_tests", reason="needs langchain-tests: pip install 'vectune[integrations]'")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from vectune.adapters import Adapter, StoredAdapter
from vectune.embedders.factory import open_embedder
from vectune.errors import ModelError
from vectune.integrations.langchain import VectuneEmbeddings
from vectune.testing import OpenAIServer
from vectune.training.folders import write_adapter
from vectune.training.result import TuneResult


@pytest.fixture(scope="module")
def adapter_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact: a rotation of queries over the tiny model."""
    out = tmp_path_factory.mktemp("artifact") / "adapter"
    base = open_embedder(str(tiny_bert), cache=False)
    turn = np.roll(np.eye(base.dim, dtype=np.float32), 1, axis=0)
    stored = StoredAdapter(Adapter("linear", base.dim, base.dim, skip=turn), None, base.name, base.fingerprint)
    write_adapter(out, stored, base, TuneResult(out, "adapter", base.name, base.fingerprint, 0.0, 0.0))
    return out


@pytest.fixture(scope="module", params=["model", "artifact", "functions", "api"])
def source(request: pytest.FixtureRequest, tiny_bert: Path, adapter_folder: Path) -> Any:
    """What the standard tests open."""
    if request.param == "api":
        with OpenAIServer() as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_BASE_URL", server.base_url)
            patch.setenv("OPENAI_API_KEY", "any")
            yield "openai:tester"
        return
    embedder = open_embedder(str(tiny_bert), cache=False)
    functions = (embedder.embed_queries, embedder.embed_documents)
    yield {"model": tiny_bert, "artifact": adapter_folder, "functions": functions}[request.param]


class _Standard:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return VectuneEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.source}

    @pytest.fixture(autouse=True)
    def _take(self, source: Any) -> None:
        self.source = source


class TestUnit(_Standard, EmbeddingsUnitTests):
    """test_init for each."""


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:.*is marked with '@pytest.mark.asyncio'")
class TestIntegration(_Standard, EmbeddingsIntegrationTests):
    """Texts and queries, at once and awaited."""


def test_queries_and_documents_go_their_own_ways(adapter_folder: Path, tiny_bert: Path) -> None:
    base, adapted = VectuneEmbeddings(tiny_bert), VectuneEmbeddings(str(adapter_folder))
    assert np.allclose(adapted.embed_documents(["apple"]), base.embed_documents(["apple"]), atol=1e-5)
    assert np.allclose(adapted.embed_query("apple"), np.roll(base.embed_query("apple"), 1), atol=1e-5)
    assert not np.allclose(base.embed_query("apple"), base.embed_documents(["apple"])[0], atol=1e-3)  # prompts


def test_in_a_vector_store(tiny_bert: Path) -> None:
    store = InMemoryVectorStore.from_texts(["heat the beer", "sell the car"], VectuneEmbeddings(tiny_bert))
    assert store.similarity_search("sell the car", k=1)[0].page_content == "sell the car"
    assert VectuneEmbeddings(tiny_bert).embed_documents([]) == []


def test_no_such_model() -> None:
    with pytest.raises(ModelError):
        VectuneEmbeddings("./not-there")
