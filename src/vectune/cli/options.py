"""Options that several commands share."""

from __future__ import annotations

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
