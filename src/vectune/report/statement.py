"""The verdict in a sentence, with what it rests on."""

from __future__ import annotations

from typing import Any

from vectune.report.material import Material
from vectune.report.render import gain_text, measure_text
from vectune.report.scores import Scores
from vectune.runs import Json

# outcome → how the page colours it; the word itself is always written out
TONES = {"ship": "yes", "do not ship": "no", "too few queries to tell": "unsure"}


def statement(material: Material, scores: Scores | None) -> Json:
    """Outcome, one sentence and up to three further lines; without a verdict, the bare figures."""
    verdict = material.verdict
    if verdict is None or not verdict.get("outcome"):
        return _without_verdict(material, scores)
    outcome = str(verdict["outcome"])
    sentence = str(verdict.get("sentence") or verdict.get("text") or "")
    reasons = verdict.get("reasons") or ()
    return {
        "outcome": outcome[:1].upper() + outcome[1:],
        "short": outcome,
        "tone": TONES.get(outcome, "unsure"),
        "sentence": sentence,
        "lines": [str(reason) for reason in reasons] or _lines(verdict),
    }


def _lines(verdict: Json) -> list[str]:
    found = []
    interval: Any = verdict.get("interval")
    if verdict.get("gain") is not None and interval:
        low, high = (gain_text(value) for value in interval)
        p = f", p = {verdict['p']:.2g}" if isinstance(verdict.get("p"), float) else ""
        found.append(f"{gain_text(verdict['gain'])} {verdict.get('measure', '')}, 95 % interval {low} to {high}{p}.")
    return found


def _without_verdict(material: Material, scores: Scores | None) -> Json:
    """What can be said when nothing was tested."""
    plain: Json = {"outcome": "", "tone": "plain", "lines": []}
    if scores is None:
        return plain | {"short": "dataset", "sentence": "A dataset, not yet evaluated."}
    measure = scores.headline
    if scores.base is None or scores.tuned is None:
        best = max(scores.board.rows, key=lambda row: row.measures[measure])
        sentence = f"{best.name} is first with {measure} {measure_text(best.measures[measure])}."
        return plain | {"short": f"{measure} board", "sentence": sentence}
    before, after = scores.base.measures[measure], scores.tuned.measures[measure]
    sentence = f"Tuning moved {measure} from {measure_text(before)} to {measure_text(after)}."
    note = "This run holds no verdict: whether the difference is luck was not tested."
    return plain | {"short": f"{measure} {gain_text(after - before)}", "sentence": sentence, "lines": [note]}
