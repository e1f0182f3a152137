"""``vectune evaluate``: the board of any mix of models on one dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectune.cli.options import AllowContamination, check_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectune.board import Board
    from vectune.config import Config
    from vectune.dataset import RetrievalDataset

MODEL_HELP = (
    "bm25, a model's name or folder, an artifact folder, openai:NAME, hybrid:NAME; NAME@256, NAME@int8 and NAME@binary "
    "are rows of their own. Give it once for each row; the first is the base, the last the candidate."
)


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    model: Annotated[list[str], typer.Option(help=MODEL_HELP, show_default=False)],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    json: Annotated[Path | None, typer.Option(help="Write the board as JSON, with values for each query.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the board as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the board as Markdown, for a pull request.")] = None,
    measure: Annotated[
        list[str] | None, typer.Option(help="A further measure: nDCG@k, RR@k, AP, hit@k, R@k or P@k.")
    ] = None,
    k: Annotated[list[int] | None, typer.Option("-k", help="A further cutoff for every measure.", min=1)] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 unless it holds: nDCG@10:+0.02 (gain over the base) or nDCG@10:0.6."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="What gates and the verdict compare with.")] = None,
    candidate: Annotated[str | None, typer.Option(help="What gates and the verdict judge.")] = None,
    verdict: Annotated[Path | None, typer.Option(help="Write the verdict on the candidate as JSON.")] = None,
    general: Annotated[
        Path | None, typer.Option(help="A dataset on which the candidate must not lose much; counts in the verdict.")
    ] = None,
    allowed_loss: Annotated[
        float | None, typer.Option(help="What it may lose there.  [default: 0.02]", min=0.0)
    ] = None,
    worth: Annotated[
        float | None, typer.Option(help="The least gain that embedding all again pays for.  [default: 0.01]", min=0.0)
    ] = None,
    judge_by: Annotated[str | None, typer.Option(help="What the verdict compares.  [default: nDCG@10]")] = None,
    level: Annotated[float | None, typer.Option(help="Of the verdict's intervals.  [default: 0.95]")] = None,
    curve: Annotated[
        Path | None,
        typer.Option(help="Tune the base on 25, 50 and 100 % of the train queries; write what more would give."),
    ] = None,
    allow_contamination: AllowContamination = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file with any option of any stage.")] = None,
) -> None:
    """Score any mix of models on the same queries and chunks."""
    from vectune.config import override, read_config
    from vectune.formats import open_dataset
    from vectune.gates import check_gates, parse_gate
    from vectune.pipeline import evaluate as score
    from vectune.progress import Progress

    gates = [parse_gate(text) for text in gate or ()]
    compared = _compared(model, base, candidate, needed=verdict is not None or any(each.relative for each in gates))
    check_outputs(json, csv, markdown, verdict, curve)
    given = {"allowed_loss": allowed_loss, "worth": worth, "measure": judge_by, "level": level}
    judged = _judging(verdict, general, given) | {"allow_contamination": allow_contamination}
    options = override(read_config(config), judged)
    options = _measuring(options, [*(measure or ()), *(each.measure for each in gates)], k or ())
    _check_later(opened := open_dataset(dataset), options, general, None if curve is None else compared[0])
    board = score(opened, model, split, options, progress=Progress())
    _write(board, json, csv, markdown)
    show_board(board)
    if verdict is not None:
        _judge(board, opened, compared, options, general, verdict)
    if curve is not None:
        _curve(opened, options, compared[0], curve)
    for line in check_gates(board, *compared, gates):
        print(line)


def _judging(verdict: Path | None, general: Path | None, given: dict[str, float | str | None]) -> dict[str, object]:
    """The verdict's options by their names in a configuration.

    Raises:
        UsageError: there is one, and no verdict is asked for.
    """
    from vectune.errors import UsageError

    options = {"measure": "--judge-by", "allowed_loss": "--allowed-loss"}
    for name, value in {**given, "general": general}.items():
        if value is not None and verdict is None:
            raise UsageError(f"{options.get(name, f'--{name}')} goes with --verdict.", "Add --verdict FILE.json.")
    return {f"verdict.{name}": value for name, value in given.items()}


def _measuring(options: Config, measures: Sequence[str], k: Sequence[int]) -> Config:
    """The options with further measures and cutoffs, and the seed and what the verdict needs in every part."""
    from dataclasses import replace

    from vectune.metrics import measure_name

    further = tuple(measure_name(name) for name in measures)
    scored = replace(options.evaluate, measures=(*options.evaluate.measures, *further), k=(*options.evaluate.k, *k))
    return replace(options, evaluate=scored).seeded()


def _judge(
    board: Board,
    dataset: RetrievalDataset,
    compared: tuple[str, str],
    options: Config,
    general: Path | None,
    out: Path,
) -> None:
    """The verdict as JSON, and its sentence on standard output."""
    from vectune.pipeline import guard
    from vectune.progress import Progress
    from vectune.runs import write_json
    from vectune.verdict import verdict

    scored = None if general is None else guard(general, compared, board, options, Progress())
    judged = verdict(board, dataset, *compared, options.verdict, general=scored)
    write_json(out, judged.to_json())
    print(judged.sentence)


def _check_later(dataset: RetrievalDataset, options: Config, general: Path | None, model: str | None) -> None:
    """Refuse a general set that cannot be scored and a model that cannot be tuned: both come after all the scoring."""
    from dataclasses import replace

    from vectune.errors import UsageError
    from vectune.pipeline import check_curve, check_general
    from vectune.rankers import RowName, parse_name

    check_general(None if general is None else str(general))
    if model is None:
        return
    if parse_name(model) != RowName(model, model):
        raise UsageError(f"--curve tunes the base, and '{model}' is no model that could be.", "Name one with --base.")
    check_curve(dataset, replace(options, model=model))


def _curve(dataset: RetrievalDataset, options: Config, model: str, out: Path) -> None:
    """What the model gains from parts of the train queries."""
    from dataclasses import replace

    from vectune.cli.tune import show_curve
    from vectune.pipeline import curve
    from vectune.progress import Progress

    show_curve(curve(dataset, replace(options, model=model), progress=Progress()), out)


def _compared(models: list[str], base: str | None, candidate: str | None, needed: bool) -> tuple[str, str]:
    """Base and candidate, known to be rows before anything is computed."""
    from vectune.errors import UsageError

    found = (base or models[0], candidate or models[-1])
    for name in found:
        if name not in models:
            raise UsageError(f"'{name}' is not among the models ({', '.join(models)}).", "Name it with --model too.")
    if needed and found[0] == found[1]:
        raise UsageError(
            f"base and candidate are both '{found[0]}': there is nothing to compare.",
            "Give --model twice, or name two of the models with --base and --candidate.",
        )
    return found


def show_board(board: Board) -> None:
    """The board as a table on standard output, and what is to be known of it."""
    from vectune.cli.table import print_lines, print_table

    title = f"{board.title}: {board.queries:,} queries, {board.corpus:,} chunks"
    print_table(["model", *board.measures, *board.shown_costs], board.cells(bold="*{}"), title=title)
    print_lines([f"note: {remark}" for remark in board.remarks])


def _write(board: Board, json: Path | None, csv: Path | None, markdown: Path | None) -> None:
    from vectune.runs import writing

    if json is not None:
        board.write(json)
    for path, text in ((csv, board.to_csv), (markdown, board.to_markdown)):
        if path is not None:
            with writing(path) as beside:
                beside.write_text(text(), encoding="utf-8", errors="replace")
