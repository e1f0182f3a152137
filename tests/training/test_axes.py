"""A turn of the space after which the first dimensions hold the most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from spaces import unit
from vectune.embedders.loading import load_model
from vectune.embedders.local import LocalEmbedder
from vectune.embedders.options import EmbedOptions
from vectune.training.axes import by_dimension, principal_axes, turn
from vectune.training.dev import DevSample
from vectune.training.opening import open_model
from vectune.training.options import TuneOptions

TEXTS = ["the bridge over the river", "a contract about glass", "coffee", "the law of the garden", "fire fish"]


def flat(dim: int = 24, rank: int = 6) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Unit vectors near a subspace that no dimension of theirs lies in."""
    draw = np.random.default_rng(0)
    return unit(draw.normal(size=(200, rank)) @ draw.normal(size=(rank, dim)) + 0.01 * draw.normal(size=(200, dim)))


def test_the_first_dimensions_hold_the_most_of_any() -> None:
    vectors = flat()
    axes = principal_axes(vectors)
    np.testing.assert_allclose(axes.T @ axes, np.eye(24), atol=1e-5)
    held = np.cumsum(((vectors @ axes) ** 2).sum(axis=0))
    assert held[5] > 0.999 * len(vectors)
    other = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    for basis in (np.eye(24), other):
        assert (held >= np.cumsum(((vectors @ basis) ** 2).sum(axis=0)) - 1e-3).all()


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_decoder", "tiny_static"])
def test_a_turned_model_has_the_cosines_it_had(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = load_model(str(request.getfixturevalue(kind)))
    before = LocalEmbedder(model, EmbedOptions(precision="fp32")).embed_documents(TEXTS)
    turn(model, principal_axes(before))
    after = LocalEmbedder(model, EmbedOptions(precision="fp32")).embed_documents(TEXTS)
    assert not np.allclose(before, after, atol=0.1)
    np.testing.assert_allclose(before @ before.T, after @ after.T, atol=1e-4)
    model.save(str(tmp_path / "saved"))
    cut = unit(SentenceTransformer(str(tmp_path / "saved"), truncate_dim=len(TEXTS)).encode_document(TEXTS))
    np.testing.assert_allclose(cut @ cut.T, before @ before.T, atol=1e-3)  # five vectors lie in five dimensions


def test_a_turn_is_not_trained_when_the_model_is_tuned_again(tiny_bert: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_bert))
    turn(model, principal_axes(LocalEmbedder(model, EmbedOptions(precision="fp32")).embed_documents(TEXTS)))
    model.save(str(tmp_path / "turned"))
    opened, *_ = open_model(TuneOptions(model=str(tmp_path / "turned"), precision="fp32"))
    trained = [any(p.requires_grad for p in module.parameters()) for module in opened]
    assert trained[0] and not trained[-1]


def test_dev_is_told_for_each_length() -> None:
    vectors = flat()
    dev = DevSample(np.arange(50), np.arange(200), np.eye(50, 200, dtype=np.int16))
    axes = principal_axes(vectors)
    found = by_dimension(dev, vectors[:50], vectors, axes, (12, 6, 1))
    assert list(found) == [12, 6, 1] and found[12] > 0.99 and found[6] > 0.9 > found[1]
