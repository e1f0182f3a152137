"""Groups of queries, and how base and tuned did in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vectune.report.changes import Change
from vectune.runs import Json

LENGTHS = ((3, "1 to 3 words"), (6, "4 to 6 words"), (10, "7 to 10 words"), (20, "11 to 20 words"))
MOST_GROUPS = 12


def slices(changes: Sequence[Change]) -> list[Json]:
    """By style, by length and by how well the base did; a grouping that has one group says nothing and is left out."""
    groupings: tuple[tuple[str, Callable[[Change], str]], ...] = (
        ("style of the query", lambda change: change.style),
        ("length of the query", lambda change: _length(change.text)),
        ("rank with the base", lambda change: _rank(change.rank_before)),
    )
    found = []
    for by, key in groupings:
        groups: dict[str, list[Change]] = {}
        for change in changes:
            groups.setdefault(key(change), []).append(change)
        groups.pop("", None)
        if len(groups) > 1:
            found.append({"by": by, "rows": _rows(groups)})
    return found


def _rows(groups: dict[str, list[Change]]) -> list[Json]:
    order = [name for _, name in LENGTHS] + ["over 20 words", "first", "2 to 10", "after 10 or not at all"]
    names = sorted(groups, key=lambda name: (order.index(name) if name in order else -1, -len(groups[name]), name))
    return [_row(name, groups[name]) for name in names[:MOST_GROUPS]]


def _row(name: str, changes: Sequence[Change]) -> Json:
    before = sum(change.before for change in changes) / len(changes)
    after = sum(change.after for change in changes) / len(changes)
    sides = [change.direction for change in changes]
    side = "up" if after - before > 5e-4 else "down" if after - before < -5e-4 else "same"
    return {"name": name, "queries": len(changes), "before": before, "after": after, "gain": after - before,
            "side": side, "better": sides.count("up"), "worse": sides.count("down")}  # fmt: skip


def _length(text: str) -> str:
    words = len(text.split())
    return next((name for most, name in LENGTHS if words <= most), "over 20 words")


def _rank(rank: int) -> str:
    return "first" if rank == 1 else "2 to 10" if 2 <= rank <= 10 else "after 10 or not at all"
