"""``vectune report``: write a finished run's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectune.cli.options import check_outputs


def report(
    run: Annotated[Path, typer.Argument(help="A finished run directory.", show_default=False)],
    markdown: Annotated[
        Path | None, typer.Option(help="Write verdict, board and learning curve as Markdown too, for a pull request.")
    ] = None,
) -> None:
    """A finished run → report.html, one file that opens without a network."""
    from vectune.pipeline import report as write_report

    check_outputs(markdown)
    if markdown is not None:
        from vectune.report.markdown import write_markdown

        write_markdown(run, markdown)
    print(f"report: {write_report(run)}")
