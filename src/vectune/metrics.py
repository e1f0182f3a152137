"""Measures per query, from ir-measures: the field's reference implementations (MacAvaney et al., ECIR 2022).

Names are ir-measures' own (``nDCG@10``, ``RR@10``, ``R@10``, ``P@5``, ``AP``) and ``hit@k`` for its ``Success@k``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vectune.dataset import Qrels
from vectune.errors import UsageError

Run = Mapping[str, Mapping[str, float]]  # query id → chunk id → score
PerQuery = dict[str, dict[str, float]]  # measure → query id → value

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "hit@1", "hit@5", "hit@10", "R@10")
_CUT = re.compile(r"^(?P<family>[A-Za-z]+)(@(?P<cutoff>[1-9][0-9]*))?$")
_FAMILIES = {name.lower(): name for name in ("nDCG", "RR", "AP", "hit", "R", "P")} | {"success": "hit", "mrr": "RR"}
_FAMILIES |= {"map": "AP", "recall": "R", "precision": "P"}
_NEED_CUTOFF = ("hit", "R", "P")
FULL_DEPTH = 1000  # how deep a ranking goes for a measure without a cutoff, as in TREC


def measure_name(text: str) -> str:
    """The one spelling of a measure: ``ndcg@10`` and ``NDCG@10`` are ``nDCG@10``, ``mrr@10`` is ``RR@10``.

    Raises:
        UsageError: no such measure, or a cutoff is missing.
    """
    found = _CUT.match(text.strip())
    family = _FAMILIES.get(found["family"].lower()) if found else None
    if found is None or family is None:
        raise UsageError(f"'{text}' is not a measure.", "Choose among nDCG@k, RR@k, AP, hit@k, R@k and P@k.")
    if found["cutoff"] is None and family in _NEED_CUTOFF:
        raise UsageError(f"the measure '{text}' needs a cutoff.", f"Write {family}@10, for example.")
    return family if found["cutoff"] is None else f"{family}@{found['cutoff']}"


def depth_of(measures: Sequence[str]) -> int:
    """How many chunks of a ranking these measures look at."""
    return max((int(name.split("@")[1]) if "@" in name else FULL_DEPTH for name in measures), default=0)


def per_query(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT_MEASURES) -> PerQuery:
    """Every measure for every judged query.

    A query that the run does not answer scores 0. Equal scores are ordered by chunk id, descending, as trec_eval does;
    since ir-measures' providers disagree on that, they are given the ranks.

    Args:
        qrels: the judgments; their queries are the ones scored, others in the run are ignored.
        run: the scores; higher is better.
        measures: names as in this module's docstring.

    Returns:
        Measure → query id → value, queries in the order of ``qrels``.

    Raises:
        UsageError: no such measure.
    """
    found = {}
    for query, judged in qrels.items():
        order = _ordered(run.get(query, {}))
        place = {chunk: rank for rank, chunk in enumerate(order, start=1)}
        found[query] = Answer(len(order), tuple((place.get(chunk, 0), grade) for chunk, grade in judged.items()))
    return score_answers(found, measures)


class Answer(NamedTuple):
    """All of a ranking that its measures depend on.

    Attributes:
        length: how many chunks it holds.
        judged: for each judged chunk its 1-based rank, 0 when it is not in the ranking, and its grade.
    """

    length: int
    judged: tuple[tuple[int, int], ...]


def score_answers(answers: Mapping[str, Answer], measures: Sequence[str] = DEFAULT_MEASURES) -> PerQuery:
    """Query id → its answer, to measure → query id → value. ``per_query`` for rankings that are already in order.

    Thousands of queries share a few patterns of ranks and grades, so ir-measures is asked once for each pattern.
    """
    names = [measure_name(name) for name in measures]
    depth = depth_of(names)
    patterns: dict[Answer, str] = {}
    like = {query: patterns.setdefault(_pattern(answer, depth), query) for query, answer in answers.items()}
    values = _values(patterns, names)
    return {name: {query: values[name][first] for query, first in like.items()} for name in names}


def _pattern(answer: Answer, depth: int) -> Answer:
    """The answer as the measures see it: cut at their depth, whatever the order of the judgments."""
    seen = sorted([(rank if rank <= depth else 0, grade) for rank, grade in answer.judged])
    return Answer(min(answer.length, depth), tuple(seen))


def _values(patterns: Mapping[Answer, str], names: Sequence[str]) -> PerQuery:
    """What ir-measures says of each pattern, by the query that stands for it."""
    import ir_measures

    qrels: Qrels = {}
    run: dict[str, dict[str, float]] = {}
    for (length, judged), query in patterns.items():
        # a chunk is named by its rank; scores only depend on the rank, so that nothing is left to be tied
        qrels[query] = {str(rank or f"missed {place}"): grade for place, (rank, grade) in enumerate(judged)}
        if length:
            run[query] = {str(rank): float(length - rank) for rank in range(1, length + 1)}
    measures = {ir_measures.parse_measure(re.sub("^hit@", "Success@", name)): name for name in names}
    values: PerQuery = {name: dict.fromkeys(qrels, 0.0) for name in names}
    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[metric.measure]][metric.query_id] = float(metric.value)
    return values


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries, added up in their order as ir-measures does; 0 of none."""
    return sum(values.values()) / len(values) if values else 0.0


def _ordered(scores: Mapping[str, float]) -> list[str]:
    """Chunk ids, best first; stable, so that equal scores stay by id, descending."""
    return sorted(sorted(scores, reverse=True), key=lambda chunk: -scores[chunk])
