"""``vectune tune``: a dataset to a tuned model or an adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectune.cli.options import AllowContamination, TrustRemoteCode

if TYPE_CHECKING:
    from vectune.curve import Curve
    from vectune.training.result import TuneResult

KeepIndex = Annotated[
    bool, typer.Option("--keep-index", help="Documents keep their vectors: an adapter, the query encoder, words.")
]
Tail = Annotated[
    bool, typer.Option("--tail", help="Put a lexical tail behind the tuned vectors: one index serves a hybrid.")
]
BothSides = Annotated[
    bool, typer.Option("--both-sides", help="An adapter that maps stored vectors, too, where that finds more.")
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Tokens the model reads.  [default: its own setting; full, lora: twice it where much text lies beyond]"
    ),
]


def tune(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The artifact folder to write.")],
    model: Annotated[str | None, typer.Option(help="The model to tune.  [default: all-MiniLM-L6-v2]")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="full, lora, auto, adapter, query or blend.  [default: full; blend for extractive queries]"),
    ] = None,
    keep_index: KeepIndex = False,
    tail: Tail = False,
    both_sides: BothSides = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file with any option of any stage.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.  [default: 0]")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="The time that training may take.")] = None,
    max_length: MaxLength = None,
    teacher: Annotated[
        str | None, typer.Option(help="Learn from lexical, cross-encoder:NAME or an embedder's scores, too.")
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Log to tensorboard, wandb, mlflow or trackio; may be given again.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Then tune on 25, 50 and 100 % of the data: would more of it help?")
    ] = False,
    allow_contamination: AllowContamination = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what would be done and why, and stop.")] = False,
) -> None:
    """Dataset → tuned model. Without a gain on dev the base is the result (a blend is fitted without asking dev)."""
    from vectune import pipeline
    from vectune.config import override, read_config
    from vectune.progress import Progress

    written = read_config(config)
    options = override(
        written,
        {
            "model": model,
            "seed": seed,
            "allow_contamination": allow_contamination,
            "tune.method": method
            or written.tune.method
            or ("auto" if keep_index else "adapter" if both_sides else None),
            "tune.keep_index": keep_index,
            "tune.tail": tail,
            "tune.both_sides": both_sides,
            "tune.max_minutes": max_minutes,
            "tune.max_length": max_length,
            "tune.teacher": teacher,
            "tune.track": track or None,
            "tune.trust_remote_code": trust_remote_code,
        },
    )
    if explain:
        return show_reasons(pipeline.explain(dataset, options))
    if curve:
        pipeline.check_curve(dataset, options)
    show_result(pipeline.tune(dataset, out, options, progress=Progress()), out)
    if curve:
        show_curve(pipeline.curve(dataset, options, progress=Progress()), out / "curve.json")


def show_reasons(rows: list[tuple[str, str, str]]) -> None:
    """What was chosen and why, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for what, value, why in rows:
        print(f"{what:<{widths[0]}}  {value:<{widths[1]}}  {why}")


def show_result(result: TuneResult, out: Path) -> None:
    """What was gained on dev, in what time, and what else is to be known."""
    if os.environ.get("RANK", "0") != "0":  # torchrun: the first process speaks for all
        return
    print(
        f"{out}: {result.method} of {result.model}, dev nDCG@10 {result.dev_before:.3f} → {result.dev_after:.3f} "
        f"in {result.seconds:.1f} s"
    )
    for note in result.notes:
        print(f"  {note}")


def show_curve(curve: Curve, out: Path) -> None:
    """What less data gave and what more would, on standard output and as JSON."""
    from vectune.runs import write_json

    write_json(out, curve.to_json())
    for point in curve.points:
        print(f"  {point.fraction:>4.0%} of {point.part:<10} {point.queries:>6,} queries  dev {point.score:.3f}")
    print(curve.advice)
