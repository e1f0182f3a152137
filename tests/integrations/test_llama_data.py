"""LlamaIndex's datasets and files: theirs open here, ours are what theirs would be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import torch
from llama_made import THEIRS, dataset_about
from llama_server import THINGS

from vectune.adapters import load_adapter
from vectune.errors import DatasetError
from vectune.formats import open_dataset
from vectune.integrations.llama_data import retrieval_dataset
from vectune.integrations.llama_index import (
    EmbeddingQAFinetuneDataset,
    LinearLayer,
    TwoLayerNN,
)


def test_json_is_theirs(tmp_path: Path) -> None:
    dataset = dataset_about(THINGS[:2])
    dataset.save_json(str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()).keys() == {"queries", "corpus", "relevant_docs", "mode"}
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json")) == dataset
    assert dataset.query_docid_pairs[0] == ("how do I open a apple", ["apple-open"])
    assert len(open_dataset(tmp_path / "a.json").split("train")) == 8
    (tmp_path / "old.json").write_text('{"queries": {"a": "b"}, "corpus": {}, "relevant_docs": {"a": []}}')
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "old.json")).mode == "text"
    dataset.queries["q-apple-open"] = "wie öffne ich einen Apfel?"
    dataset.save_json(str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text(encoding="ascii"), "theirs reads in the machine's own encoding"
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json")) == dataset
    with pytest.raises(FileNotFoundError) as caught:  # what code around LlamaIndex's catches
        EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "none.json"))
    assert isinstance(caught.value, DatasetError)


def test_what_llama_index_wrote_opens() -> None:
    """Files of llama-index-finetuning 0.4.2 and llama-index-embeddings-adapter 0.4.1, with what those adapters gave."""
    dataset = EmbeddingQAFinetuneDataset.from_json(str(THEIRS / "dataset.json"))
    assert dataset.relevant_docs == {"q1": ["n1", "n2"], "q2": ["n2"]} and dataset.queries["q2"] == "wie heißt das?"
    vectors = json.loads((THEIRS / "vectors.json").read_text())
    for name, made in (("linear", LinearLayer), ("two-layers", TwoLayerNN)):
        adapter = made.load(str(THEIRS / name))
        assert torch.allclose(adapter(torch.tensor(vectors["x"])), torch.tensor(vectors[name]), atol=1e-6)
        unit = torch.nn.functional.normalize(torch.tensor(vectors[name]), dim=1).numpy()
        given = np.array(vectors["x"], np.float32)
        assert np.allclose(load_adapter(THEIRS / name).adapter.apply(given), unit, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "two-layers"])
def test_what_we_write_is_what_llama_index_wrote(name: str, tmp_path: Path) -> None:
    """The same keys, types and shapes, so that their ``load`` finds what it looks for."""
    made = LinearLayer(6, 6, bias=True) if name == "linear" else TwoLayerNN(6, 8, 6, True, "tanh", True)
    made.save(str(tmp_path))
    for file in (tmp_path, THEIRS / name):
        assert sorted(each.name for each in file.iterdir()) == ["config.json", "pytorch_model.bin"]
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, THEIRS / name))
    assert ours == theirs
    shapes = [
        {key: value.shape for key, value in torch.load(folder / "pytorch_model.bin", weights_only=True).items()}
        for folder in (tmp_path, THEIRS / name)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("content", ["{", "[]", '{"queries": {}}', '{"queries": 1, "corpus": {}, "relevant_docs": {}}'])
def test_broken_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.json"):
        EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json"))


def test_all_positives_or_the_first() -> None:
    dataset = dataset_about(THINGS[:2])
    dataset.relevant_docs["q-apple-open"] = ["apple-open", "apple-close"]
    assert list(retrieval_dataset(dataset).split("train")["q-apple-open"]) == ["apple-open", "apple-close"]
    assert list(retrieval_dataset(dataset, all_docs=False).split("train")["q-apple-open"]) == ["apple-open"]
    dataset.relevant_docs["q-apple-open"] = ["nowhere"]
    with pytest.raises(DatasetError, match="nowhere"):
        retrieval_dataset(dataset)


def test_train_and_val_over_one_corpus_keep_their_questions() -> None:
    train, val = dataset_about(THINGS[:3]), dataset_about(THINGS[:3])
    val.queries = dict.fromkeys(val.queries, "another question")
    data = retrieval_dataset(train, val)
    assert len(data.corpus) == 12 and len(data.queries) == 24
    assert data.queries_of("train")[0].text == "how do I open a apple"
    assert {query.text for query in data.queries_of("dev")} == {"another question"}


def test_ids_that_both_datasets_use_for_other_things() -> None:
    """As LlamaIndex's tutorials make them: numbers from 0 in each."""
    train, val = (
        EmbeddingQAFinetuneDataset(queries={"0": f"{word}?"}, corpus={"0": word}, relevant_docs={"0": ["0"]})
        for word in ("milk", "car")
    )
    found = retrieval_dataset(train, val)
    for split, word in (("train", "milk"), ("dev", "car")):
        ((query, chunks),) = found.split(split).items()
        assert found.queries[query].text == f"{word}?" and [found.corpus[key].text for key in chunks] == [word]
