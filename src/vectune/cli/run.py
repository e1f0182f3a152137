"""``vectune run``: everything, from documents to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectune.cli.options import AllowContamination, MostChunks


def run(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders with documents.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run directory; run again to go on or to see it is done.")],
    config: Annotated[Path | None, typer.Option(help="A TOML file with any option of any stage.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to tune.  [default: all-MiniLM-L6-v2]")] = None,
    llm: Annotated[
        str | None, typer.Option(help="An LLM that writes the queries (OPENAI_BASE_URL, OPENAI_API_KEY).")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="full, lora, auto, adapter, query or blend; see vectune tune.")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="The time that training may take.  [default: 6]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.  [default: 0]")] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Tune on 25 and 50 % too: would more queries or documents help?")
    ] = False,
    general: Annotated[
        str | None,
        typer.Option(help="A dataset on which little may be lost.  [default: documents without queries, if enough]"),
    ] = None,
    most_chunks: MostChunks = None,
    allow_contamination: AllowContamination = False,
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable file ends the run.")] = False,
) -> None:
    """Documents → queries → tuned model → board → verdict → report.

    Stages that are finished and whose inputs are unchanged are skipped; a killed run goes on where it stopped.
    """
    from vectune.cli.evaluate import show_board
    from vectune.config import override, read_config
    from vectune.evaluation import Board
    from vectune.pipeline import run as run_all
    from vectune.progress import Progress
    from vectune.runs import RunFolder

    options = override(
        read_config(config),
        {
            "model": model,
            "llm": llm,
            "seed": seed,
            "allow_contamination": allow_contamination,
            "most_chunks": most_chunks,
            "tune.method": method,
            "tune.max_minutes": max_minutes,
            "curve": curve,
            "general": general,
            "documents.strict": strict,
        },
    )
    result = run_all(paths, out, options, progress=Progress(out / "events.jsonl"))
    if not result.ran:
        print(f"{out} is finished and nothing has changed.")
    show_board(Board.read(out / "board.json"))
    facts = [("evaluate", "verdict"), ("retriever", "chosen"), *([("curve", "advice")] if options.curve else [])]
    for stage, fact in facts:
        print(RunFolder(out).summary(stage).get(fact, ""))
    print(f"report: {result.report}")
