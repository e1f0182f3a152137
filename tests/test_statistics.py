from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vectune.statistics import (
    bootstrap_interval,
    detectable_difference,
    holm,
    least_p,
    queries_needed,
    randomization_test,
    standard_error,
)

# In 32ths, whose sums are exact: scipy takes sums that differ in the last bit for different.
DIFFERENCES = st.lists(st.integers(-32, 32).map(lambda value: value / 32), min_size=2, max_size=10)


@settings(max_examples=40, deadline=None)
@given(values=DIFFERENCES)
def test_small_sets_are_counted_exactly_as_scipy_does(values: list[float]) -> None:
    ours = randomization_test(values)
    theirs = scipy.stats.permutation_test(
        (np.array(values),), np.mean, permutation_type="samples", n_resamples=2**20, vectorized=True
    )
    assert ours == pytest.approx(theirs.pvalue, abs=1e-12)
    assert ours > 0


def test_drawn_flips_agree_with_scipy() -> None:
    values = np.random.default_rng(3).normal(0.12, 0.4, size=60)
    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert randomization_test(values, draws=20_000) == pytest.approx(theirs.pvalue, abs=0.01)


def test_a_known_p_value() -> None:
    assert randomization_test([1.0] * 5) == 2 / 2**5  # of 32 flips only the two with equal signs are as far from 0
    assert randomization_test([1.0, -1.0]) == 1.0


def test_never_zero_and_of_nothing_is_one() -> None:
    assert randomization_test([0.5] * 400, draws=999) == 1 / 1000
    assert randomization_test([]) == 1.0
    assert randomization_test([0.0] * 30) == 1.0


def test_queries_of_one_document_are_one_witness() -> None:
    values = [0.3] * 50
    assert randomization_test(values) < 0.001
    assert randomization_test(values, ["one document"] * 50) == 1.0
    assert randomization_test(values, [f"d{place % 5}" for place in range(50)]) == 2 / 2**5


@settings(max_examples=25, deadline=None)
@given(values=DIFFERENCES, seed=st.integers(0, 5))
def test_p_depends_neither_on_sign_nor_on_order(values: list[float], seed: int) -> None:
    p = randomization_test(values)
    assert randomization_test([-value for value in values]) == pytest.approx(p)
    shuffled = np.random.default_rng(seed).permutation(values)
    assert randomization_test(shuffled) == pytest.approx(p)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(5).exponential(1.0, size=80)
    ours = bootstrap_interval(values, draws=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_a_skewed_interval_is_shifted_for_bias_and_skew_as_scipys_is() -> None:
    values = np.random.default_rng(3).exponential(size=12) ** 2
    ours = bootstrap_interval(values, draws=200_000)
    expanded = 2 * scipy.stats.norm.cdf((12 / 11) ** 0.5 * scipy.stats.t.ppf(0.975, 11)) - 1
    theirs, plain = (
        scipy.stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=200_000,
            confidence_level=expanded,
            method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval
        for method in ("BCa", "percentile")
    )
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)
    assert theirs.low > 1.1 * plain.low and theirs.high > 1.1 * plain.high, "or this test could not fail"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(300):  # 40 documents with 1 to 6 queries each, whose differences move together
        sizes = rng.integers(1, 7, size=40)
        clusters = np.repeat(np.arange(40), sizes)
        values = 0.1 + rng.normal(0, 0.3, 40)[clusters] + rng.normal(0, 0.2, len(clusters))
        interval = bootstrap_interval(values, clusters.tolist(), draws=600, seed=trial)
        held += interval.low <= 0.1 <= interval.high
    assert 0.91 <= held / 300 <= 0.985


def test_the_test_raises_false_alarms_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(12)
    clusters = np.repeat(np.arange(25), 4).tolist()
    alarms = sum(
        randomization_test(rng.normal(0, 0.3, 25)[clusters] + rng.normal(0, 0.2, 100), clusters, draws=400, seed=t)
        <= 0.05
        for t in range(400)
    )
    assert 0.02 <= alarms / 400 <= 0.085


def test_an_interval_of_what_does_not_vary_is_a_point() -> None:
    assert bootstrap_interval([0.5] * 9).low == bootstrap_interval([0.5] * 9).high == 0.5
    assert bootstrap_interval([]).low == 0.0


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_standard_error_is_the_textbooks_without_clusters() -> None:
    values = np.random.default_rng(7).normal(size=50)
    assert standard_error(values) == pytest.approx(scipy.stats.sem(values))
    assert standard_error(np.repeat(values, 4), np.repeat(np.arange(50), 4).tolist()) == pytest.approx(
        scipy.stats.sem(values)
    )


def test_power_is_what_it_says_and_more_queries_detect_less() -> None:
    rng = np.random.default_rng(8)
    error = 0.3 / np.sqrt(60)
    difference = detectable_difference(error)
    found = sum(randomization_test(rng.normal(difference, 0.3, 60), draws=400, seed=t) <= 0.05 for t in range(300))
    assert 0.72 <= found / 300 <= 0.88
    assert queries_needed(difference, error, 60) == 60
    assert queries_needed(difference / 2, error, 60) == 240


def test_what_few_documents_show_is_not_overstated() -> None:
    """With ten documents, 95% intervals hold the truth about so often, and 80% find what is called detectable."""
    draw, missed, found = np.random.default_rng(0), 0, 0
    documents = np.arange(10).repeat(3).tolist()
    for seed in range(150):
        noise = draw.normal(0, 0.1, 10).repeat(3) + draw.normal(0, 0.2, 30)
        interval = bootstrap_interval(noise, documents, draws=1000, seed=seed)
        missed += not interval.low <= 0 <= interval.high
        shift = detectable_difference(0.0485, clusters=10)  # the error of such means: √(.1² / 10 + .2² / 30)
        found += randomization_test(noise + shift, documents, draws=999, seed=seed) <= 0.05
    assert missed <= 0.1 * 150
    assert found >= 0.75 * 150
    assert detectable_difference(1.0, clusters=10) > 1.1 * detectable_difference(1.0)


def test_with_few_clusters_no_difference_is_significant() -> None:
    for clusters in (2, 5, 6, 14):
        assert randomization_test([1.0] * clusters) == least_p(clusters) == 2 / 2**clusters
    assert least_p(15) == 0
