"""Would more data help? The dev score of tunings on parts of the train queries, with the trend that was fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vectune.report.charts import Axis, axis, path
from vectune.report.material import Material
from vectune.runs import Json

SERIES = (("queries", "fewer queries of each document"), ("documents", "fewer documents"))
Points = list[tuple[float, float]]  # log2 of the number of queries, and the score


def learning_part(material: Material) -> Json | None:
    """Points, fits up to twice the data, and the sentence that answers; None where no curve was made."""
    curve: Any = material.curve
    if curve is None or not curve.get("points"):
        return None
    series = {kind: _points(curve["points"], kind) for kind, _ in SERIES}
    fits = {kind: _fit(points, curve.get(f"{kind}_gain")) for kind, points in series.items()}
    values = [point for points in (*series.values(), *fits.values()) for point in points]
    across = axis([x for x, _ in values], room=0.03)
    up = axis([*(y for _, y in values), curve["base"]], ticks=4, room=0.1)
    sizes = sorted({x for points in series.values() for x, _ in points} | {max(x for x, _ in values)})
    return {
        "measure": curve["measure"],
        "advice": curve["advice"],
        "base": curve["base"],
        "base_y": 100 - up.at(curve["base"]),
        "gains": {kind: curve.get(f"{kind}_gain") for kind, _ in SERIES},
        "series": [_drawn(kind, name, series[kind], fits[kind], across, up) for kind, name in SERIES],
        "x_ticks": [{"x": across.at(x), "text": f"{round(2**x):,}"} for x in _apart(sizes, across)],
        "y_ticks": [{"y": 100 - up.at(tick), "text": up.text(tick)} for tick in up.ticks],
        "rows": [{**point, "percent": f"{point['fraction']:.0%}"} for point in curve["points"]],
    }


def _points(points: Sequence[Json], kind: str) -> Points:
    """The tunings with less of this, and the one with everything."""
    return sorted((math.log2(p["queries"]), float(p["score"])) for p in points if p["part"] in (kind, "all"))


def _fit(points: Points, gain: float | None) -> Points:
    """The line of least squares, from the least data to twice the most."""
    if gain is None or len(points) < 2:
        return []
    x = sum(each for each, _ in points) / len(points)
    y = sum(each for _, each in points) / len(points)
    return [(at, y + gain * (at - x)) for at in (points[0][0], points[-1][0] + 1)]


def _drawn(kind: str, name: str, points: Points, fit: Points, across: Axis, up: Axis) -> Json:
    dots = [{"x": across.at(x), "y": 100 - up.at(y)} for x, y in points]
    known = [fit[0], _between(fit, points[-1][0])] if fit else []
    ahead = [_between(fit, points[-1][0]), fit[-1]] if fit else []
    return {
        "kind": kind,
        "name": name,
        "dots": dots,
        "fit": path(known, across, up) if fit else "",
        "ahead": path(ahead, across, up) if fit else "",
    }


def _between(fit: Points, x: float) -> tuple[float, float]:
    (x0, y0), (x1, y1) = fit
    return x, y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _apart(sizes: Sequence[float], across: Axis, least: float = 9.0) -> list[float]:
    """Sizes whose labels do not touch each other, the largest ones first."""
    found: list[float] = []
    for x in reversed(sizes):
        if all(abs(across.at(x) - across.at(other)) >= least for other in found):
            found.append(x)
    return found[::-1]
