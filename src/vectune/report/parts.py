"""The parts of the report, each as plain values for the template; None where the run holds nothing for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from vectune.board import Row, size_text
from vectune.report.changes import Change, cut, rank_label, rank_labels, ranking_of, shown_chunk
from vectune.report.charts import axis, path, scatter, smoothed, thinned
from vectune.report.material import Material
from vectune.report.scores import Scores
from vectune.runs import Json

# First screen


def head(material: Material, scores: Scores | None) -> Json:
    """What the page is about: names, counts, and whether a machine wrote the queries."""
    board, dataset = material.board, material.dataset
    generated = bool(board.generated if board else dataset and dataset.generated)
    name = board.dataset if board else dataset.name if dataset else material.folder.name
    return {
        "dataset": name,
        "run": material.folder.resolve().name,
        "generated": generated,
        "kind_of_queries": "generated queries" if generated else "given queries",
        "split": board.split if board else "",
        "queries": board.queries if board else 0,
        "chunks": board.corpus if board else len(dataset.corpus) if dataset else 0,
        "measure": scores.headline if scores else "",
        "created": _date(material.run.get("created")),
        "version": str(material.run.get("vectune") or ""),
        "notes": list(board.notes) if board else [],
    }


def _date(created: Any) -> str:
    if isinstance(created, int | float):
        return f"{datetime.fromtimestamp(created):%d %B %Y, %H:%M}".lstrip("0")
    try:
        return f"{datetime.fromisoformat(str(created)):%d %B %Y, %H:%M}".lstrip("0")
    except ValueError:
        return str(created or "")


def display_name(row: Row, scores: Scores, material: Material) -> str:
    """A row as the page calls it: the tuned model without the run's path."""
    if scores.role(row) == "tuned" and row.name.startswith(str(material.folder)):
        return "tuned model"
    return row.name


def board_part(material: Material, scores: Scores | None) -> Json | None:
    """The board: rows sorted by the headline measure, the best of each column marked."""
    if scores is None:
        return None
    means = {row.name: row.measures for row in scores.board.rows}
    best = {name: max(round(values[name], 3) for values in means.values()) for name in scores.measures}
    base = means[scores.base.name][scores.headline] if scores.base else None
    rows = [
        {
            "name": display_name(row, scores, material), "full_name": row.name, "role": scores.role(row),
            "kind": row.kind, "unanswered": row.unanswered,
            "measures": [
                {"name": name, "value": means[row.name][name], "best": round(means[row.name][name], 3) == best[name]}
                for name in scores.measures
            ],
            "bar": round(100 * means[row.name][scores.headline], 2),
            "gain": None if base is None or row is scores.base else means[row.name][scores.headline] - base,
        }
        for row in sorted(scores.board.rows, key=lambda row: -means[row.name][scores.headline])
    ]  # fmt: skip
    return {"measures": scores.measures, "headline": scores.headline, "rows": rows, "has_gain": base is not None}


def gains_part(material: Material, scores: Scores | None) -> Json | None:
    """Every row's difference to the base with its interval, where the verdict has one."""
    if scores is None or scores.base is None or len(scores.board.rows) < 2:
        return None
    base = scores.base.measures[scores.headline]
    tested = {str(item.get("name")): item for item in (material.verdict or {}).get("comparisons", ())}
    rows = [
        {"name": display_name(row, scores, material), "role": scores.role(row),
         **_interval(row.measures[scores.headline] - base, tested.get(row.name, {}))}
        for row in scores.board.rows if row is not scores.base
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["gain"])
    across = axis([value for row in rows for value in (row["gain"], row["low"], row["high"])], anchor=0.0)
    for row in rows:
        row |= {"x": across.at(row["gain"]), "x_low": across.at(row["low"]), "x_high": across.at(row["high"])}
    ticks = [{"text": tick, "x": across.at(tick)} for tick in across.ticks]
    return {"rows": rows, "ticks": ticks, "zero": across.at(0.0), "has_intervals": any(row["tested"] for row in rows)}


def _interval(gain: float, tested: Json) -> Json:
    low, high = tested.get("interval") or (gain, gain)
    side = "same" if low <= 0 <= high and tested else "up" if gain > 0 else "down"
    p = tested.get("p_corrected", tested.get("p"))
    return {"gain": gain, "low": low, "high": high, "tested": bool(tested), "side": side, "p": p}


# Queries one by one


def scatter_part(scores: Scores | None, changes: Sequence[Change], shown: Sequence[str]) -> Json | None:
    """The scatter of ranks before and after, in the order of the page's payload."""
    if scores is None or not changes or not shown:
        return None
    by_id = {change.query: change for change in changes}
    depth = _depth(scores)
    points = {query: _cell(by_id[query], depth) for query in shown}
    drawn = scatter(points, rank_labels(depth))
    dots = [
        {"x": drawn.dots[query][0], "y": drawn.dots[query][1], "side": by_id[query].direction} for query in shown
    ]
    sides = [change.direction for change in changes]
    counts = {side: sides.count(side) for side in ("up", "same", "down")}
    return {"bands": drawn.bands, "radius": drawn.radius, "dots": dots, "shown": len(shown), "all": len(changes),
            "depth": depth, **counts}  # fmt: skip


def _depth(scores: Scores) -> int:
    return scores.board.depth or 10


def _cell(change: Change, depth: int) -> tuple[str, str]:
    return rank_label(change.rank_before, depth), rank_label(change.rank_after, depth)


def regressions_part(material: Material, scores: Scores | None, changes: Sequence[Change]) -> list[Json]:
    """Queries with their two rankings side by side."""
    if scores is None or scores.base is None or scores.tuned is None:
        return []
    corpus = material.dataset.corpus if material.dataset else {}
    rows = ("base", scores.base), ("tuned", scores.tuned)
    found = []
    for change in changes:
        right = scores.qrels.get(change.query, {})
        rankings = {
            role: [
                {**shown_chunk(corpus.get(chunk), chunk, 220), "right": chunk in right}
                for chunk, _ in ranking_of(row, change.query, 5)
            ]
            for role, row in rows
        }
        answer = [shown_chunk(corpus.get(chunk), chunk, 300) for chunk in list(right)[:2]]
        found.append({"change": change, "text": cut(change.text, 400), "rankings": rankings, "answer": answer})
    return found


# Training


def curves_part(material: Material) -> list[Json]:
    """The loss while training and the measure on dev, by step."""
    found = []
    for kind, key, title in (("train", "loss", "Loss while training"), ("dev", "value", "nDCG@10 on dev")):
        points = _points(material.events, kind, key)
        if len(points) >= 2:
            found.append(_curve(kind, title, points))
    return found


def _points(events: Sequence[Json], kind: str, key: str) -> list[tuple[float, float]]:
    """(step, value) of the last training in events.jsonl: an interrupted one starts again at a lower step."""
    points: list[tuple[float, float]] = []
    for event in events:
        step, value = event.get("step"), event.get(key)
        if event["kind"] != kind or not isinstance(step, int | float) or not isinstance(value, int | float):
            continue
        points = [point for point in points if point[0] < step]
        points.append((float(step), float(value)))
    return [point for point in points if abs(point[1]) < float("inf")]


def _curve(kind: str, title: str, points: list[tuple[float, float]]) -> Json:
    across = axis([x for x, _ in points], room=0.0)
    up = axis([y for _, y in points], ticks=4)
    shown = thinned(points)
    smooth = list(zip([x for x, _ in shown], smoothed([y for _, y in shown]), strict=True))
    best = max(points, key=lambda point: point[1])
    rows = thinned(points, 12)
    return {
        "kind": kind, "title": title, "raw": path(shown, across, up), "count": len(points),
        "smooth": path(smooth, across, up) if kind == "train" and len(points) > 20 else "",
        "dots": [{"x": across.at(x), "y": 100 - up.at(y)} for x, y in points] if kind == "dev" and len(points) < 40 else [],
        "best": {"x": across.at(best[0]), "y": 100 - up.at(best[1]), "step": best[0], "value": best[1]} if kind == "dev" else None,
        "x_ticks": [{"x": across.at(tick), "text": tick} for tick in across.ticks],
        "y_ticks": [{"y": 100 - up.at(tick), "text": tick} for tick in up.ticks],
        "rows": [{"step": round(x), "value": y} for x, y in rows],
        "first": points[0][1], "last": points[-1][1],
    }  # fmt: skip


# Data


def data_part(material: Material) -> Json | None:
    """Counts, filters with examples, files that were skipped, and some queries with their chunks."""
    dataset = material.dataset
    if dataset is None:
        return None
    info = dataset.info
    return {
        "counts": {**dataset.counts(), **_numbers(info.get("counts"))},
        "filters": [_filter(name, value) for name, value in (info.get("filters") or {}).items()],
        "skipped": [_skipped(item) for item in info.get("skipped") or ()],
        "duplicates": info.get("duplicates"),
        "warnings": [str(text) for text in info.get("warnings") or ()],
        "examples": _examples(material),
    }


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


# Costs and making


def costs_part(material: Material, scores: Scores | None) -> Json | None:
    """What each row takes beside its quality, and how long each stage of the run took."""
    rows = []
    for row in scores.board.rows if scores else ():
        costs, timing = row.costs, row.costs.query_ms or {}
        rows.append({
            "name": display_name(row, scores, material) if scores else row.name, "dim": costs.dim,
            "index": None if costs.index_bytes is None else size_text(costs.index_bytes),
            "median": timing.get("median"), "p95": timing.get("p95"), "rate": costs.documents_per_second,
            "tokens": costs.api_tokens, "money": costs.money, "truncated": costs.truncated,
        })  # fmt: skip
    stages = [
        {"name": name, "seconds": manifest.get("seconds")}
        for name, manifest in material.stages.items()
        if isinstance(manifest.get("seconds"), int | float)
    ]
    longest = max((stage["seconds"] for stage in stages), default=0) or 1
    for stage in stages:
        stage["width"] = round(100 * stage["seconds"] / longest, 2)
    if not rows and not stages:
        return None
    return {"rows": rows, "stages": stages, "total": sum(stage["seconds"] for stage in stages),
            "has_api": any(row["tokens"] or row["money"] for row in rows)}  # fmt: skip


def made_part(material: Material) -> list[Json]:
    """How the run was made, as tables of a name and a value: command, artifact, configuration, versions, machine."""
    run, artifact = material.run, material.artifact or {}
    groups: list[tuple[str, Any]] = [
        ("Run", {key: run[key] for key in ("command", "vectune", "created", "seed") if key in run}),
        ("Artifact", artifact),
        ("Configuration", run.get("config")),
        ("Inputs", run.get("inputs")),
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


def artifact_path(material: Material) -> Path | None:
    """The artifact folder of the run, where there is one."""
    return material.folder / "model" if (material.folder / "model").is_dir() else None
