from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vectune import retrieval
from vectune.products import Bf16
from vectune.retrieval import tie_order, top_k, top_of_scores


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    found = rng.normal(size=(rows, dim))
    vectors: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def by_brute_force(
    queries: NDArray[np.float32], corpus: NDArray[np.float32], k: int, ties: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    scores = (queries.astype(np.float64) @ corpus.astype(np.float64).T).astype(np.float32)
    order = np.stack([np.lexsort((ties, -row))[:k] for row in scores])
    return order, np.take_along_axis(scores, order, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    asked=st.integers(1, 9),
    k=st.integers(1, 70),
    block=st.integers(1, 40),
    distinct=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_equals_brute_force_whatever_the_blocks(
    rows: int, asked: int, k: int, block: int, distinct: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    corpus = unit(rng, distinct, 8)[rng.integers(0, distinct, rows)]  # with repeated chunks, so with ties
    queries, ties = unit(rng, asked, 8), rng.permutation(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CORPUS_BLOCK", block)
        patch.setattr(retrieval, "QUERY_BLOCK", 4)
        indices, scores = top_k(queries, corpus, k, ties)
    expected, expected_scores = by_brute_force(queries, corpus, k, ties)
    assert np.array_equal(indices, expected)
    assert np.allclose(scores, expected_scores, atol=1e-6)


def test_reads_a_memory_map_in_one_pass(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    corpus, queries = unit(rng, 20_000, 16), unit(rng, 3, 16)
    np.save(tmp_path / "corpus.npy", corpus)
    done: list[int] = []
    indices, _ = top_k(queries, np.load(tmp_path / "corpus.npy", mmap_mode="r"), 5, advance=done.append)
    assert np.array_equal(indices, by_brute_force(queries, corpus, 5, np.arange(20_000))[0])
    assert sum(done) == 20_000


def test_no_queries_and_more_asked_for_than_there_is() -> None:
    corpus = unit(np.random.default_rng(0), 3, 4)
    assert top_k(corpus[:0], corpus, 2)[0].shape == (0, 2)
    assert top_k(corpus, corpus, 10)[0].shape == (3, 3)


def test_ties_go_by_id_descending() -> None:
    ids = ["a", "c", "b"]
    assert tie_order(ids).tolist() == [2, 0, 1]
    assert [ids[place] for place in top_of_scores(np.ones(3, np.float32), 2, tie_order(ids))] == ["c", "b"]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 300),
    k=st.integers(1, 30),
    dim=st.sampled_from([2, 17, 64]),
    pull=st.sampled_from([0.0, 0.9, 0.999]),
    crowded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_rough_pass_in_bf16_loses_nothing(
    rows: int, k: int, dim: int, pull: float, crowded: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    middle = unit(rng, 1, dim)
    corpus = (1 - pull) * unit(rng, max(1, rows // 2), dim)[rng.integers(0, max(1, rows // 2), rows)] + pull * middle
    corpus = (corpus / np.linalg.norm(corpus, axis=1, keepdims=True)).astype(np.float32)
    queries, ties = np.concatenate([unit(rng, 3, dim), middle, -middle]), rng.permutation(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CORPUS_BLOCK", 32)
        patch.setattr(retrieval, "_WORTH_BF16", 0)
        patch.setattr(retrieval, "bf16_is_faster", lambda: True)
        patch.setattr(retrieval, "_CROWDED", 1 if crowded else 16)
        indices, scores = top_k(queries, corpus, k, ties)
    expected, expected_scores = by_brute_force(queries, corpus, k, ties)
    assert np.array_equal(indices, expected)
    assert np.allclose(scores, expected_scores, atol=1e-6)


def test_what_bf16_is_off_by_stays_below_its_bound() -> None:
    rng = np.random.default_rng(3)
    worst = np.full((2, 256), 1 + 2.0**-8, dtype=np.float32) / 16  # halfway between two bf16 numbers, all of one sign
    queries, corpus = np.concatenate([unit(rng, 30, 256), worst / np.linalg.norm(worst[0])]), unit(rng, 500, 256)
    corpus[:32] = queries
    product = Bf16(len(queries) * len(corpus))
    rough, error = product.rough(product.left(queries), product.right(corpus))
    off = np.abs(rough.whole() - queries.astype(np.float64) @ corpus.T.astype(np.float64))
    assert (off <= error[:, None] + product.relative * np.abs(rough.whole())).all()
    assert off.max() > 1e-4  # it is bf16, so there is something to bound


@pytest.mark.parametrize("lowest", [-0.3, -0.0, 0.0, 1e-30, 0.11, np.inf])
def test_bf16_scores_are_compared_as_they_are(lowest: float) -> None:
    rng = np.random.default_rng(4)
    queries, corpus = unit(rng, 7, 64), unit(rng, 300, 64)
    corpus[3], corpus[4] = -queries[0], 0.0
    product = Bf16(len(queries) * len(corpus))
    rough, _ = product.rough(product.left(queries), product.right(corpus))
    lower = np.linspace(0.05, 0.2, 7, dtype=np.float32)
    lower[2] = lowest
    rows, chunks, scores = rough.reaching(lower)
    whole = rough.whole()
    assert np.array_equal(scores, whole[rows, chunks])
    missed = whole >= lower[:, None]
    missed[rows, chunks] = False
    assert not missed.any()
    assert (scores >= lower[rows] - 2.0**-8 * np.abs(lower[rows])).all(), "and next to nothing that is lower"
