"""Tables on narrow terminals."""

from __future__ import annotations

import re

import pytest

from vectune.cli.table import print_table

HEAD = ["model", *(f"measure {number}" for number in range(8))]
ROWS = [["a model with quite a long name", *(f"*.{number}11" for number in range(8))], ["bm25", *[".5"] * 8]]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_cut_in_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    print_table(HEAD, ROWS, title="all of it")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    assert all(word in out for word in (*HEAD, ".111", ".711"))
    assert out.count("bm25") == {40: 8, 80: 3, 120: 2}[width], "every piece names its rows"


def test_brackets_of_a_title_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEAD, ROWS, title="[draft] of [/b]")
    assert "[draft] of [/b]" in capsys.readouterr().out


def test_one_piece_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEAD, ROWS)
    assert capsys.readouterr().out.count("bm25") == 1
