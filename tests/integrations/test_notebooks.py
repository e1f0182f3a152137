"""LlamaIndex's notebooks run to their end, over the real llama-index-core and a real HTTP server as LLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import llama_server
import notebooks
from llama_index.core.schema import Document
from llama_server import ServerLLM, serving, write_corpus

from vectune.documents import read_documents
from vectune.integrations.llama_index import VectuneEmbedding
from vectune.testing import OpenAIServer, queries_answer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lyft_uber" / "pdfs"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> notebooks.Datasets:
    at = tmp_path_factory.mktemp("notebook")
    train = notebooks.load_corpus(write_corpus(at / "train", llama_server.THINGS[:16]), chunk_size=16)
    val = notebooks.load_corpus(write_corpus(at / "val", llama_server.THINGS[16:]), chunk_size=16)
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VECTUNE_CACHE", str(at / "cache"))
        with pytest.warns(UserWarning, match="fewer than 2 questions"):  # one fact a chunk
            return notebooks.generate_datasets(train, val, ServerLLM(base_url=server.base_url), at)


def test_questions_are_what_the_server_said(datasets: notebooks.Datasets) -> None:
    train, val = datasets
    assert len(train.queries) == len(train.corpus) == 64
    assert set(val.queries.values()) == {
        f"how do I {use} a {thing}?" for thing in llama_server.THINGS[16:] for use in llama_server.USES
    }


def test_finetune_embeddings(datasets: notebooks.Datasets, tiny_bert: Path, tmp_path: Path) -> None:
    rates = notebooks.finetune_embeddings(datasets, str(tiny_bert), tmp_path)
    assert rates["tuned"] >= rates["base"]
    assert json.loads((tmp_path / "test_model" / "vectune.json").read_text())["chosen"]["kept"] != "base"


def test_finetune_adapter(datasets: notebooks.Datasets, tiny_bert: Path, tmp_path: Path) -> None:
    rates = notebooks.finetune_adapter(datasets, VectuneEmbedding(tiny_bert), tmp_path)
    assert rates["opened"] == rates["default"] >= rates["base"]
    assert min(rates[name] for name in ("two layers", "custom", "checkpoint")) >= rates["base"] - 0.1
    assert max(rates.values()) > rates["base"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/lyft_uber/pdfs")
def test_on_the_filings(tmp_path: Path) -> None:
    """Lyft to train, Uber to validate, a page a Document as LlamaIndex's PDF reader has it."""
    nodes = {}
    for document in read_documents([SHARED]):
        ends = [*document.pages[1:], len(document.text)]
        pages = [document.text[start:end] for start, end in zip(document.pages, ends, strict=True)]
        docs = [Document(text=page, metadata={"file_name": document.source}) for page in pages if page.strip()]
        nodes[document.source] = notebooks.split(docs)
    lyft, uber = (
        next(found for name, found in nodes.items() if company in name.lower()) for company in ("lyft", "uber")
    )
    with OpenAIServer(chat=queries_answer) as server:
        datasets = notebooks.generate_datasets(lyft[:120], uber[:120], ServerLLM(base_url=server.base_url), tmp_path)
    rates = notebooks.finetune_embeddings(datasets, "all-MiniLM-L6-v2", tmp_path, evaluation=100)
    print(rates)  # noqa: T201 - shown with -s
    assert rates["tuned"] >= rates["base"] - 0.02
    rates = notebooks.finetune_adapter(datasets, VectuneEmbedding("all-MiniLM-L6-v2"), tmp_path)
    print(rates)  # noqa: T201
    assert rates["default"] >= rates["base"] - 0.02
