"""Measures per query, from ir-measures: the field's reference implementations (MacAvaney et al., ECIR 2022).

Names are ir-measures' own (``nDCG@10``, ``RR@10``, ``R@10``, ``P@5``, ``AP``) and ``hit@k`` for its ``Success@k``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    import ir_measures

    names = [measure_name(name) for name in measures]
    objects = {ir_measures.parse_measure(re.sub("^hit@", "Success@", name)): name for name in names}
    ranked = {query: _ranks(run[query]) for query in qrels if run.get(query)}
    found: PerQuery = {name: dict.fromkeys(qrels, 0.0) for name in names}
    for metric in ir_measures.iter_calc(list(objects), qrels, ranked):
        found[objects[metric.measure]][metric.query_id] = float(metric.value)
    return found


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries, added up in their order as ir-measures does; 0 of none."""
    return sum(values.values()) / len(values) if values else 0.0


def _ranks(scores: Mapping[str, float]) -> dict[str, float]:
    """Chunk id → a score that only depends on its rank, so that nothing is left to be tied."""
    by_id = sorted(scores, reverse=True)
    order = sorted(by_id, key=lambda chunk: -scores[chunk])  # stable: equal scores stay by id, descending
    return {chunk: float(len(order) - rank) for rank, chunk in enumerate(order)}


def first_rank(ranking: Sequence[str], relevant: Mapping[str, Any]) -> int:
    """The 1-based rank of the first relevant chunk; 0 when the ranking holds none."""
    return next((rank for rank, chunk in enumerate(ranking, start=1) if chunk in relevant), 0)
