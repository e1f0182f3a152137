"""The parts of the report that are about the run itself: its data, what it took, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectune.board import Row, size_text
from vectune.dataset import SPLITS
from vectune.report.changes import cut, shown_chunk
from vectune.report.material import Material
from vectune.report.scores import Scores
from vectune.runs import Json


def data_part(material: Material) -> Json | None:
    """Counts, filters with examples, files that were skipped, and some queries with their chunks."""
    dataset = material.dataset
    if dataset is None:
        return None
    info = dataset.info
    return {
        "counts": {
            f"{name} queries" if name in SPLITS else name: value
            for name, value in {**dataset.counts(), **_numbers(info.get("counts"))}.items()
        },
        "filters": [_filter(name, value) for name, value in (info.get("filters") or {}).items()],
        "skipped": [_skipped(item) for item in info.get("skipped") or _summary(material, "skipped") or ()],
        "duplicates": info.get("duplicates"),
        "warnings": [str(text) for text in info.get("warnings") or ()],
        "examples": _examples(material),
    }


def _summary(material: Material, key: str) -> Any:
    """What the first stage that tells of it wrote in its manifest."""
    found = (manifest.get("summary", {}).get(key) for manifest in material.stages.values())
    return next((value for value in found if value), None)


def _numbers(value: Any) -> dict[str, int]:
    return {key: number for key, number in (value or {}).items() if isinstance(number, int)}


def _filter(name: str, value: Any) -> Json:
    """A filter's line: a count alone, or a count with examples of what it dropped."""
    if isinstance(value, Mapping):
        count = value.get("count", value.get("dropped"))
        examples = [cut(str(text), 160) for text in (value.get("examples") or ())][:3]
        return {"name": name.replace("_", " "), "count": count, "examples": examples}
    return {"name": name.replace("_", " "), "count": value, "examples": []}


def _skipped(item: Any) -> Json:
    if isinstance(item, Mapping):
        return {"source": str(item.get("source", "")), "reason": str(item.get("reason", ""))}
    source, _, reason = str(item).partition(": ")
    return {"source": source, "reason": reason}


def _examples(material: Material, most: int = 6) -> list[Json]:
    """Queries spread evenly over the test split, or over train where there is no test, each with its first chunk."""
    dataset = material.dataset
    split = next((name for name in ("test", "dev", "train") if dataset and dataset.qrels.get(name)), None)
    if dataset is None or split is None:
        return []
    ids = list(dataset.qrels[split])
    chosen = ids[:: max(1, len(ids) // most)][:most]
    return [
        {"text": cut(dataset.queries[query].text, 300), "style": dataset.queries[query].style,
         "chunk": shown_chunk(dataset.corpus.get(chunk), chunk, 260)}
        for query in chosen for chunk in list(dataset.qrels[split][query])[:1]
    ]  # fmt: skip


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
        "median": timing.get("median"),
        "p95": timing.get("p95"),
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
