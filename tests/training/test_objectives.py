from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from vectune.training.objectives import distillation, drift, info_nce, matryoshka

EYE = torch.eye(3)
NONE = torch.zeros(3, 3, dtype=torch.bool)
OWN = torch.arange(3)


def test_info_nce_by_hand() -> None:
    loss = info_nce(EYE, EYE, OWN, NONE, temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)))


def test_a_masked_chunk_does_not_count() -> None:
    chunks = torch.cat([EYE, EYE[:1]])  # a copy of the first chunk would cost the first query half its probability
    masked = torch.zeros(3, 4, dtype=torch.bool)
    with_copy = info_nce(EYE, chunks, OWN, masked, symmetric=False)
    masked[0, 3] = True
    masked[1:, 3] = True
    assert info_nce(EYE, chunks, OWN, masked, symmetric=False) == info_nce(EYE, EYE, OWN, NONE, symmetric=False)
    assert with_copy > info_nce(EYE, chunks, OWN, masked, symmetric=False)


def test_queries_of_one_chunk_are_not_each_others_negatives() -> None:
    queries, chunks = torch.stack([EYE[0], EYE[0], EYE[1]]), EYE[:2]
    targets = torch.tensor([0, 0, 1])
    masked = torch.zeros(3, 2, dtype=torch.bool)
    way_back = 2 * info_nce(queries, chunks, targets, masked) - info_nce(queries, chunks, targets, masked, 0.05, False)
    assert way_back.item() == pytest.approx(0, abs=1e-6)  # log 2 · 2/3 if the twins were each other's negatives


def test_distillation_is_zero_where_the_model_agrees_and_positive_elsewhere() -> None:
    scores = EYE / 0.05
    assert distillation(EYE, EYE, scores).item() == pytest.approx(0, abs=1e-6)
    assert distillation(EYE, EYE, scores.roll(1, 0)).item() > 1


def test_matryoshka_is_the_mean_over_prefixes_of_unit_norm() -> None:
    torch.manual_seed(0)
    queries, chunks = normalize(torch.randn(3, 8), dim=-1), normalize(torch.randn(3, 8), dim=-1)

    def objective(q: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        assert torch.allclose(q.norm(dim=-1), torch.ones(3))
        return info_nce(q, d, OWN, NONE)

    short = objective(normalize(queries[:, :4], dim=-1), normalize(chunks[:, :4], dim=-1))
    expected = (objective(queries, chunks) + short) / 2
    assert matryoshka(objective, (8, 4))(queries, chunks).item() == pytest.approx(expected.item())


def test_prefixes_are_taken_in_the_basis_of_the_axes() -> None:
    torch.manual_seed(1)
    queries, chunks = normalize(torch.randn(3, 8), dim=-1), normalize(torch.randn(3, 8), dim=-1)
    last_first = torch.eye(8).flip(1)

    def objective(q: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return info_nce(q, d, OWN, NONE)

    back = objective(normalize(queries[:, 4:], dim=-1), normalize(chunks[:, 4:], dim=-1))
    expected = (objective(queries, chunks) + back) / 2
    assert matryoshka(objective, (4,), last_first)(queries, chunks).item() == pytest.approx(expected.item())


def test_drift() -> None:
    assert drift(EYE, EYE).item() == 0
    assert drift(EYE, EYE.roll(1, 0)).item() == 1
