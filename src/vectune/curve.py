"""Would more data help? Tune on a part of the training queries and see how dev follows.

Two ways to have less: fewer queries for each document, or fewer documents with all their queries. Beside each other
they tell whether writing more queries for the documents at hand or adding documents would pay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vectune.adapters import read_json
from vectune.board import figure
from vectune.dataset import Qrels, RetrievalDataset
from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.options import DEFAULTS
from vectune.evaluation import EvaluateOptions, Model, evaluate
from vectune.progress import SILENT, Progress
from vectune.runs import Json
from vectune.splits import with_dev

if TYPE_CHECKING:
    from vectune.board import Board
    from vectune.embedders.settings import Settings

Part = Literal["all", "queries", "documents"]
Tune = Callable[[RetrievalDataset, str], Model]
FRACTIONS = (0.25, 0.5, 1.0)
FITTED_ON_DEV = ("adapter", "query", "words")  # kinds of artifacts
WHOLE = "all-100"  # what the tuning on everything is called
PAYS = 0.005  # a gain for twice the data below this is saturation: less than evaluation can see


@dataclass(frozen=True)
class Point:
    """One tuning.

    Attributes:
        part: what was thinned out: ``queries`` of each document, whole ``documents``, or nothing (``all``).
        fraction: the share of the training queries that was meant to be left.
        queries, documents: what was left.
        score: the measure on dev.
    """

    part: Part
    fraction: float
    queries: int
    documents: int
    score: float


@dataclass(frozen=True)
class Curve:
    """What less data gave, and what more would.

    Attributes:
        measure: what the scores are, on the dev split.
        base: the untuned model's score.
        points: all tunings; the one with everything is shared by both ways.
        queries_gain, documents_gain: what twice the queries, or twice the documents, would add: the slope of the
            score over the base-2 logarithm of the number of queries. None where there are fewer than two points.
        advice: one sentence.
    """

    measure: str
    base: float
    points: tuple[Point, ...]
    queries_gain: float | None
    documents_gain: float | None
    advice: str

    def to_json(self) -> Json:
        """Plain values, as curve.json keeps them."""
        return asdict(self)


def learning_curve(
    dataset: RetrievalDataset,
    base: Model,
    tune: Tune,
    *,
    fractions: Sequence[float] = FRACTIONS,
    measure: str = "nDCG@10",
    seed: int = 0,
    progress: Progress = SILENT,
    settings: Settings = DEFAULTS,
) -> Curve:
    """Tune on parts of the training queries, and score each result on dev; test is not looked at.

    Args:
        dataset: with train queries; dev is cut from them where it is missing.
        base: the untuned model.
        tune: from a dataset with fewer train queries and a short name for it, to a model that can be evaluated.
        fractions: shares of the training queries; 1 is added where it is missing.
        measure: what is scored.
        seed: which queries and documents are left out; smaller parts lie within larger ones.
        progress: counts the tunings.
        settings: how models that are named are opened; see ``open_embedder``.

    Raises:
        DatasetError: there are no train queries.
    """
    whole = with_dev(dataset, seed)
    parts: list[tuple[Part, float]] = [
        (part, fraction) for fraction in sorted({*fractions} - {1.0}) for part in ("queries", "documents")
    ]
    options = EvaluateOptions(measures=(measure,), timed_queries=0, seed=seed)

    def scored(model: Model) -> float:
        board: Board = evaluate(whole, [model], "dev", options, progress, settings)
        return next(iter(board.rows[0].measures.values()))

    points, before = [], None
    with progress.task("curve", total=len(parts) + 1, unit="tunings") as task:
        for part, fraction in [*parts, ("all", 1.0)]:
            thin = thinned(whole, part, fraction, seed)
            model = tune(thin, f"{part}-{round(100 * fraction)}")
            train = thin.split("train")
            held = held_out(model) if measure == "nDCG@10" and isinstance(model, str) else None
            before, after = held or (None, scored(model))
            points.append(Point(part, fraction, len(train), len(thin.documents_of("train")), after))
            task.advance(note=f"{part} {fraction:.0%}")
    return _read(measure, scored(base) if before is None else before, tuple(points))


def held_out(folder: str) -> tuple[float, float] | None:
    """The base's nDCG@10 on dev and an artifact's, as its tuning scored both, by what had not seen the query.

    Adapters and query encoders are in the end fitted on dev as well: scored there they look best where dev is most of
    what they saw. None for other methods and models.
    """
    path = Path(folder).expanduser() / ARTIFACT_FILE
    if not path.is_file():
        return None
    marker = read_json(path)
    return (float(marker["dev"]["before"]), float(marker["dev"]["after"])) if marker["kind"] in FITTED_ON_DEV else None


def thinned(dataset: RetrievalDataset, part: Part, fraction: float, seed: int = 0) -> RetrievalDataset:
    """The dataset with a part of its train queries; corpus, dev and test stay.

    Args:
        dataset: with train queries.
        part: ``queries`` leaves queries out, evenly over documents; ``documents`` all queries of some documents.
        fraction: share that stays; at least one query does.
        seed: which ones. What stays of a smaller fraction also stays of a larger one.
    """
    if part == "all" or fraction >= 1:
        return dataset
    train = dataset.split("train")
    by_document: dict[str, list[str]] = {}
    for query in sorted(train, key=lambda query: _draw(seed, query)):
        by_document.setdefault(dataset.corpus[next(iter(train[query]))].document_id, []).append(query)
    wanted = max(1, round(fraction * len(train)))
    kept: set[str] = set()
    if part == "documents":
        for document in sorted(by_document, key=lambda document: _draw(seed, document)):
            if len(kept) < wanted:
                kept.update(by_document[document])
    else:  # the first of each document before the second of any
        turns = [
            (turn / len(own), place, query)
            for place, own in enumerate(by_document.values())
            for turn, query in enumerate(own)
        ]
        kept = {query for _, _, query in sorted(turns)[:wanted]}
    left: Qrels = {query: judged for query, judged in train.items() if query in kept}
    return replace(dataset, qrels={**dataset.qrels, "train": left}, path=None)


def _read(measure: str, base: float, points: tuple[Point, ...]) -> Curve:
    queries = _slope([point for point in points if point.part in ("all", "queries")])
    documents = _slope([point for point in points if point.part in ("all", "documents")])
    return Curve(measure, base, points, queries, documents, _advice(measure, queries, documents))


def _slope(points: Sequence[Point]) -> float | None:
    """Least squares of the score over log2 of the number of queries: what doubling them adds."""
    sizes = [math.log2(point.queries) for point in points]
    if len(set(sizes)) < 2:
        return None
    size, score = sum(sizes) / len(sizes), sum(point.score for point in points) / len(points)
    spread = sum((each - size) ** 2 for each in sizes)
    return sum((each - size) * (point.score - score) for each, point in zip(sizes, points, strict=True)) / spread


def _advice(measure: str, queries: float | None, documents: float | None) -> str:
    if queries is None or documents is None:
        return "There is too little training data to thin out."
    if max(queries, documents) < PAYS:
        return f"More of the same data would add little: twice as much, less than {figure(PAYS)} {measure}."
    per_query, per_document = figure(queries, sign=True), figure(documents, sign=True)
    if documents > queries + PAYS:
        return f"More documents would pay: twice as many, about {per_document} {measure}; more queries {per_query}."
    if queries > documents + PAYS:
        return f"More queries would pay: twice as many, about {per_query} {measure}; more documents {per_document}."
    return f"More data would pay: twice the queries about {per_query} {measure}, twice the documents {per_document}."


def _draw(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{key}".encode("utf-8", "surrogatepass")).hexdigest()
