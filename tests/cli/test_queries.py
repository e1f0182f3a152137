"""``vectune queries``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vectune.cli.app import app
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError, OutputError, UsageError
from vectune.records import Chunk, Query


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = {f"c{n}": Chunk(f"The text of chunk number {n}.", id=f"c{n}") for n in range(4)}
    queries = {f"q{n}": Query(f"query [red]{n}[/red]", "question", id=f"q{n}") for n in range(4)}
    qrels = {"train": {f"q{n}": {f"c{n}": 1} for n in range(3)}, "test": {"q3": {"c3": 1}}}
    RetrievalDataset(corpus, queries, qrels, {"name": "demo"}).write(tmp_path / "data")
    return tmp_path / "data"


def vectune(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["queries", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_shows_a_sample_as_it_is(folder: Path) -> None:
    shown = vectune(folder)
    assert "[red]0[/red]" in shown  # queries are no mark-up
    assert "4 queries: 4 question" in shown
    assert "3 queries" in vectune(folder, "--split", "train", "--show", 1)


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    assert "4 queries" in vectune(folder, "--export", table)
    table.write_text(table.read_text(encoding="utf-8-sig").replace("q0,train,keep", "q0,train,drop"), encoding="utf-8")
    assert "3 kept, 0 reworded, 1 dropped" in vectune(folder, "--import", table, "--out", tmp_path / "new")
    assert len(RetrievalDataset.read(tmp_path / "new").queries) == 3
    assert len(RetrievalDataset.read(folder).queries) == 4
    vectune(folder, "--import", table)
    assert len(RetrievalDataset.read(folder).queries) == 3


def test_another_dataset_is_not_replaced_and_the_same_one_is(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    vectune(folder, "--export", table)
    for _ in range(2):
        assert "4 kept" in vectune(folder, "--import", table, "--out", tmp_path / "new")
    other = RetrievalDataset({"x": Chunk("text", id="x")}, {"q": Query("q", id="q")}, {"train": {"q": {"x": 1}}})
    other.write(tmp_path / "other")
    with pytest.raises(OutputError, match="another dataset"):
        vectune(folder, "--import", table, "--out", tmp_path / "other")
    assert len(RetrievalDataset.read(tmp_path / "other").corpus) == 1


def test_a_csv_that_was_taken_back_says_so(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    vectune(folder, "--export", table)
    table.write_text(table.read_text(encoding="utf-8-sig").replace("q0,train,keep", "q0,train,drop"), encoding="utf-8")
    vectune(folder, "--import", table)
    with pytest.raises(DatasetError) as refused:
        vectune(folder, "--import", table)
    assert "export anew" in str(refused.value.hint)


def test_a_csv_in_the_dataset_folder_outlives_its_import(folder: Path) -> None:
    table = folder / "q.csv"
    vectune(folder, "--export", table)
    edited = table.read_text(encoding="utf-8-sig").replace("q0,train,keep", "q0,train,drop")
    table.write_text(edited, encoding="utf-8")
    assert "3 kept, 0 reworded, 1 dropped" in vectune(folder, "--import", table)
    assert table.read_text(encoding="utf-8") == edited


def test_foreign_folder_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    vectune(folder, "--export", tmp_path / "q.csv")
    (folder / "dataset.json").unlink()
    with pytest.raises(OutputError, match="vectune did not write it"):
        vectune(folder, "--import", tmp_path / "q.csv")


def test_wrong_usage(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Name a dataset folder"):
        vectune()
    with pytest.raises(UsageError, match="two steps"):
        vectune(folder, "--export", "a.csv", "--import", "b.csv")
    for unheeded, said in (
        (["--sample", 2], "--sample goes with --export"),
        (["--sample", 2, "--import", "b.csv"], "--sample goes with --export"),
        (["--out", tmp_path / "new"], "--out goes with --import"),
        (["--out", tmp_path / "new", "--export", tmp_path / "a.csv"], "--out goes with --import"),
        (["--split", "train", "--import", "b.csv"], "leave out --split"),
        (["--show", 2, "--export", tmp_path / "a.csv"], "--show looks at queries"),
    ):
        with pytest.raises(UsageError, match=said):
            vectune(folder, *unheeded)
    assert not (tmp_path / "a.csv").exists()
    with pytest.raises(DatasetError, match="cannot be read"):
        vectune(folder, "--import", tmp_path / "nothing.csv")
    with pytest.raises(DatasetError, match="split 'dev'"):
        vectune(folder, "--split", "dev")


def test_any_format_is_shown_and_turned_into_another(tmp_path: Path) -> None:
    table = tmp_path / "log.csv"
    table.write_text("query,text\nwho,the first text\n,a text alone\nwhat,the second text\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="line 3: the query is empty") as caught:
        vectune(table)
    assert "--skip-malformed" in caught.value.hint
    assert "2 queries" in vectune(table, "--skip-malformed")
    vectune(table, "--skip-malformed", "--export", tmp_path / "data", "--format", "beir")
    vectune(tmp_path / "data", "--export", tmp_path / "li", "--format", "llama-index")
    assert (tmp_path / "li" / "train_dataset.json").exists()
    assert "2 queries: 2 no style" in vectune(tmp_path / "li")
    with pytest.raises(OutputError, match="is there already"):
        vectune(tmp_path / "li", "--export", table, "--format", "csv")
    with pytest.raises(UsageError, match="'xml' is not a format"):
        vectune(tmp_path / "li", "--export", tmp_path / "x", "--format", "xml")
    with pytest.raises(UsageError, match="goes with --export"):
        vectune(tmp_path / "li", "--format", "csv")


def test_a_table_is_edited_into_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "log.csv"
    table.write_text("query,text\nwho,the first text\nwhat,the second text\n", encoding="utf-8")
    vectune(table, "--export", tmp_path / "q.csv")
    with pytest.raises(UsageError, match="no dataset folder"):
        vectune(table, "--import", tmp_path / "q.csv")
    assert "2 kept" in vectune(table, "--import", tmp_path / "q.csv", "--out", tmp_path / "data")
    assert table.read_text(encoding="utf-8").startswith("query,text")


def test_print_prompt() -> None:
    assert "{text}" in vectune("--print-prompt", "chunk")
    with pytest.raises(UsageError, match="no prompt 'haiku'"):
        vectune("--print-prompt", "haiku")
