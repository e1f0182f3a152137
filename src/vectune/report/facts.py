"""The parts of the report about the run itself: what it took, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectune.board import Row, milliseconds, size_text
from vectune.report.changes import cut
from vectune.report.material import Material
from vectune.report.scores import Scores
from vectune.runs import Json


def costs_part(material: Material, scores: Scores | None) -> Json | None:
    """What each row takes beside its quality, and how long each stage of the run took."""
    rows = [_row_costs(row, scores) for row in scores.board.rows] if scores else []
    times = {
        name: float(manifest["seconds"])
        for name, manifest in material.stages.items()
        if isinstance(manifest.get("seconds"), int | float)
    }
    longest = max(times.values(), default=0.0) or 1.0
    stages = [{"name": name, "seconds": time, "width": round(100 * time / longest, 2)} for name, time in times.items()]
    if not rows and not stages:
        return None
    has_api = any(row["tokens"] or row["money"] for row in rows)
    return {"rows": rows, "stages": stages, "total": sum(times.values()), "has_api": has_api}


def _row_costs(row: Row, scores: Scores) -> Json:
    costs, timing = row.costs, row.costs.query_ms or {}
    return {
        "name": scores.display_name(row),
        "dim": costs.dim,
        "index": None if costs.index_bytes is None else size_text(costs.index_bytes),
        **{name: f"{milliseconds(timing[name])} ms" if name in timing else None for name in ("median", "p95")},
        "rate": costs.documents_per_second,
        "tokens": costs.api_tokens,
        "money": costs.money,
        "truncated": costs.truncated,
    }


def made_part(material: Material) -> list[Json]:
    """How the run was made, as tables of a name and a value: command, artifact, configuration, versions, machine."""
    run, artifact, inputs = material.run, material.artifact or {}, material.run.get("inputs")
    groups: list[tuple[str, Any]] = [
        ("Run", {key: run[key] for key in ("command", "vectune", "created", "seed") if key in run}),
        ("Artifact", artifact),
        ("Configuration", run.get("config")),
        ("Inputs", {"paths": inputs} if isinstance(inputs, list) else inputs),
        ("Versions", run.get("versions")),
        ("Machine", run.get("machine")),
        ("Stages", {name: manifest.get("key", "") for name, manifest in material.stages.items()}),
    ]
    return [{"title": title, "rows": rows} for title, value in groups if (rows := _flat(value))]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as dotted names."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _flat(inner, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list | tuple) and all(not isinstance(item, list | dict) for item in value):
        value = ", ".join(str(item) for item in value[:20]) + (f" … ({len(value):,})" if len(value) > 20 else "")
    text = "–" if value is None or value == "" else str(value)
    return [(prefix, cut(text, 400))] if prefix else []
