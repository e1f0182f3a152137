"""``vectune evaluate`` and ``vectune compare`` as they are typed; models are BM25 and a tiny random one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from boards import dataset
from calling import Run
from report_runs import CURVE, make_run
from vectune.board import Board
from vectune.runs import write_json


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
    (tmp_path / "asked.toml").write_text("[verdict]\nlevel = 0.5\nworth = 0.2\n")
    code, out, _ = vectune("evaluate", folder, *models, "--config", tmp_path / "asked.toml", "--judge-by", "ap@7",
                           "--level", 0.8, "--verdict", tmp_path / "verdict.json")  # fmt: skip
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["measure"], verdict["level"]) == ("AP@7", 0.8) and "AP@7 +" in out and "80% interval" in out
    code, out, err = vectune("evaluate", folder, *models, "--gate", "nDCG@10:+0.02", "--base", "bm25",
                             "--candidate", tiny_bert, "--json", tmp_path / "kept.json")  # fmt: skip
    assert code == 1 and "does not hold" in err and "bm25" in out
    assert (tmp_path / "kept.json").exists()  # what was measured is kept, whatever the gate says


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "bm25", "--gate", "nonsense"), "is not a gate"),
        (("--model", "bm25", "--gate", "nDCG@10:+0.1"), "base and candidate are both 'bm25'"),
        (("--model", "bm25", "--curve", "curve.json"), "'bm25' is no model that could be"),
        (("--model", "bm25", "--model", "a@16", "--general", "nowhere", "--verdict", "v.json"), "nowhere"),
        (("--model", "bm25", "--base", "other"), "not among the models"),
        (("--model", "bm25", "--measure", "F7"), "is not a measure"),
        (("--model", "bm25", "--general", "nosuch"), "--general goes with --verdict"),
        (("--model", "bm25", "--judge-by", "RR@10"), "--judge-by goes with --verdict"),
        (("--model", "bm25", "--split", "nosuch"), "nosuch"),
        (("--model", "hybrid:bm25"), "names no embedder"),
        (("--model", "./nosuch"), "no such model folder"),
        (("--model", "bm52"), "Did you mean bm25?"),
        (("--model", "bm25", "--csv", "."), "is a folder"),
        (("--model", "bm25", "--csv", "/dev/null/board.csv"), "nothing can be written"),
    ],
)
def test_wrong_usage(vectune: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = vectune("evaluate", folder, "--json", tmp_path / "board.json", *arguments)
    assert code == 2 and told in err and "Traceback" not in err
    assert not (tmp_path / "board.json").exists()


def test_more_data_is_asked_for(vectune: Run, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "fast.toml").write_text('[tune]\nmethod = "adapter"\nepochs = 1\n')
    code, out, err = vectune("evaluate", folder, "--model", tiny_bert, "--config", tmp_path / "fast.toml",
                             "--curve", tmp_path / "curve.json")  # fmt: skip
    assert code == 0, err
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve["advice"] in out and [point["fraction"] for point in curve["points"]] == [0.25, 0.25, 0.5, 0.5, 1.0]


def test_a_report_as_markdown(vectune: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", queries=20)
    write_json(run / "model" / "curve.json", CURVE)  # where vectune tune --curve leaves it
    code, _, err = vectune("report", run, "--markdown", tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert code == 0, err
    assert text.startswith("## ") and "| tuned model |" in text and str(CURVE["advice"]) in text
    assert "| 25% of documents | 51 | 10 | .430 |" in text and "<i>" not in text


def test_runs_side_by_side(vectune: Run, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    for name, models in (("one", [tiny_bert, "bm25"]), ("two", [tiny_bert])):
        named = [word for model in models for word in ("--model", model)]
        assert vectune("evaluate", folder, *named, "--json", tmp_path / name / "board.json")[0] == 0
    code, out, _ = vectune("compare", tmp_path / "one", tmp_path / "two", "--markdown", tmp_path / "table.md")
    assert code == 0 and "two" in out and "Holm" in out
    assert "| one | bm25 |" in (tmp_path / "table.md").read_text()
    latin = (tmp_path / "two").rename(tmp_path / "zw\udcf6lf")  # a byte that is not UTF-8
    code, _, err = vectune("compare", tmp_path / "one", latin, "--markdown", tmp_path / "table.md")
    assert code == 0 and "| zw\\udcf6lf |" in (tmp_path / "table.md").read_text(), err
    latin.rename(tmp_path / "two")
    code, _, err = vectune("compare", tmp_path / "one", tmp_path / "one")
    assert code == 2 and "named twice" in err
    code, _, err = vectune("compare", tmp_path / "one", tmp_path / "two", "--measure", "ndcg@7")
    assert code == 2 and "not all boards have 'nDCG@7' (they share: nDCG@10" in err
    code, _, err = vectune("compare", tmp_path / "one", tmp_path)
    assert code == 2 and "no board can be read" in err
