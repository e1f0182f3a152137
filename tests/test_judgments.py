from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_dataset import small_dataset, with_chunk
from vectune.dataset import RetrievalDataset
from vectune.errors import ContaminationError, DatasetError
from vectune.ids import Ids, hashes_of, numbered
from vectune.judgments import StoredQrels
from vectune.records import Query
from vectune.splits import check_contamination, train_pool, with_dev
from vectune.training.data import TrainingData


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a dataset and opens it as one that is too large for the memory."""
    monkeypatch.setattr("vectune.dataset.QUERIES_IN_MEMORY", 0)

    def opened(dataset: RetrievalDataset) -> RetrievalDataset:
        dataset.write(tmp_path / "data")
        return RetrievalDataset.read(tmp_path / "data")

    return opened


def test_ids_are_found_and_unknown_ones_are_not() -> None:
    keys = [f"id {number}" for number in range(1000)]
    ids = Ids(hashes_of(keys))
    assert ids.rows(hashes_of(keys)).tolist() == list(range(1000))
    assert (ids.row("id 7"), ids.row("other"), Ids(hashes_of([])).row("a")) == (7, -1, -1)
    assert ids.unique and not Ids(hashes_of(["a", "b", "a"])).unique
    assert (ids.hashes() == hashes_of(keys)).all()
    equal = numbered(hashes_of(["a", "b", "a"]))
    assert equal[0] == equal[2] != equal[1]


def test_what_is_on_disk_reads_as_what_was_written(stored: Any) -> None:
    dataset = small_dataset()
    dataset.queries["q-apple-open"] = Query("how — 汉字", "keyword", "a person", id="q-apple-open")
    dataset.qrels["train"]["q-apple-open"]["apple-heat"] = 2
    found = stored(dataset)
    assert isinstance(found.qrels["train"], StoredQrels)
    assert dict(found.queries) == dataset.queries
    assert list(found.queries.values()) == list(dataset.queries.values())
    assert dict(found.qrels["train"]) == dataset.qrels["train"]
    assert found.qrels["test"] == dataset.qrels["test"]
    assert found.counts() == {**dataset.counts()}
    with pytest.raises(KeyError):
        found.qrels["train"]["q-nothing"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("qrels/train.tsv", "q-nobody\tapple-open\t1", "unknown query id 'q-nobody'"),
        ("qrels/train.tsv", "q-apple-open\tnothing\t1", "unknown chunk id 'nothing'"),
        ("qrels/train.tsv", "q-apple-open\tapple-open\tgood", "'good' is not a number"),
        ("qrels/train.tsv", "q-apple-open\tapple-open\t0.9", "'0.9' is not a whole number"),
        ("queries.jsonl", '{"_id": "q-apple-open", "text": "again"}', "already on line 1"),
    ],
)
def test_broken_lines_are_named(stored: Any, tmp_path: Path, file: str, line: str, message: str) -> None:
    stored(small_dataset())
    with (tmp_path / "data" / file).open("a", encoding="utf-8") as opened:
        opened.write(line + "\n")
    with pytest.raises(DatasetError, match=message):
        RetrievalDataset.read(tmp_path / "data")


def test_the_data_are_those_of_the_same_dataset_in_memory(stored: Any) -> None:
    dataset = with_dev(small_dataset())
    dataset.qrels["train"]["q-apple-open"]["apple-heat"] = 2
    ours, theirs = TrainingData.of(stored(dataset)), TrainingData.of(dataset)
    assert list(ours.chunks) == list(theirs.chunks)

    def learnt(data: TrainingData) -> dict[str, list[int]]:
        return {query: chunks.tolist() for query, chunks in zip(data.queries, data.positives, strict=True)}

    assert learnt(ours) == learnt(theirs)
    assert (ours.dev_queries, ours.dev_grades) == (theirs.dev_queries, theirs.dev_grades)
    assert (ours.pool == theirs.pool).all()
    query = {data is ours: list(data.queries).index("how do I open a apple") for data in (ours, theirs)}
    rows = np.arange(len(ours.chunks))
    assert (ours.kin(query[True], rows) == theirs.kin(query[False], rows)).all()


def test_the_same_words_asked_twice_are_one_query(stored: Any) -> None:
    dataset = with_dev(small_dataset())
    first, second = list(dataset.qrels["train"])[:2]
    dataset.queries[second] = replace(dataset.queries[first], id=second)
    dataset.qrels["train"][second] |= dataset.qrels["train"][first]
    data = TrainingData.of(stored(dataset))
    assert len(set(data.queries)) == len(data.queries) == len(dataset.qrels["train"]) - 1
    assert sorted(map(len, data.positives))[-1] == 2


def test_dev_is_cut_by_document(stored: Any) -> None:
    dataset = with_dev(stored(small_dataset()))
    assert dataset.qrels["dev"] and not dataset.documents_of("dev") & dataset.documents_of("train")
    again = with_dev(replace(dataset, qrels={**dataset.qrels, "dev": {}}))
    assert again.qrels["dev"]
    one = small_dataset()
    chunks = {key: replace(chunk, document_id="one") for key, chunk in one.corpus.items()}
    with pytest.raises(DatasetError, match="by document"):
        with_dev(stored(replace(one, corpus=chunks)))


def test_what_the_splits_share_is_found(stored: Any) -> None:
    dataset = small_dataset()
    assert check_contamination(stored(dataset)) == []
    dataset.queries["q-bread-open"] = replace(dataset.queries["q-apple-open"], id="q-bread-open")
    dataset = with_chunk(dataset, "bread-heat", text=dataset.corpus["apple-heat"].text)
    dataset = with_chunk(dataset, "bread-sell", document_id="apple")
    with pytest.raises(ContaminationError):
        check_contamination(stored(dataset))
    kinds = sorted(finding.kind for finding in check_contamination(stored(dataset), allow=True))
    assert kinds == ["document", "near-duplicate", "query"]


def test_what_repeats_a_held_chunk_is_no_negative(stored: Any) -> None:
    dataset = with_dev(small_dataset())
    test = next(iter(next(iter(dataset.qrels["test"].values()))))
    dataset = with_chunk(dataset, test, id="twin", document_id="elsewhere")
    data = TrainingData.of(stored(dataset))
    assert not data.pool[list(dataset.corpus).index("twin")]
    assert "twin" not in train_pool(dataset)


@pytest.mark.parametrize("read", [RetrievalDataset.read, RetrievalDataset._stored])
@pytest.mark.parametrize(("score", "message"), [("good", "'good' is not a number"), ("0.9", "is not a whole number")])
def test_a_first_line_with_known_ids_is_no_header(read: Any, tmp_path: Path, score: str, message: str) -> None:
    small_dataset().write(tmp_path / "data")
    train = tmp_path / "data" / "qrels" / "train.tsv"
    lines = train.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    train.write_text("".join(lines), encoding="utf-8")
    assert len(read(tmp_path / "data").qrels["train"]) == len(lines)
    first = lines[0].split("\t")
    train.write_text("".join(["\t".join([*first[:2], score]) + "\n", *lines[1:]]), encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "data")
