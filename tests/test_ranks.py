from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from test_retrieval import by_brute_force, unit
from vectune import ranks, retrieval
from vectune.ranks import Pairs
from vectune.retrieval import top_k_and_ranks


def asked(rng: np.random.Generator, queries: int, chunks: int, most: int) -> Pairs:
    """Up to ``most`` different chunks of each query."""
    counts = rng.integers(0, min(most, chunks) + 1, queries)
    which = [rng.choice(chunks, count, replace=False) for count in counts]
    return Pairs(np.repeat(np.arange(queries), counts), np.concatenate(which).astype(np.int64))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    depth=st.integers(1, 60),
    block=st.sampled_from([7, 32, 4096]),
    pull=st.sampled_from([0.0, 0.999]),
    bf16=st.booleans(),
    close=st.sampled_from([3, 1 << 18]),
    seed=st.integers(0, 99),
)
def test_equal_those_of_the_sorted_rankings(
    rows: int, depth: int, block: int, pull: float, bf16: bool, close: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    distinct = max(1, rows // 2)  # chunks are repeated, so that there are ties
    corpus = (1 - pull) * unit(rng, distinct, 16)[rng.integers(0, distinct, rows)] + pull * unit(rng, 1, 16)
    corpus = (corpus / np.linalg.norm(corpus, axis=1, keepdims=True)).astype(np.float32)
    queries, ties = unit(rng, 9, 16), rng.permutation(rows)
    pairs = asked(rng, len(queries), rows, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CORPUS_BLOCK", block)
        patch.setattr(retrieval, "QUERY_BLOCK", 4)
        patch.setattr(retrieval, "_WORTH_BF16", 0 if bf16 else 1 << 30)
        patch.setattr(retrieval, "bf16_is_faster", lambda: True)
        patch.setattr(ranks, "_CLOSE", close)
        indices, scores, found = top_k_and_ranks(queries, corpus, 3, pairs, depth, ties)
    order, sorted_scores = by_brute_force(queries, corpus, rows, ties)
    assert np.array_equal(indices, order[:, :3])
    assert np.allclose(scores, sorted_scores[:, :3], atol=1e-6)
    assert found.tolist() == expected(order, pairs, depth)


def expected(order: NDArray[np.int64], pairs: Pairs, depth: int) -> list[int]:
    ranks = [order[query].tolist().index(chunk) + 1 for query, chunk in zip(*pairs, strict=True)]
    return [rank if rank <= depth else 0 for rank in ranks]


def test_no_pairs_no_queries_and_no_chunks() -> None:
    vectors = unit(np.random.default_rng(0), 3, 4)
    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert top_k_and_ranks(vectors, vectors, 1, none, 10)[2].shape == (0,)
    assert top_k_and_ranks(vectors[:0], vectors, 1, none, 10)[2].shape == (0,)
    assert top_k_and_ranks(vectors, vectors[:0], 1, none, 10)[0].shape == (3, 0)
