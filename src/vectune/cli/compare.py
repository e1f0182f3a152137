"""``vectune compare``: the boards of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectune.cli.options import check_outputs

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

    check_outputs(json, markdown, html)
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
    """The table on standard output, and what is to be known of it."""
    from vectune.cli.table import print_lines, print_table

    print_table(compared.head, compared.cells(), names=2)
    reference = " of ".join(reversed(compared.reference))
    print_lines([f"Δ and p (corrected, Holm) are against {reference}.", *(f"note: {note}" for note in compared.notes)])
