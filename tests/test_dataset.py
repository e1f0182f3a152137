from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_made import make_dataset
from tiny_dataset import small_dataset
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text(
        '{"_id": "c1", "title": "T", "text": "one"}\n{"_id": "c2", "text": "two"}\n{"_id": "c3", "text": "three"}\n'
    )
    (path / "queries.jsonl").write_text('{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "second"}\n')
    (path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tc1\t1\nq2\tc2\t2\nq2\tc3\t0\n")
    return path


def test_reads_the_beir_layout(folder: Path) -> None:
    dataset = RetrievalDataset.read(folder)
    assert dataset.corpus["c1"].content == "T one"
    assert dataset.corpus["c2"].document_id == "c2"
    assert dataset.qrels == {"train": {"q1": {"c1": 1}, "q2": {"c2": 2}}}
    assert [query.text for query in dataset.queries_of("train")] == ["first", "second"]
    assert dataset.name == "data"


def test_docs_tsv_tells_the_documents(folder: Path) -> None:
    (folder / "docs.tsv").write_text("corpus-id\tdoc-id\tsplit\nc1\tA\ttrain\nc2\tA\tnone\nc3\tB\ttest\n")
    assert RetrievalDataset.read(folder).chunks_of == {"A": ("c1", "c2"), "B": ("c3",)}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    dataset = make_dataset()
    dataset.write(tmp_path / "out")
    again = RetrievalDataset.read(tmp_path / "out")
    assert (again.corpus, again.queries, again.qrels) == (dataset.corpus, dataset.queries, dataset.qrels)
    assert again.info["counts"] == {"chunks": 60, "documents": 12, "queries": 60, "train": 60}


def test_what_a_person_put_into_the_folder_stays(tmp_path: Path) -> None:
    dataset, folder = make_dataset(), tmp_path / "out"
    dataset.qrels["dev"] = {key: dataset.qrels["train"].pop(key) for key in list(dataset.qrels["train"])[:5]}
    dataset.write(folder)
    theirs = ("edited.csv", "notes/train.tsv", "qrels/old.tsv")
    for name in theirs:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    del dataset.qrels["dev"]
    dataset.write(folder)
    assert [(folder / name).read_text() for name in theirs] == list(theirs)
    assert RetrievalDataset.read(folder).qrels.keys() == {"train"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_qrels_without_a_header_lose_no_judgment(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").write_text("q1\tc1\t1\nq2\tc2\t1\n")
    assert len(RetrievalDataset.read(folder).split("train")) == 2


def test_a_missing_split_says_what_there_is(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"no judgments for the split 'test' \(it has: train\)"):
        RetrievalDataset.read(folder).split("test")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DatasetError, match=r"is missing|no judgments found") as caught:
        RetrievalDataset.read(folder)
    assert name.split("/")[0] in str(caught.value)


BAD_LINES = [
    ("corpus.jsonl", '{"_id": "c9", "text"', "not valid JSON"),
    ("corpus.jsonl", "[1, 2]", "not a JSON object"),
    ("corpus.jsonl", '{"text": "no id"}', "no '_id'"),
    ("corpus.jsonl", '{"_id": "c9", "text": 7}', "'text' of 'c9' is not a string"),
    ("corpus.jsonl", '{"_id": "c1", "text": "again"}', "already on line 1"),
    ("queries.jsonl", '{"_id": "q1", "text": "again"}', "already on line 1"),
    ("qrels/train.tsv", "q1\tc1", "has 2 columns, expected 3"),
    ("qrels/train.tsv", "nobody\tc1\t1", "unknown query id 'nobody'"),
    ("qrels/train.tsv", "q1\tnothing\t1", "unknown chunk id 'nothing'"),
    ("qrels/train.tsv", "q1\tc1\thigh", "'high' is not a number"),
    ("qrels/train.tsv", "q1\tc1\tinf", "'inf' is not a number"),
    ("documents.jsonl", '{"_id": "c1", "start": "0"}', "'start' is not of the type int"),
]


@pytest.mark.parametrize(("name", "line", "message"), BAD_LINES)
def test_a_broken_line_is_named_with_its_number(folder: Path, name: str, line: str, message: str) -> None:
    path = folder / name
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(DatasetError, match=message) as caught:
        RetrievalDataset.read(folder)
    assert str(caught.value).startswith(f"{path}, line {len(lines) + 1}:")


def test_invalid_utf8_is_named(folder: Path) -> None:
    for name in ("corpus.jsonl", "qrels/train.tsv"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b"\xff\xfe\n")
        with pytest.raises(DatasetError, match="not valid UTF-8"):
            RetrievalDataset.read(folder)
        (folder / name).write_bytes(before)


def test_an_empty_corpus_and_a_folder_that_is_none(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text("")
    with pytest.raises(DatasetError, match="holds no chunk"):
        RetrievalDataset.read(folder)
    with pytest.raises(DatasetError, match="no such dataset folder"):
        RetrievalDataset.read(folder / "nowhere")


def test_dataset_json_must_be_json(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json: is not valid JSON"):
        RetrievalDataset.read(folder)
    (folder / "dataset.json").write_text(json.dumps({"name": "mine", "generated": True}))
    assert RetrievalDataset.read(folder).generated


def test_queries_that_name_their_writer_are_generated_whatever_else_is_said() -> None:
    given = small_dataset()
    assert not given.generated_in("test")
    written = {key: replace(query, writer="extractive") for key, query in given.queries.items()}
    assert replace(given, queries=written).generated_in("test")
