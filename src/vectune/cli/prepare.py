"""``vectune prepare``: documents to a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectune.cli.options import AllowContamination, MostChunks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vectune.config import Config
    from vectune.dataset import RetrievalDataset


def prepare(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders with documents.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The dataset folder to write.")],
    config: Annotated[Path | None, typer.Option(help="A TOML file with any option of any stage.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model whose tokens chunks are counted in.  [default: all-MiniLM-L6-v2]")
    ] = None,
    llm: Annotated[
        str | None, typer.Option(help="An LLM that writes the queries (OPENAI_BASE_URL, OPENAI_API_KEY).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --llm: show chunks, tokens, requests and money, and send nothing.")
    ] = False,
    budget: Annotated[float | None, typer.Option(help="US dollars that the LLM may cost.", min=0)] = None,
    prices: Annotated[Path | None, typer.Option(help="A TOML file with prices of LLMs over the shipped ones.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Your users' queries, one a line: the LLM writes in their manner.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Use the Batch API: half the price, slower.")] = False,
    most_chunks: MostChunks = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Queries that people typed, one a line (or a CSV with a column query): they become the queries, each "
            "labelled with the chunk that BM25 and the model agree on. No other queries are written."
        ),
    ] = None,
    ignore_labels: Annotated[
        bool, typer.Option("--ignore-labels", help="PATH is a dataset folder: keep its chunks, forget its queries.")
    ] = False,
    allow_contamination: AllowContamination = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.  [default: 0]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable file ends the work.")] = False,
) -> None:
    """Documents → chunks → queries → a dataset folder, split by document."""
    from vectune.config import override, read_config
    from vectune.pipeline import estimate
    from vectune.pipeline import prepare as prepare_dataset
    from vectune.progress import Progress

    given = {
        "model": model,
        "llm": llm,
        "seed": seed,
        "documents.strict": strict,
        "log": log and str(log),
        "most_chunks": most_chunks,
        "ignore_labels": ignore_labels,
        "allow_contamination": allow_contamination,
        "llm_queries.budget": budget,
        "llm_queries.prices": prices and str(prices),
        "llm_queries.examples": examples and str(examples),
        "llm_queries.batch": batch,
    }
    options = override(read_config(config), given)
    _check_llm(options, {"--budget": budget, "--prices": prices, "--examples": examples, "--batch": batch or None})
    if dry_run:
        print(estimate(paths, options, progress=Progress()).describe())
    else:
        _show(prepare_dataset(paths, out, options, progress=Progress()), out)


def _show(dataset: RetrievalDataset, out: Path) -> None:
    """What was written, dropped and kept, a line each."""
    from vectune.queries.filters import FilterReport

    if "filters" in dataset.info:
        print(FilterReport(**dataset.info["filters"]).describe())
    if log := dataset.info.get("log"):
        without = log["queries"] - log["labelled"]
        print(f"of {log['queries']:,} queries of the log, {without:,} got no label: teachers did not agree on a chunk.")
    print(f"{out}: " + ", ".join(f"{count:,} {name}" for name, count in dataset.counts().items()))
    apart = len(dataset.queries) - sum(map(len, dataset.qrels.values()))
    if apart > 0:
        print(f"{apart:,} queries are in no split: their chunks lie in two splits, or in the gap between two.")


def _check_llm(options: Config, given: Mapping[str, object]) -> None:
    """Refuse what only an LLM heeds where none is named: somebody who sets a budget expects one to write."""
    from vectune.errors import UsageError

    without = [name for name, value in given.items() if value is not None]
    if options.llm is None and without:
        raise UsageError(f"{without[0]} is for queries that an LLM writes, and none is named.", "Name one with --llm.")
