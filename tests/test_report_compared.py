"""Runs side by side as a page: all rows, differences to the reference, names as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_runs import make_run
from test_report import Page
from vectune.comparison import compare_boards, read_boards
from vectune.report.compared import display_name, write_comparison
from vectune.verdict import VerdictOptions


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("compare")
    runs = [make_run(folder / "one", queries=40), make_run(folder / "<i>two", queries=40, judged=False)]
    compared = compare_boards(read_boards(runs), "all-MiniLM-L6-v2", VerdictOptions(draws=200))
    return Page(write_comparison(compared, folder / "compare.html").read_text(encoding="utf-8"))


def test_every_row_of_every_run_is_there(page: Page) -> None:
    rows = [found for found in page.all("th") if found.get("scope") == "row"]
    assert len(rows) == (4 + 2) + (3 + 2)  # the boards, then all but the reference
    text = "".join(page.text)
    assert text.count("tuned model") == 4 and "to all-MiniLM-L6-v2 of one" in text and "generated queries" in text


def test_names_are_text_and_nothing_is_loaded(page: Page) -> None:
    assert "<i>two" in "".join(page.text) and not page.all("i") and len(page.scripts) == 1
    named = [value for _, found in page.elements for key, value in found.items() if key in ("src", "href")]
    assert named and all(value and value.startswith(("#", "data:image/svg+xml,")) for value in named)
    assert len(page.all("h1")) == 1 and len(page.all("table")) == len(page.all("caption")) == 2


def test_other_queries_are_not_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", queries=20, judged=False), make_run(tmp_path / "b", queries=30, judged=False)]
    compared = compare_boards(read_boards(runs), options=VerdictOptions(draws=200))
    text = "".join(Page(write_comparison(compared, tmp_path / "c.html").read_text(encoding="utf-8")).text)
    assert "b asks other queries than a" in text and "a: tuned model" in text and "b: tuned model" not in text


def test_rows_are_called_without_the_path_of_their_run() -> None:
    names = ["bm25", "runs/a/model", "hybrid:runs/a/model", "hybrid:all-MiniLM-L6-v2", "openai:text-embedding-3-small"]
    assert [display_name("a", name) for name in names] == [
        "bm25", "tuned model", "hybrid:tuned model", "hybrid:all-MiniLM-L6-v2", "openai:text-embedding-3-small"
    ]  # fmt: skip
    assert display_name("b", "runs/a/model") == "runs/a/model", "its base, which another run has tuned"
