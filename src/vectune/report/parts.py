"""The parts of the report about models and queries, as plain values for the template; None where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from vectune.report.changes import Change, cut, rank_label, rank_labels, ranking_of, shown_chunk
from vectune.report.charts import axis, scatter
from vectune.report.material import Material
from vectune.report.scores import Scores
from vectune.runs import Json

MOST_GROUPS = 8  # of one grouping, the largest losses first

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
        "candidate": scores.candidate if scores else "tuned",
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


def board_part(material: Material, scores: Scores | None) -> Json | None:
    """The board: rows sorted by the headline measure, the best of each column marked."""
    if scores is None:
        return None
    means = {row.name: row.measures for row in scores.board.rows}
    best = {name: max(round(values[name], 3) for values in means.values()) for name in scores.measures}
    base = means[scores.base.name][scores.headline] if scores.base else None
    rows = [
        {
            "name": scores.display_name(row), "full_name": row.name, "role": scores.role(row),
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
        {"name": scores.display_name(row), "role": scores.role(row),
         **_interval(row.measures[scores.headline] - base, tested.get(row.name, {}))}
        for row in scores.board.rows if row is not scores.base
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["gain"])
    across = axis([value for row in rows for value in (row["gain"], row["low"], row["high"])], ticks=3, anchor=0.0)
    for row in rows:
        row |= {"x": across.at(row["gain"]), "x_low": across.at(row["low"]), "x_high": across.at(row["high"])}
    ticks = [{"text": tick, "x": across.at(tick)} for tick in across.ticks]
    return {"rows": rows, "ticks": ticks, "zero": across.at(0.0), "has_intervals": any(row["tested"] for row in rows),
            "level": (material.verdict or {}).get("level", 0.95)}  # fmt: skip


def _interval(gain: float, tested: Json) -> Json:
    low, high = tested.get("interval") or (gain, gain)
    side = "same" if tested and not tested.get("significant") else "up" if gain > 0 else "down"
    return {
        "gain": gain,
        "low": low,
        "high": high,
        "tested": bool(tested),
        "side": side,
        "p": tested.get("p_corrected"),
    }


# Queries one by one


def scatter_part(scores: Scores | None, changes: Sequence[Change], shown: Sequence[str]) -> Json | None:
    """The scatter of ranks before and after, in the order of the page's payload."""
    if scores is None or not changes or not shown:
        return None
    by_id = {change.query: change for change in changes}
    depth = _depth(scores)
    points = {query: _cell(by_id[query], depth) for query in shown}
    drawn = scatter(points, rank_labels(depth))
    dots = [{"x": drawn.dots[query][0], "y": drawn.dots[query][1], "side": by_id[query].direction} for query in shown]
    sides = [change.direction for change in changes]
    counts = {side: sides.count(side) for side in ("up", "same", "down")}
    return {"bands": drawn.bands, "radius": drawn.radius, "dots": dots, "shown": len(shown), "all": len(changes),
            "depth": depth, **counts}  # fmt: skip


def _depth(scores: Scores) -> int:
    return scores.board.depth or 10


def _cell(change: Change, depth: int) -> tuple[str, str]:
    return rank_label(change.rank_before, depth), rank_label(change.rank_after, depth)


def slices_part(material: Material) -> list[Json]:
    """The verdict's groups of queries: by document, style, length and words shared with the chunk."""
    groups = ((material.verdict or {}).get("regressions") or {}).get("groups") or ()
    found: dict[str, list[Json]] = {}
    for group in groups:
        gain = group["candidate"] - group["base"]
        side = "same" if group["p"] > 0.05 else "up" if gain > 0 else "down"
        found.setdefault(str(group["by"]), []).append({**group, "gain": gain, "side": side})
    found = {by: rows[:MOST_GROUPS] for by, rows in sorted(found.items(), key=lambda item: item[0] == "document")}
    return [{"by": by, "rows": rows} for by, rows in found.items() if len(rows) > 1]


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
        seen = {chunk for _, row in rows for chunk, _ in ranking_of(row, change.query, 5)}
        answer = [shown_chunk(corpus.get(chunk), chunk, 300) for chunk in right if chunk not in seen][:2]
        found.append({"change": change, "text": cut(change.text, 400), "rankings": rankings, "answer": answer})
    return found
