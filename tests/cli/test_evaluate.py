"""``vectune evaluate`` and ``vectune compare`` as they are typed; models are BM25 and a tiny random one."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boards import dataset
from vectune.board import Board
from vectune.cli.app import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vectune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vectune", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dataset(36, generated=True).write(tmp_path / "data")
    return tmp_path / "data"


def test_board_in_every_form(vectune: Run, folder: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"board.{name}" for name in ("json", "csv", "markdown")}
    code, out, _ = vectune("evaluate", folder, "--model", "bm25", "--split", "dev", "-k", 3,
                           *(word for name, path in files.items() for word in (f"--{name}", path)))  # fmt: skip
    assert code == 0 and "bm25" in out and "generated queries" in out and "nDCG@3" in out
    board = Board.read(files["json"])
    assert (board.split, board.queries, board.corpus, board.rows[0].name) == ("dev", 48, 144, "bm25")
    row = next(csv.DictReader(files["csv"].read_text().splitlines()))
    assert float(row["nDCG@10"]) == board.rows[0].measures["nDCG@10"]
    assert files["markdown"].read_text().startswith("**small, dev split, generated queries**")


def test_gates_and_verdict(vectune: Run, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    models = ("--model", tiny_bert, "--model", "bm25")
    code, out, _ = vectune(
        "evaluate", folder, *models, "--gate", "nDCG@10:+0.02", "--verdict", tmp_path / "verdict.json"
    )
    assert code == 0 and "holds" in out and "Ship:" in out
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["outcome"] == "ship" and verdict["candidate"] == "bm25" and verdict["base"] == str(tiny_bert)
    code, out, err = vectune("evaluate", folder, *models, "--gate", "nDCG@10:+0.02", "--base", "bm25",
                             "--candidate", tiny_bert, "--json", tmp_path / "kept.json")  # fmt: skip
    assert code == 1 and "does not hold" in err and "bm25" in out
    assert (tmp_path / "kept.json").exists()  # what was measured is kept, whatever the gate says


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "bm25", "--gate", "nonsense"), "is not a gate"),
        (("--model", "bm25", "--gate", "nDCG@10:+0.1"), "only one row"),
        (("--model", "bm25", "--base", "other"), "not among the models"),
        (("--model", "bm25", "--measure", "F7"), "is not a measure"),
        (("--model", "bm25", "--split", "nosuch"), "nosuch"),
        (("--model", "hybrid:bm25"), "names no embedder"),
        (("--model", "./nosuch"), "no such model folder"),
    ],
)
def test_wrong_usage(vectune: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = vectune("evaluate", folder, "--json", tmp_path / "board.json", *arguments)
    assert code == 2 and told in err and "Traceback" not in err
    assert not (tmp_path / "board.json").exists()


def test_runs_side_by_side(vectune: Run, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    for name, models in (("one", [tiny_bert, "bm25"]), ("two", [tiny_bert])):
        named = [word for model in models for word in ("--model", model)]
        assert vectune("evaluate", folder, *named, "--json", tmp_path / name / "board.json")[0] == 0
    code, out, _ = vectune("compare", tmp_path / "one", tmp_path / "two", "--markdown", tmp_path / "table.md")
    assert code == 0 and "two" in out and "Holm" in out
    assert "| one | bm25 |" in (tmp_path / "table.md").read_text()
    code, _, err = vectune("compare", tmp_path / "one", tmp_path)
    assert code == 2 and "no board can be read" in err
