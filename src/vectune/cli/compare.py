"""``vectune compare``: the boards of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vectune.comparison import Compared


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or boards as JSON.", show_default=False)],
    base: Annotated[
        str | None, typer.Option(help="The row of the first run to compare with.  [default: its first embedder]")
    ] = None,
    measure: Annotated[str, typer.Option(help="What differences and p-values are of.")] = "nDCG@10",
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown, for a pull request.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page that opens without a network.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write it as JSON.")] = None,
) -> None:
    """Runs side by side, with intervals and p-values where they asked the same queries."""
    from vectune.comparison import compare_boards, read_boards
    from vectune.metrics import measure_name
    from vectune.runs import write_json, writing
    from vectune.verdict import VerdictOptions

    compared = compare_boards(read_boards(runs), base, VerdictOptions(measure=measure_name(measure), level=level))
    if json is not None:
        write_json(json, compared.to_json())
    if markdown is not None:
        with writing(markdown) as beside:
            beside.write_text(compared.to_markdown(), encoding="utf-8")
    if html is not None:
        from vectune.report.compared import write_comparison

        write_comparison(compared, html)
    show_compared(compared)


def show_compared(compared: Compared) -> None:
    """The table on standard output."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 200, highlight=False)
    table = Table(box=SIMPLE)
    for place, name in enumerate(compared.head):
        table.add_column(name, justify="left" if place < 2 else "right", overflow="fold")
    for cells in compared.cells():
        table.add_row(*map(Text, cells))
    console.print(table)
    reference = " of ".join(reversed(compared.reference))
    console.print(f"Δ and p (corrected, Holm) are against {reference}.", markup=False)
    for note in compared.notes:
        console.print(f"note: {note}", markup=False)
