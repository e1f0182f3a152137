"""A dataset's queries through a spreadsheet and back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.queries.review import COLUMNS, export_csv, import_csv
from vectune.records import Chunk, Query

ODD = ["=SUM(A1)", "'quoted", 'comma, semicolon; and "quotes"', "two\nlines", "naïve \u2028 水"]


@pytest.fixture
def dataset() -> RetrievalDataset:
    corpus = {f"c{n}": Chunk(f"The text of chunk {n}.", title=f"T{n}", id=f"c{n}") for n in range(6)}
    queries = {f"q{n}": Query(text, "question", "llm:m", id=f"q{n}") for n, text in enumerate(["plain", *ODD])}
    train = {f"q{n}": {f"c{n}": 1} for n in range(4)}
    return RetrievalDataset(corpus, queries, {"train": train, "test": {"q4": {"c4": 2, "c0": 1}, "q5": {"c5": 1}}})


def edit(path: Path, changes: dict[str, dict[str, str]], delimiter: str = ",") -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(changes.get(row["query_id"], {}))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def test_untouched_comes_back_the_same(dataset: RetrievalDataset, tmp_path: Path) -> None:
    assert export_csv(dataset, tmp_path / "q.csv") == 6
    back, changes = import_csv(dataset, tmp_path / "q.csv")
    assert (back.queries, back.qrels) == (dataset.queries, dataset.qrels)
    assert (changes.kept, changes.unseen) == (6, 0)


def test_no_cell_is_a_formula(dataset: RetrievalDataset, tmp_path: Path) -> None:
    export_csv(dataset, tmp_path / "q.csv")
    with (tmp_path / "q.csv").open(encoding="utf-8-sig", newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_ids_that_look_like_numbers_survive_a_spreadsheet(tmp_path: Path) -> None:
    """Excel reads 1234567890123456 as 1.23457E+15 and 12345678e9012345 as text or infinity, and saves that."""
    ids = ["1234567890123456", "12345678e9012345", "0012", "2021-03-04"]
    queries = {key: Query(f"{place}/4", id=key) for place, key in enumerate(ids)}
    dataset = RetrievalDataset({"c": Chunk("text", id="c")}, queries, {"train": {key: {"c": 1} for key in ids}})
    export_csv(dataset, tmp_path / "q.csv")
    with (tmp_path / "q.csv").open(encoding="utf-8-sig", newline="") as file:
        assert all(row["query_id"].startswith("'") and row["query"].startswith("'") for row in csv.DictReader(file))
    back, changes = import_csv(dataset, tmp_path / "q.csv")
    assert (back.queries, changes.kept) == (queries, 4)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_drop_and_reword(dataset: RetrievalDataset, tmp_path: Path, delimiter: str) -> None:
    export_csv(dataset, tmp_path / "q.csv")
    edit(tmp_path / "q.csv", {"q0": {"action": "Drop"}, "q4": {"query": "another wording"}}, delimiter)
    back, changes = import_csv(dataset, tmp_path / "q.csv")
    assert (changes.kept, changes.dropped, changes.reworded) == (4, 1, 1)
    assert "q0" not in back.queries and "q0" not in back.qrels["train"] and "q4" not in back.queries
    reworded = Query("another wording", "question", "llm:m")
    assert back.queries[reworded.id] == reworded
    assert back.qrels["test"][reworded.id] == {"c4": 2, "c0": 1}
    assert back.info["review"]["dropped"] == 1
    back.write(tmp_path / "out")
    assert RetrievalDataset.read(tmp_path / "out").qrels == back.qrels


def test_sample_leaves_the_rest_alone(dataset: RetrievalDataset, tmp_path: Path) -> None:
    assert export_csv(dataset, tmp_path / "q.csv", "train", sample=2) == 2
    edit(tmp_path / "q.csv", {f"q{n}": {"action": "drop"} for n in range(6)})
    back, changes = import_csv(dataset, tmp_path / "q.csv")
    assert (changes.dropped, changes.unseen, len(back.queries)) == (2, 4, 4)


def test_two_queries_reworded_alike_become_one(dataset: RetrievalDataset, tmp_path: Path) -> None:
    export_csv(dataset, tmp_path / "q.csv")
    edit(tmp_path / "q.csv", {"q0": {"query": "same"}, "q1": {"query": "same"}})
    back, _ = import_csv(dataset, tmp_path / "q.csv")
    assert back.qrels["train"][Query("same").id] == {"c0": 1, "c1": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: has no column 'query_id'"),
        ("query_id,split,query\nq0,train,x\n", "line 1: has no column 'action'"),
        ("query_id,split,action,query\nq0,train\n", "line 2: has 2 cells"),
        ("query_id,split,action,query\nq9,train,keep,x\n", "line 2: names the query 'q9'"),
        ("query_id,split,action,query\nq0,test,keep,x\n", "'q0', which is not in the split 'test'"),
        ("query_id,split,action,query\nq0,train,delete,x\n", "line 2: the action 'delete'"),
        ("query_id,split,action,query\nq0,train,keep, \n", "line 2: the query is empty"),
        ("query_id,split,action,query\nq0,train,keep,x\nq0,train,drop,x\n", "line 3: names the query 'q0' a second"),
    ],
)
def test_malformed_rows(dataset: RetrievalDataset, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(DatasetError, match=words):
        import_csv(dataset, tmp_path / "q.csv")


def test_a_quote_that_is_not_closed_is_named(dataset: RetrievalDataset, tmp_path: Path) -> None:
    rows = ["query_id,split,action,query", "q0,train,keep,x", 'q1,train,keep,"y', "q2,train,keep,z"]
    (tmp_path / "q.csv").write_text("\n".join(rows))
    with pytest.raises(DatasetError, match=r"q.csv, line 3: is no row of a CSV"):
        import_csv(dataset, tmp_path / "q.csv")


def test_dropping_everything_is_refused(dataset: RetrievalDataset, tmp_path: Path) -> None:
    export_csv(dataset, tmp_path / "q.csv")
    edit(tmp_path / "q.csv", {f"q{n}": {"action": "drop"} for n in range(6)})
    with pytest.raises(DatasetError, match="drops every query"):
        import_csv(dataset, tmp_path / "q.csv")


def test_other_encoding_is_named(dataset: RetrievalDataset, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes("query_id,split,action,query\nq0,train,keep,naïve\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="is not UTF-8"):
        import_csv(dataset, tmp_path / "q.csv")
