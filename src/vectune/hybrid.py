"""The weight of BM25 in a hybrid, chosen on dev. Fusion itself is in ``lexical.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectune.dataset import Qrels
from vectune.lexical import BM25
from vectune.rankers import score_pairs

if TYPE_CHECKING:
    from vectune.products import Floats, Ints

CUTOFF = 10


@dataclass(frozen=True)
class Weight:
    """A weight and how it was chosen.

    Attributes:
        value: weight of BM25, 0 to 1; the dense part has the rest.
        curve: weight → nDCG@10 over the queries it was chosen on; empty where there were none.
        queries: how many queries it was chosen on.
    """

    value: float
    curve: dict[float, float]
    queries: int


def choose_weight(
    bm25: BM25, corpus: Floats, texts: Sequence[str], vectors: Floats, judged: Sequence[dict[int, int]], ties: Ints,
    step: float = 0.05,
) -> Weight:  # fmt: skip
    """The weight with the best mean nDCG@10; of equal ones the nearest to a half.

    Only the ranks of the relevant chunks are needed for it, and a rank is a count: no ranking is sorted.

    Args:
        bm25: over the corpus.
        corpus: unit vectors, shape (n, d).
        texts, vectors: the queries, and their unit vectors of shape (q, d).
        judged: for each query, index of a relevant chunk → grade.
        ties: as in ``retrieval.top_k``.
        step: distance between weights.
    """
    weights = [round(weight, 4) for weight in np.append(np.arange(0, 1, step), 1.0).tolist()]
    total = np.zeros(len(weights))
    for (lexical, dense), grades in zip(score_pairs(bm25, corpus, texts, vectors), judged, strict=True):
        relevant = np.array(list(grades), dtype=np.int64)
        gains = np.array(list(grades.values()), dtype=np.float64)
        for place, weight in enumerate(weights):
            fused = np.float32(weight) * lexical + np.float32(1 - weight) * dense
            total[place] += _ndcg(_ranks(fused, relevant, ties), gains)
    means = total / max(1, len(texts))
    best = max(range(len(weights)), key=lambda place: (round(float(means[place]), 9), -abs(weights[place] - 0.5)))
    return Weight(weights[best], dict(zip(weights, np.round(means, 6).tolist(), strict=True)), len(texts))


def judged_indices(qrels: Qrels, queries: Sequence[str], place: dict[str, int]) -> list[dict[int, int]]:
    """For each query, index of a relevant chunk in the corpus → grade."""
    return [{place[chunk]: grade for chunk, grade in qrels[query].items()} for query in queries]


def _ranks(scores: Floats, chunks: Ints, ties: Ints) -> Ints:
    """1-based ranks of these chunks: how many come before each, plus one."""
    found = np.empty(len(chunks), dtype=np.int64)
    for place, chunk in enumerate(chunks):
        equal = np.flatnonzero(scores == scores[chunk])
        found[place] = 1 + np.count_nonzero(scores > scores[chunk]) + np.count_nonzero(ties[equal] < ties[chunk])
    return found


def _ndcg(ranks: Ints, gains: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """nDCG@10 with linear gains, as trec_eval computes it."""
    ideal = np.sort(gains)[::-1][:CUTOFF]
    got = np.where(ranks <= CUTOFF, gains / np.log2(ranks + 1), 0).sum()
    return float(got / (ideal / np.log2(np.arange(len(ideal)) + 2)).sum())
