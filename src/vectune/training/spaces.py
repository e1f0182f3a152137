"""Two models' spaces: vectors of the same texts by both, and linear maps between them.

W moves stored vectors into the new space without the model: ridge regression pulled to the identity (or, between spaces
of different dimension, to nothing), of full or of low rank, whichever is better on chunks it did not see. Sentences and
windows of the sampled chunks are further pairs of vectors for it, at less weight: with 10 % of a thousand chunks they
are most of what is known. Queries do not help W: on a tuned model their vectors move in another way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vectune.adapters import fitted_on_dev
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import tuned_seed
from vectune.errors import DatasetError
from vectune.splits import with_dev
from vectune.training.adapter import FEW
from vectune.training.problem import Positives, ndcg_among, trained_queries, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.bridge import BridgeOptions
    from vectune.protocols import Embedder, Vectors
    from vectune.training.problem import Rows

PULLS = (0.03, 0.1, 0.3, 1.0, 3.0)
RANKS = (0, 64, 16)  # of the change; 0 is full rank
FOLDS = 4  # of the sample, for pull and rank
PIECE_WEIGHT = 0.3  # of a sentence or window beside a whole chunk
WINDOW, STRIDE, SHORTEST = 40, 30, 4  # words of windows, and of the shortest sentence
QUERY_PULL = 0.003  # of the second map to W's transpose; there are enough stored vectors to need little
COMPARE = "Compare the folder with the old model on test: vectune evaluate DATASET --model OLD --model FOLDER."
LEAST = 50  # chunks of a sample, where the corpus has them


@dataclass(frozen=True)
class TwoSpaces:
    """Vectors of everything that is learnt from.

    Attributes:
        dataset: cut down to the chunks in use, with dev where it could be cut.
        old: (m, d_old) vectors of its chunks.
        sample: rows of the chunks that both models embedded; ``new`` (s, d_new) are the new model's.
        piece_of: the sampled chunk (as a place in ``sample``) that each piece is cut from; ``old_pieces``,
            ``new_pieces`` are its vectors.
        old_queries, new_queries: of ``trained_queries(dataset)``.
        dev: rows of the dev queries whose positives are all sampled.
        told: what a person should know of dev.
    """

    dataset: RetrievalDataset
    old: Vectors
    sample: Rows
    new: Vectors
    piece_of: Rows
    old_pieces: Vectors
    new_pieces: Vectors
    old_queries: Vectors
    new_queries: Vectors
    dev: Rows
    told: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, old: Embedder, new: Embedder, dataset: RetrievalDataset, seed: int, options: BridgeOptions
    ) -> TwoSpaces:
        """Draw the sample and embed what is needed."""
        dataset, told = _with_unseen_dev(dataset, new, seed)
        rng = np.random.default_rng(seed)
        ids, judged = np.array(list(dataset.corpus)), trained_queries(dataset)
        if len(ids) < 10:
            raise DatasetError(f"{len(ids)} chunks are too few to learn a map between two spaces from.")
        size = min(max(round(options.sample * len(ids)), LEAST), options.most, len(ids))
        drawn = rng.permutation(ids).tolist()  # evenly: dev's own chunks would crowd a small sample
        sampled = set(drawn[:size])
        further = {key for grades in judged.values() for key in grades} | set(drawn[: options.old_vectors])
        small = _cut_down(dataset, sampled | further)
        rows = {key: row for row, key in enumerate(small.corpus)}
        sample = np.array(sorted(rows[key] for key in sampled), dtype=np.int64)
        contents = [chunk.content for chunk in small.corpus.values()]
        texts = [small.queries[key].text for key in judged]
        dev = [
            i
            for i, (key, grades) in enumerate(judged.items())
            if key in small.qrels.get("dev", {}) and grades.keys() <= sampled
        ]
        cut = [(place, text) for place, row in enumerate(sample) for text in pieces_of(contents[row])]
        pieces = [cut[i] for i in np.sort(rng.permutation(len(cut))[: options.pieces])]
        return cls(
            small,
            old.embed_documents(contents),
            sample,
            new.embed_documents([contents[row] for row in sample]),
            np.array([place for place, _ in pieces], dtype=np.int64),
            old.embed_documents([text for _, text in pieces]),
            new.embed_documents([text for _, text in pieces]),
            old.embed_queries(texts),
            new.embed_queries(texts),
            np.array(dev, dtype=np.int64),
            told,
        )


def _with_unseen_dev(dataset: RetrievalDataset, new: Embedder, seed: int) -> tuple[RetrievalDataset, tuple[str, ...]]:
    """The dataset with dev queries that the new model has not learnt from, or without dev; and what to tell of it."""
    if fitted_on_dev(new):
        qrels = {key: judged for key, judged in dataset.qrels.items() if key != "dev"}
        told = f"'{new.name}' was fitted on dev's queries as well: nothing is measured or chosen by them. {COMPARE}"
        return replace(dataset, qrels={**qrels, "train": trained_queries(dataset)}), (told,)
    own = tuned_seed(new, seed)
    try:
        found = with_dev(dataset, own)
    except DatasetError:
        dataset.split("train")  # no judgments at all is an error, too few for dev is not
        return dataset, ()
    if own == seed or dataset.qrels.get("dev"):
        return found, ()
    return found, (f"dev is cut by seed {own}, as for '{new.name}': by seed {seed} it had held queries learnt from.",)


def pieces_of(text: str) -> list[str]:
    """Sentences of a text and windows of its words: what varies around it in both spaces."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if len(part.split()) >= SHORTEST]
    words = text.split()
    starts = range(0, len(words) - SHORTEST, STRIDE) if len(words) > WINDOW else ()
    windows = [" ".join(words[at : at + WINDOW]) for at in starts]
    return [part for part in dict.fromkeys([*sentences, *windows]) if part != text]


def _cut_down(dataset: RetrievalDataset, kept: set[str]) -> RetrievalDataset:
    """The dataset with these chunks alone; test judgments stay only to keep their chunks out of training."""
    test = {
        query: {key: grade for key, grade in grades.items() if key in kept}
        for query, grades in dataset.qrels.get("test", {}).items()
    }
    qrels = {**dataset.qrels, "test": {query: grades for query, grades in test.items() if grades}}
    return replace(dataset, corpus={key: chunk for key, chunk in dataset.corpus.items() if key in kept}, qrels=qrels)


# Maps


class Regression:
    """W (d_new, d_old) with W·old ≈ new over chunks and pieces; pulled to the identity where that exists.

    Taken apart once, good for every pull and rank.
    """

    def __init__(self, ground: TwoSpaces, kept: NDArray[np.bool_]) -> None:
        near, weight = kept[ground.piece_of], np.float32(PIECE_WEIGHT)
        x = np.concatenate([ground.old[ground.sample][kept], weight * ground.old_pieces[near]])
        y = np.concatenate([ground.new[kept], weight * ground.new_pieces[near]])
        shape = (y.shape[1], x.shape[1])
        self.prior = np.eye(*shape, dtype=np.float32) if shape[0] == shape[1] else np.zeros(shape, np.float32)
        self.gram = x.T @ x
        self.values, self.axes = np.linalg.eigh(self.gram)
        self.rest = ((y - x @ self.prior.T).T @ x) @ self.axes

    def map(self, pull: float, rank: int) -> NDArray[np.float32]:
        """W at a pull, in units of the mean squared singular value, and a rank of the change; rank 0 is full."""
        change = (self.rest / (self.values + pull * float(self.values.mean()))) @ self.axes.T
        if 0 < rank < min(change.shape):  # reduced-rank regression (Izenman 1975) over this x
            _, axes = np.linalg.eigh(change @ self.gram @ change.T)
            change = axes[:, -rank:] @ (axes[:, -rank:].T @ change)
        return np.ascontiguousarray(self.prior + change, dtype=np.float32)


def for_queries(old: Vectors, document: NDArray[np.float32]) -> NDArray[np.float32]:
    """A (d_old, d_new) with (A q) · d ≈ q · W d / ‖W d‖ over all stored vectors d, for every q."""
    moved = unit(old @ document.T)
    gram = old.T @ old
    level = np.float32(QUERY_PULL * float(np.trace(gram)) / len(gram))
    eye = np.eye(len(gram), dtype=np.float32)
    found = np.linalg.solve(gram + level * eye, old.T @ moved + level * document.T)
    return np.ascontiguousarray(found, dtype=np.float32)


def choose_map(ground: TwoSpaces, positives: Positives) -> tuple[float, float, int]:
    """How good the best pull and rank are on sampled chunks left out in turn, and these two.

    Judged queries whose positive is left out search all stored vectors, moved by a map that has not seen it: nDCG@10.
    With hardly any such query, the correlation of scores with the new model's decides.
    """
    part = np.full(len(ground.old), -1)
    part[ground.sample] = np.arange(len(ground.sample)) % FOLDS
    owner = part[positives.rows[:, 0]]
    regressions = [Regression(ground, part[ground.sample] != fold) for fold in range(FOLDS)]
    found = []
    for rank in RANKS:
        for pull in PULLS:
            maps = [regression.map(pull, rank) for regression in regressions]
            values = [_fold_score(ground, positives, part, owner, fold, w) for fold, w in enumerate(maps)]
            found.append((float(np.concatenate(values).mean()), pull, rank))
    return max(found, key=lambda item: (round(item[0], 3), -item[1]))


def _fold_score(
    ground: TwoSpaces, positives: Positives, part: Rows, owner: Rows, fold: int, document: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Scores of queries, one each, by a map fitted without this fold."""
    out = part[ground.sample] == fold
    asked = np.flatnonzero(owner == fold)
    if (owner >= 0).sum() < FEW:
        moved = unit(ground.old[ground.sample][out] @ document.T)
        return np.array([_correlation(ground.new_queries @ moved.T, ground.new_queries @ ground.new[out].T)])
    return ndcg_among(ground.new_queries[asked], unit(ground.old @ document.T), positives.take(asked))


def _correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Mean over queries of the correlation of two score lists."""
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (left, right))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())
