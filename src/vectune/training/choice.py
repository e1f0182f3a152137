"""Which weights are kept: dev decides between the states of the path, their mean, and mixtures with the base."""

from __future__ import annotations

from vectune.progress import Progress
from vectune.training.loop import Loop, Weights

MIXTURES = (0.8, 0.6)  # shares of the tuned weights in a mixture


def choose(loop: Loop, base: Weights, base_score: float, progress: Progress) -> tuple[Weights, float, str]:
    """Of the best state, the mean of the later ones and mixtures with the base: what dev likes best.

    Mixing weights with the base's (Wortsman et al., arXiv 2109.01903; LM-Cocktail, arXiv 2311.13534) keeps more of
    what the base knew.

    Args:
        loop: after its run; its model's weights are changed.
        base: what the run started from.
        base_score: the base's value on dev.
        progress: gets a ``choice`` event for each candidate.

    Returns:
        The weights, their value on dev, and what they are; the base itself where nothing beats it.
    """
    found: list[tuple[float, str, Weights]] = [(base_score, "base", base)]
    if loop.best:
        found.append((loop.state.best, "best", loop.best))
    if loop.state.averaged > 1:
        found.append((_score(loop, loop.average), "average", loop.average))
    tuned = max(found[1:], key=lambda item: item[0], default=None)
    if tuned is not None and tuned[0] > 0:
        for share in MIXTURES:
            mixed = mixture(base, tuned[2], share)
            found.append((_score(loop, mixed), f"{tuned[1]}, {share:g} of it mixed with the base", mixed))
    score, name, weights = max(found, key=lambda item: item[0])
    for value, kept, _ in found:
        progress.event("choice", state=kept, value=round(value, 5), kept=kept == name)
    return weights, score, name


def mixture(base: Weights, tuned: Weights, share: float) -> Weights:
    """``base + share · (tuned − base)``; of low-rank additions one factor alone is scaled, which scales the product."""
    return {
        name: value.clone() if ".lora_A." in name else base[name].lerp(value, share) for name, value in tuned.items()
    }


def _score(loop: Loop, weights: Weights) -> float:
    loop.put(weights)
    return loop.measure()
