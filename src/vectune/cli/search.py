"""``vectune search``: answers from the documents of a run."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vectune.retriever import Hit

_SHOWN = 300  # characters of a chunk


def search(
    run: Annotated[Path, typer.Argument(help="A finished run directory.", show_default=False)],
    query: Annotated[
        str | None, typer.Argument(help="What to look for; without it, each line of standard input.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many chunks.", min=1)] = 5,
    config: Annotated[Path | None, typer.Option(help="A TOML file; its [models] say how APIs are asked.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each query, with whole chunks.")] = False,
) -> None:
    """Ask the documents of a run, with what it serves: what dev prefers, or the blend of an unlabelled run."""
    from vectune.config import read_config
    from vectune.errors import UsageError
    from vectune.retriever import Retriever

    if query is not None and not query.strip():
        raise UsageError("the query is empty.", "Write what to look for, or leave it out to read standard input.")
    retriever = Retriever.open(run, read_config(config).models)
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a line in another encoding than the terminal's ends no search
    queries = [query] if query is not None else (line.strip() for line in sys.stdin)
    for text in queries:
        if text:
            hits = retriever.search(text, k)
            print(_as_json(text, hits) if json else _as_text(hits), flush=True)


def _as_json(query: str, hits: list[Hit]) -> str:
    from dataclasses import asdict
    from json import dumps

    found = [{"score": hit.score, **asdict(hit.chunk)} for hit in hits]
    return dumps({"query": query, "hits": found}, ensure_ascii=False)


def _as_text(hits: list[Hit]) -> str:
    if not hits:
        return "nothing found\n"
    lines = []
    for rank, hit in enumerate(hits, start=1):
        chunk = hit.chunk
        place = chunk.source or chunk.title or chunk.document_id
        page = f", page {chunk.page}" if chunk.page else ""
        section = f": {' > '.join(chunk.headings)}" if chunk.headings else ""
        text = " ".join(chunk.text.split())
        lines += [f"{rank}. {place}{page}{section}  ({hit.score:.3f})"]
        lines += [f"   {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}", ""]
    return "\n".join(lines)
