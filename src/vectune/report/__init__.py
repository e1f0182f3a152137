"""The report: a finished run → one HTML file that opens without a network. It only reads what the run wrote."""

from __future__ import annotations

from pathlib import Path

from vectune.report import facts, parts
from vectune.report.changes import payload, rank_table, read_changes, worst
from vectune.report.curves import curves_part, retriever_part
from vectune.report.data import data_part
from vectune.report.learning import learning_part
from vectune.report.material import read_material
from vectune.report.render import render
from vectune.report.scores import read_scores
from vectune.report.statement import statement
from vectune.runs import Json, writing

SECTIONS = (
    ("board", "Board"), ("queries", "Queries"), ("ranks", "Ranks"), ("slices", "Slices"),
    ("regressions", "Regressions"), ("retriever", "Retriever"), ("training", "Training"), ("learning", "More data"),
    ("data", "Data"), ("costs", "Costs"), ("made", "How it was made"),
)  # fmt: skip


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder; each part is shown where its file is there.

    Args:
        run: a folder with board.json or dataset/, and what else a run writes: run.json, verdict.json, stages/,
            events.jsonl, model/vectune.json, curve.json.

    Raises:
        InputError: there is nothing to report, or a file is broken.
        StorageError: the disk is full.
    """
    target = Path(run) / "report.html"
    page = render("report.html", _values(Path(run)))
    with writing(target) as beside:
        beside.write_bytes(page.encode("utf-8", "replace"))  # a lone surrogate of a document becomes a question mark
    return target


def _values(run: Path) -> Json:
    """All that the template shows."""
    material = read_material(run)
    scores = read_scores(material)
    corpus, queries = (material.dataset.corpus, material.dataset.queries) if material.dataset else ({}, {})
    changes = read_changes(scores, queries) if scores else []
    given = payload(scores, changes, corpus) if scores and changes else None
    depth = scores.board.depth if scores else 10
    values: Json = {
        "head": parts.head(material, scores),
        "verdict": statement(material, scores),
        "board": parts.board_part(material, scores),
        "gains": parts.gains_part(material, scores),
        "scatter": parts.scatter_part(scores, changes, given.shown if given else ()),
        "payload": given.text if given else "",
        "depth": depth,
        "ranks": rank_table(changes, depth) if changes else [],
        "slices": parts.slices_part(material),
        "regressions": parts.regressions_part(material, scores, worst(changes)),
        "curves": curves_part(material),
        "retriever": retriever_part(material),
        "learning": learning_part(material),
        "data": data_part(material),
        "costs": facts.costs_part(material, scores),
        "made": facts.made_part(material),
    }
    present = {"queries": values["scatter"], "training": values["curves"]}
    values["nav"] = [(key, name) for key, name in SECTIONS if present.get(key, values.get(key))]
    return values
