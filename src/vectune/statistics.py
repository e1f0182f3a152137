"""Is the difference luck? Paired over queries, with the queries of one document resampled together.

Everything is seeded and takes differences (candidate minus base, one for each query) and optionally the cluster each
query belongs to. Clusters are the unit of chance: fifty queries written for one document are not fifty witnesses.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

_BLOCK = 1 << 22  # random numbers drawn at a time: 32 MB
_EXACT = 14  # up to so many clusters all sign flips are counted instead of drawn


def randomization_test(
    differences: Sequence[float] | Doubles,
    clusters: Sequence[Hashable] | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided paired randomization test of "the mean difference is 0" (Fisher 1935; Smucker et al., CIKM 2007).

    Under the null hypothesis base and candidate could be exchanged, so a cluster's differences flip their sign
    together. p = (c + 1) / (draws + 1), where c counts drawn means at least as far from 0 as the observed one (Phipson
    and Smyth 2010): never exactly 0. With up to 14 clusters all flips are counted: p = c / 2^clusters, where the
    unflipped one is among the c.

    Args:
        differences: one for each query.
        clusters: the cluster of each query; None makes each query its own.
        draws: how many random flips.
        seed: of the flips.
    """
    sums, _ = _cluster_sums(differences, clusters)
    if not len(sums):
        return 1.0
    observed = abs(sums.sum()) * (1 - 1e-9) - 1e-12  # a drawn sum may differ by rounding alone
    if len(sums) <= _EXACT:
        flips = ((np.arange(1 << len(sums))[:, None] >> np.arange(len(sums))) & 1) * 2.0 - 1
        return float(np.mean(np.abs(flips @ sums) >= observed))
    count = sum(
        int(np.count_nonzero(np.abs((signs * 2.0 - 1) @ sums) >= observed))
        for signs in _drawn(np.random.default_rng(seed), draws, len(sums), high=2)
    )
    return (count + 1) / (draws + 1)


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def bootstrap_interval(
    differences: Sequence[float] | Doubles,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    draws: int = 5_000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of the mean by the BCa bootstrap (Efron 1987), whole clusters drawn with replacement.

    Resamples of few clusters vary too little, so the tails are those of Student's t, wider by √(n / (n − 1)) (the
    expanded interval of Hesterberg 2015, The American Statistician 69).

    Args:
        differences, clusters: as for ``randomization_test``.
        level: how often such an interval should hold the true mean.
        draws: resamples.
        seed: of the resamples.

    Returns:
        The interval; a single point where nothing varies, or where there is only one cluster to draw from.
    """
    from scipy.special import ndtr, ndtri, stdtrit

    sums, sizes = _cluster_sums(differences, clusters)
    if not len(sums):
        return Interval(0.0, 0.0)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) == 1 or np.ptp(sums - mean * sizes) < 1e-15:
        return Interval(mean, mean)
    means = resampled_means(sums, sizes, draws=draws, seed=seed)
    below = (np.count_nonzero(means < mean) + 0.5 * np.count_nonzero(means == mean)) / draws
    bias = ndtri(np.clip(below, 1 / (draws + 1), draws / (draws + 1)))
    skew = _acceleration(sums, sizes)
    wider = (len(sums) / (len(sums) - 1)) ** 0.5
    tails = wider * stdtrit(len(sums) - 1, np.array([(1 - level) / 2, (1 + level) / 2]))
    shifted = ndtr(bias + (bias + tails) / (1 - skew * (bias + tails)))
    low, high = np.quantile(means, shifted)
    return Interval(float(low), float(high))


def resampled_means(sums: Doubles, sizes: Doubles, *, draws: int, seed: int) -> Doubles:
    """Means of bootstrap resamples of whole clusters; shape (draws,)."""
    found = []
    for chosen in _drawn(np.random.default_rng(seed), draws, len(sums), high=len(sums)):
        found.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    return np.concatenate(found)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected so that the chance of any false alarm among them stays at the level (Holm 1979)."""
    found: dict[str, float] = {}
    worst = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[name]))
        found[name] = worst
    return {name: found[name] for name in p_values}


def standard_error(differences: Sequence[float] | Doubles, clusters: Sequence[Hashable] | None = None) -> float:
    """Standard error of the mean difference, robust to clusters (Liang and Zeger 1986); infinite for one cluster."""
    sums, sizes = _cluster_sums(differences, clusters)
    if len(sums) < 2:
        return float("inf")
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (residuals**2).sum()) / sizes.sum())


def least_p(clusters: int) -> float:
    """The smallest p-value that ``randomization_test`` can give: with few clusters no difference is significant."""
    return 2.0 ** (1 - clusters) if clusters <= _EXACT else 0.0


def detectable_difference(
    error: float, *, level: float = 0.95, power: float = 0.8, clusters: int | None = None
) -> float:
    """The smallest true mean difference that a two-sided test at this level finds with this power.

    Args:
        error: the standard error of the mean difference.
        level: 1 minus the chance of a false alarm.
        power: the chance to find a difference of that size.
        clusters: how many the error was estimated from, at least 2; None: so many that it is known.
    """
    from scipy.special import ndtri, stdtrit

    quantiles = np.array([(1 + level) / 2, power])
    return float((ndtri(quantiles) if clusters is None else stdtrit(clusters - 1, quantiles)).sum() * error)


def queries_needed(difference: float, error: float, queries: int, *, level: float = 0.95, power: float = 0.8) -> int:
    """How many queries, spread over documents as these are, would show a true difference of this size; at least 1."""
    if difference == 0 or not np.isfinite(error):
        return 0
    return max(1, int(np.ceil(queries * (detectable_difference(error, level=level, power=power) / difference) ** 2)))


def _cluster_sums(
    differences: Sequence[float] | Doubles, clusters: Sequence[Hashable] | None
) -> tuple[Doubles, Doubles]:
    """For each cluster the sum of its differences, and how many there are."""
    values = np.asarray(differences, dtype=np.float64)
    if clusters is None:
        return values, np.ones(len(values))
    place: dict[Hashable, int] = {}
    member = np.array([place.setdefault(cluster, len(place)) for cluster in clusters], dtype=np.int64)
    sizes = np.bincount(member, minlength=len(place)).astype(np.float64)
    return np.bincount(member, weights=values, minlength=len(place)).astype(np.float64), sizes


def _acceleration(sums: Doubles, sizes: Doubles) -> float:
    """BCa's correction for skew, from the means that leave one cluster out."""
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    centred = left_out.mean() - left_out
    spread = (centred**2).sum() ** 1.5
    return float((centred**3).sum() / (6 * spread)) if spread > 0 else 0.0


def _drawn(rng: np.random.Generator, draws: int, width: int, *, high: int) -> Iterator[NDArray[np.int64]]:
    """Integers below ``high``, in blocks of rows of this width, ``draws`` rows in all."""
    rows = max(1, _BLOCK // max(1, width))
    for start in range(0, draws, rows):
        yield rng.integers(0, high, size=(min(rows, draws - start), width))
