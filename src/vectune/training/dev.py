"""Dev while training: the same queries, against the same sample of chunks, at every look.

Searching the whole corpus would mean embedding all of it again each time. The sample holds every positive, the chunks
that the base model and BM25 find hardest, then more of the dev documents, then others: the likely mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectune.lexical import BM25, fuse
from vectune.training.data import TrainingData
from vectune.training.problem import judged_among, ndcg_among

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.dataset import RetrievalDataset
    from vectune.protocols import Embedder

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

CUTOFF = 10
MANY = 200_000  # chunks that whole corpora are looked at by
MAX_QUERIES = 500  # enough to tell states apart, and little beside a training step on most machines


@dataclass(frozen=True)
class DevSample:
    """What dev is measured on.

    Attributes:
        queries: indices of dev queries, shape (q,).
        chunks: indices of the chunks they are searched among, shape (n,).
        grades: the grade of each chunk for each query, shape (q, n).
    """

    queries: Ints
    chunks: Ints
    grades: NDArray[np.int16]

    def scores(self, queries: Floats, chunks: Floats) -> NDArray[np.float64]:
        """nDCG@10 of each query, shape (q,), from unit vectors of these queries and chunks."""
        if not len(queries):
            return np.zeros(1)
        # a product's last bits differ with its place in memory; the value must not
        return ndcg(np.round(queries @ chunks.T, 6), self.grades)


def ndcg(scores: Floats, grades: NDArray[np.int16], cutoff: int = CUTOFF) -> NDArray[np.float64]:
    """nDCG with linear gains, as trec_eval and ir-measures compute it; both of shape (q, n); returns shape (q,)."""
    cutoff = min(cutoff, scores.shape[1])
    discount = 1 / np.log2(np.arange(2, cutoff + 2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :cutoff]
    gained = (np.take_along_axis(grades, order, axis=1) * discount).sum(axis=1)
    ideal = (-np.sort(-grades.astype(np.int64), axis=1)[:, :cutoff] * discount).sum(axis=1)
    found: NDArray[np.float64] = np.divide(gained, ideal, out=np.zeros(len(scores)), where=ideal > 0)
    return found


def whole_dev(dataset: RetrievalDataset, embedder: Embedder, most: int = MANY) -> float:
    """nDCG@10 on dev of an embedder, the mean over its queries, among all chunks or ``most`` and the judged ones."""
    rows, positives = judged_among(dataset.split("dev"), {key: row for row, key in enumerate(dataset.corpus)}, most)
    contents = [chunk.content for chunk in dataset.corpus.values()]
    documents = embedder.embed_documents([contents[row] for row in rows])
    queries = embedder.embed_queries([query.text for query in dataset.queries_of("dev")])
    return float(ndcg_among(queries, documents, positives).mean())


def dev_sample(data: TrainingData, queries: Floats, corpus: Floats, lexical: BM25, most: int, seed: int) -> DevSample:
    """Choose the queries and chunks to measure on.

    Args:
        data: with dev queries and their grades.
        queries: the base model's unit vectors of all dev queries.
        corpus: the base model's unit vectors of all chunks.
        lexical: BM25 over all chunks.
        most: chunks to take, unless the positives alone are more.
        seed: of what is drawn.
    """
    draw = np.random.default_rng([seed, 7])
    rows = np.arange(len(data.dev_queries))
    if len(rows) > MAX_QUERIES:
        rows = np.sort(draw.choice(rows, MAX_QUERIES, replace=False))
    chosen = {chunk for row in rows for chunk in data.dev_grades[row]}
    for ring in _hardest(data, rows, queries, corpus, lexical, most):
        chosen.update(int(chunk) for chunk in ring[: max(0, most - len(chosen))])
    own = {int(data.document[chunk]) for row in rows for chunk in data.dev_grades[row]}
    near = np.isin(data.document, list(own))
    for part in (np.flatnonzero(near), np.flatnonzero(~near)):
        rest = [chunk for chunk in part.tolist() if chunk not in chosen]
        chosen.update(draw.permutation(rest)[: max(0, most - len(chosen))].tolist())
    chunks = np.array(sorted(chosen), dtype=np.int64)
    at = {int(chunk): column for column, chunk in enumerate(chunks)}
    grades = np.zeros((len(rows), len(chunks)), dtype=np.int16)
    for line, row in enumerate(rows):
        for chunk, grade in data.dev_grades[row].items():
            grades[line, at[chunk]] = grade
    return DevSample(rows, chunks, grades)


def _hardest(
    data: TrainingData, rows: Ints, queries: Floats, corpus: Floats, lexical: BM25, most: int
) -> Sequence[Ints]:
    """First every query's best chunk by the hybrid, then every query's second, and so on, to about ``most``."""
    depth = min(len(corpus), max(1, -(-most // max(len(rows), 1)) * 2))
    best = []
    for row in rows:
        scores = fuse(queries[row] @ corpus.T, lexical.scores(data.dev_queries[row]), 0.5)
        best.append(np.argsort(-scores, kind="stable")[:depth])
    table = np.stack(best)
    return [np.unique(table[:, rank]) for rank in range(depth)]
