"""The verdict in a sentence, with what it rests on."""

from __future__ import annotations

from pathlib import Path

from vectune.report.material import Material
from vectune.report.render import gain_text, measure_text
from vectune.report.scores import Scores
from vectune.runs import Json

# outcome → how the page colours it; the word itself is always written out
TONES = {"ship": "yes", "do not ship": "no", "too few queries to tell": "unsure"}


def statement(material: Material, scores: Scores | None) -> Json:
    """Outcome, one sentence and the reasons; without a verdict, the bare figures."""
    verdict = material.verdict
    if verdict is None or not verdict.get("outcome"):
        return _without_verdict(scores)
    outcome, sentence = str(verdict["outcome"]), _minus(str(verdict.get("sentence", "")))
    word = outcome[:1].upper() + outcome[1:]
    reasons = [_minus(str(reason)) for reason in verdict.get("reasons") or ()]
    return {
        "outcome": word,
        "short": outcome,
        "tone": TONES.get(outcome, "unsure"),
        "sentence": _own_name(sentence.removeprefix(f"{word}: "), scores),
        "reasons": [_sentence(_own_name(reason, scores)) for reason in reasons],
        "general": verdict.get("general"),
    }


def _own_name(text: str, scores: Scores | None) -> str:
    """The sentence with the run's artifact called by what it is instead of its path."""
    if scores is None or scores.artifact is None or Path(scores.artifact).name == scores.artifact:
        return text  # without a path, "model" may be any word of it
    hybrid = text.replace(f"hybrid:{scores.artifact}", "the hybrid of BM25 and the tuned model")
    return hybrid.replace(scores.artifact, "the tuned model")


def _sentence(text: str) -> str:
    """With a capital, unless it starts with a symbol such as p."""
    return text[:1].upper() + text[1:] if text.startswith("the ") else text


def _minus(text: str) -> str:
    """A hyphen before a figure is a minus sign."""
    return text.replace(" -.", " −.").replace("(-.", "(−.")


def _without_verdict(scores: Scores | None) -> Json:
    """What can be said when nothing was tested."""
    plain: Json = {"outcome": "", "tone": "plain", "reasons": [], "general": None}
    if scores is None:
        return plain | {"short": "dataset", "sentence": "A dataset, not yet evaluated."}
    measure = scores.headline
    if scores.base is None or scores.tuned is None:
        best = max(scores.board.rows, key=lambda row: row.measures[measure])
        sentence = f"{best.name} is first with {measure} {measure_text(best.measures[measure])}."
        return plain | {"short": f"{measure} board", "sentence": _own_name(sentence, scores)}
    before, after = scores.base.measures[measure], scores.tuned.measures[measure]
    sentence = f"{measure} went from {measure_text(before)} to {measure_text(after)}."
    note = "This run holds no verdict: whether the difference is luck was not tested."
    return plain | {"short": f"{measure} {gain_text(after - before)}", "sentence": sentence, "reasons": [note]}
