"""The report as Markdown, for a pull request: the verdict, its reasons, the board, and what more data would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vectune.board import figure, table_markdown
from vectune.report.material import Material, read_material
from vectune.report.scores import Scores, read_scores
from vectune.report.statement import statement
from vectune.runs import Json, writing


def write_markdown(run: Path, target: Path) -> Path:
    """Write a run's verdict, board and learning curve as Markdown.

    Args:
        run: a run folder, as for ``write_report``.
        target: the file.

    Raises:
        InputError: there is nothing to report, or a file is broken.
        StorageError: the disk is full.
    """
    material = read_material(Path(run))
    scores = read_scores(material)
    parts = [_verdict(statement(material, scores)), _board(material, scores), _curve(material.curve)]
    with writing(target) as beside:
        beside.write_bytes("\n".join(part for part in parts if part).encode("utf-8", "replace"))
    return target


def _verdict(said: Json) -> str:
    outcome = f"{said['outcome']}: " if said["outcome"] else ""
    lines = [f"## {plain(outcome + said['sentence'])}", "", *(f"- {plain(reason)}" for reason in said["reasons"])]
    return "\n".join(lines) + "\n"


def _board(material: Material, scores: Scores | None) -> str:
    if material.board is None or scores is None:
        return ""
    text = material.board.to_markdown()
    for row in sorted(material.board.rows, key=lambda row: -len(row.name)):  # the hybrid's name holds the model's
        text = text.replace(f"| {row.name} |", f"| {plain(scores.display_name(row))} |")
    return text


def _curve(curve: Any) -> str:
    if curve is None:
        return ""
    rows = [
        [f"{point['fraction']:.0%} of {'everything' if point['part'] == 'all' else point['part']}",
         f"{point['queries']:,}", f"{point['documents']:,}", figure(point["score"])]
        for point in curve["points"]
    ]  # fmt: skip
    head = ["train on", "queries", "documents", f"{curve['measure']} on dev"]
    lines = ["### Would more data help?", "", plain(curve["advice"]), "", *table_markdown(head, rows)]
    return "\n".join([*lines, "", f"Untuned: {figure(curve['base'])}."]) + "\n"


def plain(text: str) -> str:
    """Text in which nothing is a heading, a tag or a table's border."""
    return text.replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ").replace("`", "\\`")
