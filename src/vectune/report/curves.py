"""The curves of a training: the loss by step, and the measure on dev by step."""

from __future__ import annotations

from collections.abc import Sequence

from vectune.report.charts import Axis, axis, path, smoothed, thinned
from vectune.report.material import Material
from vectune.retriever import fusion_note
from vectune.runs import Json

Points = list[tuple[float, float]]


def curves_part(material: Material) -> list[Json]:
    """Loss and dev curve, each where it has at least two points."""
    found, events = [], _of_what_was_kept(material)
    for kind, key, title in (("train", "loss", "Loss while training"), ("dev", "value", "nDCG@10 on dev")):
        points = _points(events, kind, key)
        if len(points) >= 2:
            found.append(_loss(title, points) if kind == "train" else _dev(title, points))
    return found


def retriever_part(material: Material) -> Json | None:
    """What the run found best on dev for answering queries, with the measure by BM25's weight."""
    retriever = material.retriever
    if retriever is None or not retriever.get("curve"):
        return None
    points = sorted((float(weight), float(value)) for weight, value in retriever["curve"].items())
    curve = _dev("nDCG@10 on dev by BM25's weight", points, float(retriever["weight"]))
    return {
        "told": fusion_note(retriever),
        "chosen_on": "dev (cut from train)" if "cut from train" in str(retriever.get("chosen_on")) else "dev",
        "queries": retriever.get("queries"),
        "curve": {**curve, "unit": "weight of BM25, the rest is the model's"},
    }


def _of_what_was_kept(material: Material) -> Sequence[Json]:
    """The events of the training that the artifact is of; of the last one where none or several are."""
    marker = material.artifact or {}
    chosen = marker.get("chosen") or marker.get("options") or {}  # there of what has a tail behind the tuned model
    curve = chosen.get("curve") or []
    trainings = _trainings(material.events)
    fitting = [events for events in trainings if _fits(dict(_points(events, "dev", "value")), curve)]
    return (fitting or trainings)[-1]


def _trainings(events: Sequence[Json]) -> list[list[Json]]:
    """Each begins with a look at dev before its first step; ``auto`` has two, a training that was resumed is one."""
    found: list[list[Json]] = [[]]
    for event in events:
        if event["kind"] == "dev" and event.get("step") == 0:
            found.append([])
        elif event["kind"] == "train" and event.get("step") != 1 and len(found) > 1 and not _trained(found[-1]):
            found.pop()  # the same training goes on, and its first look was only repeated
        found[-1].append(event)
    return found


def _trained(events: Sequence[Json]) -> bool:
    return any(event["kind"] == "train" for event in events)


def _fits(dev: dict[float, float], curve: Sequence[Sequence[float]]) -> bool:
    """Whether these are the looks at dev of that curve; events have five decimals."""
    return bool(curve) and all(abs(dev.get(step, 2.0) - value) < 1e-4 for step, value in curve)


def _points(events: Sequence[Json], kind: str, key: str) -> Points:
    """(step, value) of a training: one that was interrupted goes on from a lower step."""
    points: Points = []
    for event in events:
        step, value = event.get("step"), event.get(key)
        if event["kind"] != kind or not isinstance(step, int | float) or not isinstance(value, int | float):
            continue
        while points and points[-1][0] >= step:
            points.pop()
        points.append((float(step), float(value)))
    return [point for point in points if abs(point[1]) < float("inf")]


def _loss(title: str, points: Points) -> Json:
    """Single steps faintly, with their running mean over them where there are many."""
    across, up = axis([x for x, _ in points], room=0.0, whole=True), axis([y for _, y in points], ticks=4)
    shown = thinned(points)
    means = list(zip([x for x, _ in shown], smoothed([y for _, y in shown]), strict=True))
    smooth = path(means, across, up) if len(points) > 20 else ""
    return _frame(title, points, across, up) | {"raw": path(shown, across, up), "smooth": smooth}


def _dev(title: str, points: Points, kept: float | None = None) -> Json:
    """Every check as a dot, and the one that is kept: the best, or of several as good ones the one named."""
    across, up = axis([x for x, _ in points], room=0.0, whole=True), axis([y for _, y in points], ticks=4, room=0.12)
    x, y = max(points, key=lambda point: (point[1], point[0] == kept))
    dots = [{"x": across.at(step), "y": 100 - up.at(value)} for step, value in points] if len(points) < 60 else []
    best = {"x": across.at(x), "y": 100 - up.at(y), "step": x, "value": y}
    return _frame(title, points, across, up) | {"raw": path(points, across, up), "dots": dots, "best": best}


def _frame(title: str, points: Points, across: Axis, up: Axis) -> Json:
    """Axes, and the figures that a reader without eyes for the drawing is given."""
    return {
        "title": title,
        "count": len(points),
        "first": points[0][1],
        "last": points[-1][1],
        "x_ticks": [{"x": across.at(tick), "text": across.text(tick)} for tick in across.ticks],
        "y_ticks": [{"y": 100 - up.at(tick), "text": up.text(tick)} for tick in up.ticks],
        "rows": [{"step": f"{x:g}", "value": y} for x, y in thinned(points, 12)],
        "unit": "step",
        "smooth": "",
        "dots": [],
        "best": None,
    }
