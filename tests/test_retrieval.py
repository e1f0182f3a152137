from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vectune import retrieval
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
