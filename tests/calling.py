"""What the tests of the command line share: calling it as a person does, and what a refusal looks like."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from vectune.cli.app import main


class Shown(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Shown]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``vectune`` in this process: its arguments go in, what it shows comes back."""

    def call(*arguments: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["vectune", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Shown(code, captured.out, captured.err)

    return call


def refused(shown: Shown, *words: str, code: int = 2) -> None:
    """One clear message with these words, the right exit code, no traceback."""
    assert shown.code == code, shown
    assert "Traceback" not in shown.err
    for word in words:
        assert word in " ".join(shown.err.split()), shown.err
