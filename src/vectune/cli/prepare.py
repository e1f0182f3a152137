"""``vectune prepare``: documents to a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.  [default: 0]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable file ends the work.")] = False,
) -> None:
    """Documents → chunks → queries → a dataset folder, split by document."""
    from dataclasses import replace

    from vectune.config import override, read_config
    from vectune.pipeline import prepare as prepare_dataset
    from vectune.progress import Progress

    options = override(read_config(config), model=model, llm=llm, seed=seed)
    if strict:
        options = replace(options, documents=replace(options.documents, strict=True))
    dataset = prepare_dataset(paths, out, options, progress=Progress())
    counts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts().items())
    print(f"{out}: {counts}")
