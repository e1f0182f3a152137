"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

AllowContamination: TypeAlias = Annotated[
    bool, typer.Option("--allow-contamination", help="Splits that overlap give a warning, not an error.")
]
MostChunks: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Write queries for so many chunks, drawn at random; 0 for all.  [default: 20,000]", min=0),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
]


def check_outputs(*paths: Path | None) -> None:
    """That these files can be written, asked before the work that fills them.

    Raises:
        OutputError: one is a folder, or is in a folder where nothing may be written.
    """
    from vectune.errors import OutputError

    for path in filter(None, paths):
        if path.is_dir():
            raise OutputError(f"{path} is a folder, and a file is to be written.", "Name a file in it.")
        inside = next((folder for folder in path.absolute().parents if folder.exists()), path)
        if not inside.is_dir() or not os.access(inside, os.W_OK):
            raise OutputError(f"{path}: nothing can be written in {inside}.", "Name another path.")
