"""Geometry of the report's charts: where each mark goes. The drawing itself is in ``charts.html``.

Positions are percent of the plot's width or height, so that charts fit a phone without small print; only the dots of
the scatter are in units of a 1000 × 1000 square. No figure of the report depends on this module.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` to ``high`` with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Percent of the axis's length."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def text(self, tick: float) -> str:
        """A tick with as many digits as tell it from its neighbours."""
        step = abs(self.ticks[1] - self.ticks[0]) if len(self.ticks) > 1 else abs(tick) or 1.0
        digits = next((n for n in range(9) if abs(round(step, n) - step) < step * 1e-6), 9)
        return f"{tick:,.{digits}f}".replace("-", "−")


def axis(
    values: Sequence[float], ticks: int = 5, anchor: float | None = None, room: float = 0.05, whole: bool = False
) -> Axis:
    """An axis that shows all values.

    Args:
        values: at least one; others than finite ones are passed over.
        ticks: about how many.
        anchor: a value that must be on the axis too, such as 0.
        room: share of the span left free at both ends.
        whole: ticks at whole numbers only, for what is counted.
    """
    finite = [value for value in values if math.isfinite(value)] + ([] if anchor is None else [anchor])
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
    low, high = low - room * span, high + room * span
    step = _round_step((high - low) / ticks)
    step = math.ceil(step) if whole else step
    first = math.ceil(low / step)
    return Axis(low, high, tuple(round(i * step, 10) for i in range(first, math.floor(high / step) + 1)))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.75)


@dataclass(frozen=True)
class Band:
    """One category of the scatter's axes: where it starts and how wide it is, of 1000."""

    label: str
    start: float
    width: float

    @property
    def middle(self) -> float:
        return self.start + self.width / 2


@dataclass(frozen=True)
class Scatter:
    """A scatter over two axes of the same categories; each query is one dot.

    Attributes:
        bands: the categories from worst to best; the same on both axes.
        dots: query id → (x, y), y upwards.
        radius: of a dot.
    """

    bands: tuple[Band, ...]
    dots: dict[str, tuple[float, float]]
    radius: float


def scatter(points: Mapping[str, tuple[str, str]], labels: Sequence[str]) -> Scatter:
    """Place queries so that none hides another.

    Ranks and measures of single queries take few values, so plain dots would lie on top of each other. Each pair of
    categories is a cell, and its dots are spread over it as a sunflower's seeds; categories with crowded cells are
    wider. The area that is covered is true to the number of queries.

    Args:
        points: query id → category before, category after.
        labels: all categories, worst first.
    """
    cells = Counter(points.values())
    labels = [label for label in labels if any(label in cell for cell in cells)]
    bands = _bands(cells, labels)
    by_label = {band.label: band for band in bands}
    space = 0.16 * math.pi
    step = min(
        (math.sqrt(space * by_label[x].width * by_label[y].width / n) for (x, y), n in cells.items()), default=20.0
    )
    step = min(step, 22.0)
    seen: Counter[tuple[str, str]] = Counter()
    dots = {}
    for query, cell in points.items():
        x, y = by_label[cell[0]], by_label[cell[1]]
        half_x, half_y = _half_axes(x.width, y.width, cells[cell] * step * step)
        reach = math.sqrt((seen[cell] + 0.5) / cells[cell]) if cells[cell] > 1 else 0.0
        angle = seen[cell] * GOLDEN_ANGLE
        seen[cell] += 1
        across = (x.middle + reach * half_x * math.cos(angle), 1000 - y.middle + reach * half_y * math.sin(angle))
        dots[query] = (round(across[0], 1), round(across[1], 1))
    return Scatter(bands, dots, round(min(0.8 * step, 13.0), 2))


def _bands(cells: Mapping[tuple[str, str], int], labels: Sequence[str]) -> tuple[Band, ...]:
    """Categories with widths by the square root of their most crowded cell, and never too narrow for a label."""
    crowd = {label: max(n**0.8 for cell, n in cells.items() if label in cell) for label in labels}
    least = {label: 18.0 * len(label) + 18 for label in labels}
    shrink = min(1.0, 850 / (sum(least.values()) or 1.0))
    rest = 1000 - shrink * sum(least.values())
    total = sum(crowd.values()) or 1.0
    start, bands = 0.0, []
    for label in labels:
        width = shrink * least[label] + rest * crowd[label] / total
        bands.append(Band(label, round(start, 2), round(width, 2)))
        start += width
    return tuple(bands)


def _half_axes(width: float, height: float, area: float) -> tuple[float, float]:
    """Half axes of an ellipse of this area (over π) within the cell: a circle where one fits."""
    radius = math.sqrt(area)
    limit_x, limit_y = 0.4 * width, 0.4 * height
    if radius <= min(limit_x, limit_y):
        return radius, radius
    if limit_x < limit_y:
        return limit_x, min(area / limit_x, limit_y)
    return min(area / limit_y, limit_x), limit_y


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most ``most`` points, each the mean of its neighbours, so that a long curve keeps its shape."""
    if len(points) <= most:
        return list(points)
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    parts = [points[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean of each value and its neighbours, a twentieth of the curve to either side; it does not lag behind."""
    reach = max(1, len(values) // 20)
    parts = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(part) / len(part) for part in parts]


def path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The ``d`` of an SVG path in a 100 × 100 square, y upwards."""
    return "M" + "L".join(f"{x.at(a):g},{100 - y.at(b):g}" for a, b in points)
