from __future__ import annotations

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectune.errors import UsageError
from vectune.metrics import depth_of, mean, measure_name, per_query

MEASURES = ("nDCG@10", "nDCG@3", "RR@10", "RR", "hit@1", "hit@5", "R@10", "P@5", "AP", "AP@10")
CHUNKS = st.sampled_from([f"c{number}" for number in range(12)])
QUERIES = st.sampled_from([f"q{number}" for number in range(6)])


def theirs(name: str) -> ir_measures.Measure:
    return ir_measures.parse_measure(name.replace("hit@", "Success@"))


@settings(max_examples=60, deadline=None)
@given(
    qrels=st.dictionaries(QUERIES, st.dictionaries(CHUNKS, st.integers(1, 3), min_size=1), min_size=1),
    run=st.dictionaries(QUERIES, st.dictionaries(CHUNKS, st.integers(-500, 500), min_size=1)),
)
def test_agrees_with_ir_measures_to_the_last_digit(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, int]]
) -> None:
    # distinct scores: on ties ir-measures' own providers disagree among themselves
    scored = {query: {chunk: score + place / 100 for place, (chunk, score) in enumerate(sorted(hits.items()))}
              for query, hits in run.items()}  # fmt: skip
    ours = per_query(qrels, scored, MEASURES)
    expected = ir_measures.calc_aggregate([theirs(name) for name in MEASURES], qrels, scored)
    for name in MEASURES:
        assert mean(ours[name]) == pytest.approx(expected[theirs(name)], abs=1e-15)
    for metric in ir_measures.iter_calc([theirs("nDCG@10"), theirs("hit@5")], qrels, scored):
        name = str(metric.measure).replace("Success@", "hit@")
        assert ours[name][metric.query_id] == metric.value


def test_known_values() -> None:
    found = per_query({"q": {"a": 1, "b": 1}}, {"q": {"x": 3.0, "a": 2.0, "b": 1.0}}, ("RR@10", "hit@1", "R@2", "P@2"))
    assert {name: values["q"] for name, values in found.items()} == {"RR@10": 0.5, "hit@1": 0, "R@2": 0.5, "P@2": 0.5}


def test_a_query_without_an_answer_scores_zero_and_counts() -> None:
    found = per_query(
        {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}, {"q1": {"a": 1.0}, "q3": {}}, ("nDCG@10", "RR@10")
    )
    for values in found.values():
        assert values == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert mean(found["RR@10"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", ["RR@10", "nDCG@10", "hit@1", "AP"])
def test_ties_go_by_id_descending_in_every_measure(measure: str) -> None:
    run = {"q": {"a": 1.0, "b": 1.0}}
    assert per_query({"q": {"b": 1}}, run, (measure,))[measure]["q"] == 1.0
    assert per_query({"q": {"a": 1}}, run, (measure,))[measure]["q"] < 1.0


def test_names_have_one_spelling() -> None:
    assert [measure_name(name) for name in ("ndcg@10", "MRR@5", "Success@3", "map", "recall@20")] == [
        "nDCG@10", "RR@5", "hit@3", "AP", "R@20",
    ]  # fmt: skip
    assert depth_of(("nDCG@10", "R@50")) == 50


@pytest.mark.parametrize("name", ["F1", "nDCG@0", "nDCG@", "hit", "R", "", "nDCG@ten"])
def test_an_unknown_measure_is_an_error(name: str) -> None:
    with pytest.raises(UsageError):
        measure_name(name)
