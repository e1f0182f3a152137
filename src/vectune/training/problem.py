"""What query-side training learns from, as arrays: vectors, positives, the pool of negatives, and folds by document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.splits import train_pool, with_dev

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Vectors

    Rows = NDArray[np.int64]

SMALL_POOL = 64  # with fewer chunks in judged documents, documents without judgments give negatives too
TIE = 1e-6
BLOCK = 256  # queries that are scored at a time
CANDIDATES = 10_000  # chunks that held-out queries are searched among, at most


@dataclass(frozen=True)
class Positives:
    """Rows of each query's positives among the documents, padded to one width.

    Attributes:
        rows: (n, width) int64; padding repeats the first positive.
        weights: (n, width) float32, 0 where padded; the grades otherwise.
    """

    rows: Rows
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, judged: Sequence[dict[int, int]]) -> Positives:
        """From row → grade of each query; every query needs at least one."""
        width = max(map(len, judged), default=1)
        rows = np.zeros((len(judged), width), dtype=np.int64)
        weights = np.zeros((len(judged), width), dtype=np.float32)
        for index, grades in enumerate(judged):
            rows[index] = next(iter(grades))
            rows[index, : len(grades)] = list(grades)
            weights[index, : len(grades)] = list(grades.values())
        return cls(rows, weights)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, queries: Rows | slice) -> Positives:
        """Those of some of the queries."""
        return Positives(self.rows[queries], self.weights[queries])


@dataclass(frozen=True)
class Fold:
    """Queries held out, with what may be trained on beside them.

    Attributes:
        train: rows of the queries to train on; none shares a document with the held-out ones.
        held: rows of the held-out queries.
        pool: rows of the documents that may be negatives.
    """

    train: Rows
    held: Rows
    pool: Rows


@dataclass(frozen=True)
class Problem:
    """All arrays of one training.

    Attributes:
        queries: (n, d) vectors of the train and dev queries.
        documents: (m, d) vectors of the whole corpus; may be a memory map, only sampled rows of it are read.
        positives: of the queries.
        pool: rows of the documents that may be negatives when all queries are trained on.
        searched: rows of the documents that held-out queries are searched among: all but those of test documents. No
            query here asks about them, so they would reward an adapter for keeping queries away from them.
        folds: by document; the first one holds out the dataset's dev queries. Empty with too few pairs.
        dev: rows of the dev queries.
    """

    queries: Vectors
    documents: Vectors
    positives: Positives
    pool: Rows
    searched: Rows
    folds: tuple[Fold, ...]
    dev: Rows

    @property
    def dim(self) -> int:
        return int(self.queries.shape[1])

    def candidates(self, held: Rows, seed: int = 0) -> Rows:
        """Rows that held-out queries are searched among: the searched ones, or a sample with all their positives."""
        if len(self.searched) <= CANDIDATES:
            return self.searched
        drawn = np.random.default_rng(seed).choice(self.searched, CANDIDATES, replace=False)
        return np.unique(np.concatenate([drawn, self.positives.take(held).rows.ravel()]))


def judged_rows(qrels: Qrels, chunk_rows: dict[str, int]) -> list[dict[int, int]]:
    """Each query's positives as row → grade."""
    return [{chunk_rows[chunk]: grade for chunk, grade in judged.items()} for judged in qrels.values()]


def judged_among(qrels: Qrels, chunk_rows: dict[str, int], most: int) -> tuple[Rows, Positives]:
    """Rows of ``most`` chunks, evenly spread, and of the judged ones; and each query's positives among them."""
    judged = judged_rows(qrels, chunk_rows)
    answers = np.array([row for grades in judged for row in grades], dtype=np.int64)
    rows = np.union1d(spread(len(chunk_rows), most), answers)
    at = {row: place for place, row in enumerate(rows.tolist())}
    return rows, Positives.of([{at[row]: grade for row, grade in grades.items()} for grades in judged])


def trained_queries(dataset: RetrievalDataset) -> Qrels:
    """Train and dev judgments together, dev last."""
    return {**dataset.split("train"), **dataset.qrels.get("dev", {})}


def pool_rows(dataset: RetrievalDataset, chunk_rows: dict[str, int]) -> Rows:
    """Rows of the chunks that may be negatives.

    Of ``splits.train_pool`` only documents that hold a train positive: what nobody has asked about yet would be pushed
    away from all queries, and the first user who asks about it pays. With hardly any such chunks, the whole pool.
    """
    pool = train_pool(dataset)
    documents = dataset.documents_of("train")
    judged = [key for key in pool if dataset.corpus[key].document_id in documents]
    return np.array(sorted(chunk_rows[key] for key in (judged if len(judged) >= SMALL_POOL else pool)), dtype=np.int64)


def folds_of(dataset: RetrievalDataset, count: int, seed: int) -> list[tuple[RetrievalDataset, Qrels]]:
    """Cut train and dev into folds by document; each comes as (dataset without it in train, held-out judgments).

    A dataset's own dev split is the first fold. Fewer folds than asked for where documents are few.
    """
    rest, parts = dataset.split("train"), []
    if dataset.qrels.get("dev"):
        parts.append(dataset.qrels["dev"])
    while len(parts) < count - 1:
        try:
            cut = with_dev(replace(dataset, qrels={"train": rest}), seed, 1 / (count - len(parts)), len(rest))
        except DatasetError:
            break
        parts.append(cut.qrels["dev"])
        rest = cut.qrels["train"]
    parts.append(rest)
    others = {"test": dataset.qrels["test"]} if dataset.qrels.get("test") else {}
    found = []
    for index, held in enumerate(parts):
        train = {key: value for other, part in enumerate(parts) if other != index for key, value in part.items()}
        if train and held:
            found.append((replace(dataset, qrels={**others, "train": train, "dev": held}), held))
    return found


def problem_of(dataset: RetrievalDataset, queries: Vectors, documents: Vectors, folds: int, seed: int) -> Problem:
    """Arrays for a dataset.

    Args:
        dataset: with a train split, and a dev split if dev is to be the first fold.
        queries: (n, d) vectors of ``trained_queries(dataset)``, in that order.
        documents: (m, d) vectors of the corpus, in its order; may be a memory map.
        folds: how many folds to cut; 0 cuts none.
        seed: of the cuts.
    """
    chunk_rows = {key: row for row, key in enumerate(dataset.corpus)}
    judged = trained_queries(dataset)
    query_rows = {key: row for row, key in enumerate(judged)}
    cut = [
        Fold(
            np.array([query_rows[key] for key in part.split("train")], dtype=np.int64),
            np.array([query_rows[key] for key in held], dtype=np.int64),
            pool_rows(part, chunk_rows),
        )
        for part, held in (folds_of(dataset, folds, seed) if folds else [])
    ]
    others = {"test": dataset.qrels["test"]} if dataset.qrels.get("test") else {}
    whole = replace(dataset, qrels={"train": judged, **others})
    dev = np.array([query_rows[key] for key in dataset.qrels.get("dev", {})], dtype=np.int64)
    positives = Positives.of(judged_rows(judged, chunk_rows))
    pool = pool_rows(whole, chunk_rows)
    return Problem(queries, documents, positives, pool, _searched_rows(whole, chunk_rows), tuple(cut), dev)


def _searched_rows(dataset: RetrievalDataset, chunk_rows: dict[str, int]) -> Rows:
    """Rows of all chunks but those of documents that hold positives of test alone."""
    kept = dataset.documents_of("train")
    out = (dataset.documents_of("test") if dataset.qrels.get("test") else set()) - kept
    return np.array([chunk_rows[key] for key, c in dataset.corpus.items() if c.document_id not in out], dtype=np.int64)


def ndcg_at_10(scores: NDArray[Any], positives: Positives) -> NDArray[np.float64]:
    """nDCG@10 of each query from its scores over the candidates.

    Ties count against the positive: a map that sends every vector to one point must not look perfect. What lies within
    ``TIE`` is one, as the last bits of a product differ with its place in memory.

    Args:
        scores: cosines or sums like them, (n, m).
        positives: rows are columns of ``scores``.
    """
    own = np.take_along_axis(scores, positives.rows, axis=1)
    least = own - own.dtype.type(TIE)
    no_lower = (scores >= least[:, column, None] for column in range(own.shape[1]))
    ranks = np.stack([each.sum(axis=1, dtype=np.int32) for each in no_lower], axis=1)  # int64 takes twice as long
    ranks -= 1 + _tied_behind(own, positives.weights > 0)
    found = (ranks >= 0) & (ranks < 10)  # below 0: the score is no number
    gains = (positives.weights * found / np.log2(np.maximum(ranks, 0) + 2)).sum(axis=1)
    ideal = -np.sort(-positives.weights, axis=1)[:, :10]
    return np.asarray(gains / (ideal / np.log2(np.arange(ideal.shape[1]) + 2)).sum(axis=1), dtype=np.float64)


def ndcg_among(queries: Vectors, documents: Vectors, positives: Positives) -> NDArray[np.float64]:
    """nDCG@10 of each query's vector among the documents' vectors, shape (len(queries),); a block at a time."""
    parts = [
        ndcg_at_10(queries[start : start + BLOCK] @ documents.T, positives.take(slice(start, start + BLOCK)))
        for start in range(0, len(queries), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _tied_behind(own: NDArray[Any], real: NDArray[np.bool_]) -> NDArray[np.int32]:
    """How many of a query's later positives have the same score, for each; shape (n, width)."""
    found = np.zeros(own.shape, dtype=np.int32)
    for column in range(1, own.shape[1]):
        found[:, :column] += (np.abs(own[:, :column] - own[:, column, None]) <= TIE) & real[:, column, None]
    return found


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit norm, shape (n, d); a row of zeros stays."""
    found: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found


def spread(count: int, most: int) -> Rows:
    """At most ``most`` of ``count`` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
