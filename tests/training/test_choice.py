"""Which of several states is kept."""

from __future__ import annotations

import numpy as np
import pytest

from vectune.training.choice import Candidate, restrained

SCORES = np.random.default_rng(0).uniform(0.2, 0.8, 100)


def candidates(*shifts: float, noise: float = 0.1) -> list[Candidate]:
    """A base, mixtures and the tuned state: each that much better than the base, give or take."""
    draw = np.random.default_rng(1)
    found = [Candidate("base", {}, SCORES)]
    for number, shift in enumerate(shifts):
        luck = draw.normal(0, noise, len(SCORES))
        found.append(Candidate(str(number), {}, SCORES + shift + luck - luck.mean()))
    return found


@pytest.mark.parametrize(
    ("shifts", "kept"),
    [
        ((0.1, 0.15, 0.2), "2"),  # a standard error is .014 here: both mixtures trail clearly
        ((0.1, 0.198, 0.2), "1"),
        ((0.199, 0.198, 0.2), "0"),
        ((0.1, 0.2, 0.15), "1"),  # a mixture may be the best itself
        ((-0.01, -0.02, -0.1), "base"),
        ((-0.01, 0.001, -0.1), "1"),
    ],
)
def test_the_most_restrained_that_trails_by_chance_alone_is_kept(shifts: tuple[float, ...], kept: str) -> None:
    assert restrained(candidates(*shifts)).name == kept


def test_what_trails_in_every_query_alike_does_not_trail_by_chance() -> None:
    assert restrained(candidates(0.099, 0.1, noise=0.0)).name == "1"


def test_ties_go_to_the_base_and_then_to_the_most_restrained() -> None:
    assert restrained(candidates(0.0, 0.0, noise=0.0)).name == "base"
    assert restrained(candidates(0.1, 0.1, noise=0.0)).name == "0"
