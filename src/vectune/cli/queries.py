"""``vectune queries``: look at a dataset's queries, and edit them in a spreadsheet."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vectune.dataset import RetrievalDataset


def queries(
    dataset: Annotated[
        Path | None, typer.Argument(help="A dataset folder, or a file in any format that is known.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split: train, dev or test.")] = None,
    show: Annotated[int | None, typer.Option(min=0, help="How many queries to show.  [default: 10]")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write a CSV to edit: keep or drop in the column action, reword the query.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Export this many, drawn, instead of all.")] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="Export the whole dataset for other tools instead: beir, llama-index, csv, tsv, jsonl, parquet or hf."
        ),
    ] = None,
    edited: Annotated[Path | None, typer.Option("--import", help="Take an edited CSV back into the dataset.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where --import writes the dataset.  [default: the same folder]")
    ] = None,
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Leave malformed rows of a table out, and say how many.")
    ] = False,
    print_prompt: Annotated[
        str | None, typer.Option(help="Print a prompt for LLM-written queries and exit: chunk or two_chunks.")
    ] = None,
) -> None:
    """Show a dataset's queries, export them to a CSV that a person edits, and take it back; convert between formats."""
    from vectune.errors import UsageError
    from vectune.formats import open_dataset
    from vectune.queries.prompts import prompt_text

    if print_prompt is not None:
        print(prompt_text(print_prompt), end="")
        return
    if dataset is None:
        raise UsageError("Name a dataset folder.", "vectune queries my-dataset/")
    given = {"split": split, "sample": sample, "format": format, "export": export, "import": edited, "out": out,
             "show": show}  # fmt: skip
    _check_options({name for name, value in given.items() if value is not None})
    data = open_dataset(dataset, skip_malformed=skip_malformed)
    if skipped := data.info.get("skipped"):
        print(f"{dataset}: {len(skipped):,} left out; the first: {_skipped(skipped[0])}", file=sys.stderr)
    if edited is not None:
        if out is None and data.path is None:
            raise UsageError(f"{dataset} is no dataset folder that could be changed in its place.", "Add --out FOLDER.")
        _take_back(data, edited, out or dataset)
    elif format is not None and export is not None:
        _convert(data, export, format)
    elif export is not None:
        from vectune.queries.review import export_csv

        _check_free(export)
        count = export_csv(data, export, split, sample)
        again = shlex.join(["vectune", "queries", str(dataset), "--import", str(export)])
        print(f"{export}: {count:,} queries. Edit it, then: {again}")
    else:
        _show(data, split, 10 if show is None else show)


def _check_options(given: set[str]) -> None:
    """Refuse options that would not be heeded beside the others, or without another one."""
    from vectune.errors import UsageError

    for heeded, message in (
        (not {"export", "import"} <= given, "--export and --import are two steps; give one of them."),
        (
            "format" not in given or ("export" in given and not {"split", "sample"} & given),
            "--format goes with --export, and takes all queries of all splits.",
        ),
        ("sample" not in given or "export" in given, "--sample goes with --export; to look at a few queries: --show."),
        ("out" not in given or "import" in given, "--out goes with --import; to write a CSV: --export."),
        ("show" not in given or not {"export", "import"} & given, "--show looks at queries; leave out the other."),
        (not {"split", "import"} <= given, "--import takes queries of any split back; leave out --split."),
    ):
        if not heeded:
            raise UsageError(message)


def _skipped(entry: Any) -> str:
    """What ``dataset.json`` says of a row, or of a document, that is not in the dataset."""
    return f"{entry['source']}: {entry['reason']}" if isinstance(entry, dict) else str(entry)


def _check_free(target: Path) -> None:
    """Nothing that is there is replaced, since a person may have edited it."""
    from vectune.errors import OutputError

    if target.exists():
        raise OutputError(f"{target} is there already.", "Name a path that is not.")


def _convert(data: RetrievalDataset, target: Path, format: str) -> None:
    """The dataset in another format."""
    from vectune.formats import export_dataset

    _check_free(target)
    export_dataset(data, target, format)
    print(f"{target}: " + ", ".join(f"{count:,} {name}" for name, count in data.counts().items()))


def _take_back(data: RetrievalDataset, edited: Path, out: Path) -> None:
    from vectune.corpus import read_corpus
    from vectune.errors import OutputError
    from vectune.queries.review import import_csv
    from vectune.runs import check_output

    check_output(out, "dataset.json")
    another = (out / "dataset.json").exists() and not (data.path and out.samefile(data.path))
    if another and read_corpus(out).keys() != data.corpus.keys():
        raise OutputError(f"{out} is another dataset, with other chunks.", "Name another --out.")
    changed, changes = import_csv(data, edited)
    changed.write(out)
    print(
        f"{out}: {changes.kept:,} kept, {changes.reworded:,} reworded, {changes.dropped:,} dropped, "
        f"{changes.unseen:,} not in the CSV and unchanged"
    )


def _show(data: RetrievalDataset, split: str | None, count: int) -> None:
    """A table of queries drawn over the splits, with the beginning of their first chunk."""
    import random

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    data.split(split) if split else None
    found = [
        (name, query, judged)
        for name in data.qrels
        if split in (None, name)
        for query, judged in data.qrels[name].items()
    ]
    table = Table(show_lines=True, expand=True)
    for title, ratio in (("split", None), ("style", None), ("query", 4), ("chunk", 5)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for name, query_id, judged in random.Random(0).sample(found, min(count, len(found))):
        query, chunk = data.queries[query_id], data.corpus[next(iter(judged))]
        more = f"  (+{len(judged) - 1} more)" if len(judged) > 1 else ""
        cells = (name, query.style, query.text, " ".join(chunk.content.split())[:240] + more)
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    if count:
        console.print(table)
    styles: dict[str, int] = {}
    for _, query_id, _ in found:
        style = data.queries[query_id].style or "no style"
        styles[style] = styles.get(style, 0) + 1
    console.print(
        Text(f"{len(found):,} queries: " + ", ".join(f"{number:,} {style}" for style, number in styles.items()))
    )
