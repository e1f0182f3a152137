"""``vectune search``."""

from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from boards import dataset
from calling import Run
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.retriever import save_retriever


def test_a_line_in_another_encoding_is_searched_as_well_as_may_be(
    vectune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(12)
    data.write(tmp_path / "run" / "dataset")
    row = evaluate(data.read(tmp_path / "run" / "dataset"), ["bm25"], options=EvaluateOptions(timed_queries=0)).rows[0]
    save_retriever(tmp_path / "run" / "retriever", data.read(tmp_path / "run" / "dataset"), row)
    lines = BytesIO("river café detail1\nriver detail1\n".encode("latin-1"))
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(lines, encoding="utf-8", errors="strict"))
    shown = vectune("search", tmp_path / "run", "--json")
    assert (shown.code, len(shown.out.splitlines())) == (0, 2), shown.err
