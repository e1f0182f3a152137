"""Which weights are kept: dev decides between the states of the path, their mean, and mixtures with the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectune.progress import Progress
from vectune.training.loop import Loop, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

MIXTURES = (0.4, 0.6, 0.8)  # shares of the tuned weights in a mixture, most restrained first
DOUBT = 0.5  # standard errors on dev by which a mixture may trail and still be kept


@dataclass(frozen=True)
class Candidate:
    """Weights that may be kept, and nDCG@10 of each dev query with them."""

    name: str
    weights: Weights
    scores: Scores

    @property
    def value(self) -> float:
        return float(self.scores.mean())


def choose(loop: Loop, base: Weights, base_scores: Scores, progress: Progress) -> tuple[Weights, float, str]:
    """The best state or the mean of the later ones, mixed with the base as far as dev cannot tell the difference.

    Mixing weights with the base's (Wortsman et al., arXiv 2109.01903; LM-Cocktail, arXiv 2311.13534) keeps more of
    what the base knew, and dev documents are few: as with the one-standard-error rule (Breiman et al. 1984), the most
    restrained mixture within ``DOUBT`` standard errors of the best candidate is kept.

    Args:
        loop: after its run; its model's weights are changed.
        base: what the run started from.
        base_scores: nDCG@10 of each dev query with the base.
        progress: gets a ``choice`` event for each candidate.

    Returns:
        The weights, their value on dev, and what they are; the base itself where nothing beats it.
    """
    found = [Candidate("base", base, base_scores)]
    states = {"best": loop.best} | ({"average": loop.average} if loop.state.averaged > 1 else {})
    path = [_measured(loop, name, weights) for name, weights in states.items() if weights]
    if path:
        tuned = max(path, key=lambda candidate: candidate.value)
        for share in MIXTURES:
            name = f"{tuned.name}, {share:g} of it mixed with the base"
            found.append(_measured(loop, name, mixture(base, tuned.weights, share)))
        found += path
    kept = restrained(found)
    for candidate in found:
        progress.event("choice", state=candidate.name, value=round(candidate.value, 5), kept=candidate is kept)
    return kept.weights, kept.value, kept.name


def restrained(candidates: list[Candidate]) -> Candidate:
    """The first that is as good as the best but for what chance explains; the base where nothing beats it.

    Args:
        candidates: the base first, then the most restrained first.
    """
    base, best = candidates[0], max(candidates, key=lambda candidate: candidate.value)
    better = [candidate for candidate in candidates[1:] if candidate.value > base.value]
    return next((candidate for candidate in better if _trails_by_chance(candidate, best)), base)


def _trails_by_chance(candidate: Candidate, best: Candidate) -> bool:
    lead = best.scores - candidate.scores
    return bool(lead.mean() <= DOUBT * lead.std() / len(lead) ** 0.5)


def mixture(base: Weights, tuned: Weights, share: float) -> Weights:
    """``base + share · (tuned − base)``; of low-rank additions one factor alone is scaled, which scales the product."""
    return {
        name: value.clone() if ".lora_A." in name else base[name].lerp(value, share) for name, value in tuned.items()
    }


def _measured(loop: Loop, name: str, weights: Weights) -> Candidate:
    loop.put(weights)
    return Candidate(name, weights, loop.measure())
