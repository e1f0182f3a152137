"""LlamaIndex's notebooks run to their end, over the real llama-index-core and a real HTTP server as LLM."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import llama_server
import notebooks
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document
from llama_server import ServerLLM, serving, write_corpus

from vectune.documents import read_documents
from vectune.formats import open_dataset
from vectune.integrations.llama_index import VectuneEmbedding
from vectune.runs import Json
from vectune.testing import OpenAIServer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "lyft_uber"


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


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{7,}|\d[\d,.]{3,}", text.lower()))


def published(folder: Path) -> Callable[[Json], str]:
    """A server's answer: what an LLM once asked about the chunk of LlamaIndex's own dataset that is most like the text.

    Its chunks come from the same pages and the same splitter, so most nodes are one of them word for word.
    """
    data = open_dataset(folder)
    asked: dict[str, list[str]] = {}
    for query, chunks in {**data.qrels["train"], **data.qrels["test"]}.items():
        for chunk in chunks:
            asked.setdefault(chunk, []).append(data.queries[query].text)
    known = {chunk: words(data.corpus[chunk].text) for chunk in asked}

    def answer(body: Json) -> str:
        text = words(body["messages"][-1]["content"])
        nearest = max(known, key=lambda chunk: len(text & known[chunk]) / len(text | known[chunk]))
        return "\n".join(f"{number}. {query}" for number, query in enumerate(asked[nearest], start=1))

    return answer


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/lyft_uber")
def test_on_the_filings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lyft to train, Uber to validate, a page a Document as LlamaIndex's PDF reader has it.

    Every eighth node of both: the notebooks' 700 take six times as long. A minute and a half of CPU time in all; on two
    cores that others keep busy, up to a quarter of an hour.
    """
    monkeypatch.setenv("VECTUNE_CACHE", str(tmp_path / "cache"))
    nodes = {}
    for document in read_documents([SHARED / "pdfs"]):
        ends = [*document.pages[1:], len(document.text)]
        pages = [document.text[start:end] for start, end in zip(document.pages, ends, strict=True)]
        docs = [Document(text=page, metadata={"file_name": document.source}) for page in pages if page.strip()]
        nodes[document.source] = notebooks.split(docs, SentenceSplitter())[::8]
    lyft, uber = (
        next(found for name, found in nodes.items() if company in name.lower()) for company in ("lyft", "uber")
    )
    assert min(len(lyft), len(uber)) > 35
    with OpenAIServer(chat=published(SHARED)) as server:
        datasets = notebooks.generate_datasets(lyft, uber, ServerLLM(base_url=server.base_url), tmp_path)
        assert server.count() == len(lyft) + len(uber)
    rates = notebooks.finetune_embeddings(datasets, "all-MiniLM-L6-v2", tmp_path)
    print(rates)  # noqa: T201 - shown with -s
    assert rates["base"] > 0.6, "questions of an LLM about 10-Ks: the untuned model finds most among so few nodes"
    assert rates["tuned"] >= rates["base"] - 0.02
    assert abs(rates["tuned"] - rates["tuned, opened by sentence-transformers"]) < 0.03
    rates = notebooks.finetune_adapter(datasets, VectuneEmbedding("all-MiniLM-L6-v2"), tmp_path)
    print(rates)  # noqa: T201
    assert min(rates.values()) >= rates["base"] - 0.05
