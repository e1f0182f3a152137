"""Several runs side by side as one HTML file, in the report's dress."""

from __future__ import annotations

from pathlib import Path

from vectune import __version__
from vectune.comparison import Compared, ComparedRow
from vectune.report.charts import axis
from vectune.report.render import render
from vectune.runs import Json, writing


def write_comparison(compared: Compared, target: Path) -> Path:
    """Write what ``vectune compare`` shows as a page that opens without a network.

    Args:
        compared: from ``comparison.compare_boards``.
        target: the HTML file.

    Raises:
        StorageError: the disk is full.
    """
    best = {name: max(round(row.measures[name], 3) for row in compared.rows) for name in compared.measures}
    values: Json = {
        "head": {"version": __version__, "created": ""},
        "measure": compared.measure,
        "measures": compared.measures,
        "runs": list(dict.fromkeys(row.run for row in compared.rows)),
        "reference": {"run": compared.reference[0], "row": display_name(*compared.reference)},
        "rows": [_row(row, compared, best) for row in compared.rows],
        "gains": _gains(compared),
        "notes": compared.notes,
    }
    page = render("compare.html", values)
    with writing(target) as beside:
        beside.write_bytes(page.encode("utf-8", "replace"))
    return target


def display_name(run: str, row: str) -> str:
    """A row without the path of its run, also within a hybrid's name; another run's model may be the base."""
    prefix, colon, name = row.rpartition(":")
    own = Path(name).name == "model" and Path(name).parent.name == Path(run).name
    return prefix + colon + "tuned model" if own else row


def _row(row: ComparedRow, compared: Compared, best: dict[str, float]) -> Json:
    cells = [
        {"name": name, "value": row.measures[name], "best": round(row.measures[name], 3) == best[name]}
        for name in compared.measures
    ]
    return {
        "run": row.run,
        "name": display_name(row.run, row.row),
        "full_name": row.row,
        "reference": (row.run, row.row) == compared.reference,
        "measures": cells,
    }


def _gains(compared: Compared) -> Json | None:
    """Differences to the reference with their intervals, where the same queries were asked; None where nowhere."""
    rows: list[Json] = []
    for row in compared.rows:
        if (found := row.comparison) is None:
            continue
        side = "same" if not found.significant else "up" if found.gain > 0 else "down"
        low, high = found.interval
        name = f"{row.run}: {display_name(row.run, row.row)}"
        rows.append({"name": name, "role": "", "gain": found.gain, "low": low, "high": high, "tested": True,
                     "side": side, "p": found.p_corrected})  # fmt: skip
    if not rows:
        return None
    across = axis([each[key] for each in rows for key in ("low", "high", "gain")], ticks=3, anchor=0.0)
    for each in rows:
        each |= {"x": across.at(each["gain"]), "x_low": across.at(each["low"]), "x_high": across.at(each["high"])}
    ticks = [{"text": tick, "x": across.at(tick)} for tick in across.ticks]
    return {"rows": rows, "ticks": ticks, "zero": across.at(0.0), "has_intervals": True, "level": compared.level}
