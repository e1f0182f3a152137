"""``vectune report``: write a finished run's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A finished run directory.", show_default=False)],
) -> None:
    """A finished run → report.html, one file that opens without a network."""
    from vectune.pipeline import report as write_report

    print(f"report: {write_report(run)}")
