"""The bridge: after tuning, queries of the new model search the index that still holds the old vectors.

Two maps are learnt from a sample of chunks that both models embed. W moves stored vectors into the new space without
the model: ridge regression pulled to the identity (or, between spaces of different dimension, to nothing), of full or
of low rank, whichever is better on chunks it did not see. Sentences and windows of the sampled chunks are further pairs
of vectors for it, at less weight: with 10 % of a thousand chunks they are most of what is known. The second map brings
new queries to the old vectors. It starts from what W makes of all the stored vectors, which costs no embedding: its
scores on old vectors shall be the new queries' scores on moved ones. Queries do not help W: on a tuned model their
vectors move in another way.

Judged queries then say what regression cannot: the adapter ladder (closed form, low rank, linear or residual MLP, by
held-out queries) climbs over the mapped queries against old vectors, and once more against moved ones. Where the new
model was tuned from the old one, its queries are near the old vectors as they are, and a ladder from there errs in
another way than one from the map: their mean is served unless dev prefers one of them. Dev queries alone decide that,
and whether new queries are served at all: the new model has been trained on the others.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune import __version__
from vectune.adapters import Adapter, Kind, StoredAdapter, composed, save_adapter
from vectune.dataset import RetrievalDataset
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import DatasetError
from vectune.progress import SILENT, Progress
from vectune.runs import Json, check_output, write_json, writing
from vectune.splits import with_dev
from vectune.training.adapter import FEW, Candidates, Climbed, LadderOptions, Starts, average, climb, fit_all, leads
from vectune.training.problem import Positives, judged_rows, ndcg_at_10, problem_of, trained_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors
    from vectune.training.problem import Rows

PULLS = (0.03, 0.1, 0.3, 1.0, 3.0)
RANKS = (0, 64, 16)  # of the change; 0 is full rank
FOLDS = 4  # of the sample, for pull and rank
PIECE_WEIGHT = 0.3  # of a sentence or window beside a whole chunk
WINDOW, STRIDE, SHORTEST = 40, 30, 4  # words of windows, and of the shortest sentence
QUERY_PULL = 0.003  # of the second map to W's transpose; there are enough stored vectors to need little
CLEARLY = 2.0  # standard errors on dev by which one part of the map of queries must lead the mean of both
MOVED = "moved"  # the folder beside the bridge for an index of moved vectors: its queries' and its documents' map
LEAST = 50  # chunks of a sample, where the corpus has them
WEAK = 10  # chunks and queries that are named as weak


@dataclass(frozen=True)
class BridgeOptions:
    """What a bridge is learnt from.

    Attributes:
        sample: share of the corpus that both models embed.
        most: chunks of the sample at most.
        pieces: sentences and windows of sampled chunks that both models embed besides, at most; 0 takes none.
        old_vectors: stored vectors that the map of queries is fitted to, at most.
    """

    sample: float = 0.05
    most: int = 20_000
    pieces: int = 2_000
    old_vectors: int = 20_000


DEFAULTS = BridgeOptions()


@dataclass(frozen=True)
class Bridge:
    """The two maps and what dev says of them.

    Attributes:
        query: new queries → old space.
        document: stored old vectors → new space.
        moved: what new queries pass through to search an index that ``document`` has moved.
        dev: nDCG@10 of the dev queries among the sampled chunks: ``old``, ``new`` (everything embedded again),
            ``bridge`` (new queries on old vectors), ``moved`` (new queries on moved vectors).
        index: nDCG@10 of all dev queries on the old vectors, by maps that were fitted without them: ``old`` and
            ``bridge``; empty without a dev split.
        chosen: pull and rank of the regression, and how good they were on chunks left out.
        weak: chunks that are mapped worst and dev queries that lose most, by id.
        sampled: how many chunks both models embedded.
    """

    query: Adapter
    document: Adapter
    moved: Adapter
    dev: dict[str, float]
    index: dict[str, float]
    chosen: Json
    weak: Json
    sampled: int
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def gains(self) -> bool:
        """False where dev says that old queries serve better on the old vectors: then the folder serves those."""
        return not self.index or self.index["bridge"] >= self.index["old"]

    def kept(self, which: str = "bridge") -> float | None:
        """Share of the new model's gain on dev that is kept; None where there is no gain to keep."""
        gain = self.dev["new"] - self.dev["old"] if self.dev else 0.0
        return (self.dev[which] - self.dev["old"]) / gain if gain > 1e-9 else None


def build_bridge(
    old: Embedder,
    new: Embedder,
    dataset: RetrievalDataset,
    out: Path,
    seed: int = 0,
    options: BridgeOptions = DEFAULTS,
    progress: Progress = SILENT,
) -> Bridge:
    """Learn a bridge from ``old`` to ``new`` and write its folder.

    Args:
        old: the model whose vectors the index holds; with its cache around it, nothing is embedded again.
        new: the model whose queries are to be served.
        dataset: chunks of the index (all or some) and judged queries.
        out: the folder to write; ``open_embedder`` opens it: new queries, old documents.
        seed: of the sample and of training.
        options: see ``BridgeOptions``.
        progress: told what is chosen.

    Raises:
        DatasetError: no train split, or under 10 chunks.
        OutputError: ``out`` holds something else.
    """
    check_output(out, ARTIFACT_FILE)
    started = time.perf_counter()
    ground = _Ground.of(old, new, dataset, seed, options)
    found = replace(learn(ground, seed, progress), seconds=time.perf_counter() - started)
    for note in found.notes:
        progress.say(note)
    with writing(out) as beside:
        beside.mkdir(parents=True)
        card = {"document_base": old.name, "document_base_fingerprint": old.fingerprint}
        save_adapter(beside, StoredAdapter(found.query, found.document, new.name, new.fingerprint, card))
        (beside / MOVED).mkdir()
        save_adapter(beside / MOVED, StoredAdapter(found.moved, found.document, new.name, new.fingerprint, card))
        write_json(beside / ARTIFACT_FILE, _marker(found, old, new))
    return found


def _marker(found: Bridge, old: Embedder, new: Embedder) -> Json:
    return {
        "kind": "bridge",
        "base": new.name,
        "base_fingerprint": new.fingerprint,
        "document_base": old.name,
        "document_base_fingerprint": old.fingerprint,
        "vectune": __version__,
        "method": "bridge",
        "options": found.chosen,
        "queries": "new" if found.gains else "old",
        "dev": found.dev,
        "index": found.index,
        "kept": {which: found.kept(which) for which in ("bridge", "moved")} if found.dev else {},
        "weak": found.weak,
        "notes": list(found.notes),
    }


@dataclass(frozen=True)
class _Ground:
    """Vectors of everything that is learnt from.

    Attributes:
        dataset: cut down to the chunks in use, with dev where it could be cut.
        old: (m, d_old) vectors of its chunks.
        sample: rows of the chunks that both models embedded; ``new`` (s, d_new) are the new model's.
        piece_of: the sampled chunk (as a place in ``sample``) that each piece is cut from; ``old_pieces``,
            ``new_pieces`` are its vectors.
        old_queries, new_queries: of ``trained_queries(dataset)``.
        dev: rows of the dev queries whose positives are all sampled.
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

    @classmethod
    def of(cls, old: Embedder, new: Embedder, dataset: RetrievalDataset, seed: int, options: BridgeOptions) -> _Ground:
        """Draw the sample and embed what is needed."""
        try:
            dataset = with_dev(dataset, seed)
        except DatasetError:
            dataset.split("train")  # no judgments at all is an error, too few for dev is not
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
        )


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


# Learning


def learn(ground: _Ground, seed: int, progress: Progress) -> Bridge:
    """Both maps; pull, rank and dev's figures come from fits that leave dev's chunks out, then all is fitted again."""
    rows = {key: row for row, key in enumerate(ground.dataset.corpus)}
    positives = Positives.of(judged_rows(trained_queries(ground.dataset), rows))
    held = np.isin(ground.sample, positives.take(ground.dev).rows)
    if not held.any() or held.all():
        held = np.arange(len(ground.sample)) % 5 == 0
    fidelity, pull, rank = _choose(ground, positives)
    trial = _Regression(ground, ~held).map(pull, rank)
    final = _Regression(ground, np.ones(len(held), bool)).map(pull, rank)
    towards_old, unseen, index = _query_map(ground, trial, final, seed, progress)
    plain = np.eye(ground.new.shape[1], dtype=np.float32)
    towards_moved = _Taught.of(ground, plain, _unit(ground.old @ final.T), seed, progress)
    board = _Dev(ground, positives)
    unseen_moved = towards_moved.without_dev(plain, _unit(ground.old @ trial.T))
    dev = board.scores(unseen, _linear("ridge", trial), unseen_moved)
    notes = []
    if index and index["bridge"] < index["old"]:
        notes.append(
            f"new queries on old vectors score {index['bridge']:.3f} on dev, old queries {index['old']:.3f}: "
            "the folder serves old queries, until all is embedded again."
        )
    if dev and dev["moved"] < dev["old"]:
        notes.append(
            f"new queries on moved vectors score {dev['moved']:.3f} on dev, below the old model's {dev['old']:.3f}: "
            "do not move the index."
        )
    if len(ground.dev) < FEW:
        found = f"only {len(ground.dev)} dev queries have their chunks in the sample"
        notes.append(f"{found}: the share kept is a rough guess.")
    if ground.old.shape[1] != ground.new.shape[1]:
        notes.append("the two models have different dimensions; quality across makes of models has not been measured.")
    chosen: Json = {
        "pull": pull,
        "rank": rank or "full",
        "fidelity": round(fidelity, 4),
        "queries": {way: taught.describe() for way, taught in towards_old.items()},
        "queries_on_moved": towards_moved.describe(),
    }
    progress.event("bridge", **chosen)
    return Bridge(
        average([taught.adapter() for taught in towards_old.values()]),
        _linear("low-rank" if rank else "ridge", final),
        towards_moved.adapter(),
        dev,
        index,
        chosen,
        board.weak(unseen, trial, held),
        len(ground.sample),
        tuple(notes),
    )


def _query_map(
    ground: _Ground,
    trial: NDArray[np.float32],
    final: NDArray[np.float32],
    seed: int,
    progress: Progress,
) -> tuple[dict[str, _Taught], Adapter, dict[str, float]]:
    """What new queries pass through to search old vectors: its parts by name, their mean without dev, and dev's scores.

    Args:
        ground: the vectors.
        trial, final: maps of documents, fitted without and with dev's chunks.
        seed: of folds, weights and order.
        progress: told what the ladder scored.
    """
    starts = {"mapped": (_for_queries(ground.old, trial), _for_queries(ground.old, final))}
    dim_old, dim_new = ground.old.shape[1], ground.new.shape[1]
    if dim_old == dim_new:
        starts["as they are"] = (np.eye(dim_new, dtype=np.float32),) * 2
    taught = {way: _Taught.of(ground, start, ground.old, seed, progress) for way, (_, start) in starts.items()}
    unseen = {way: taught[way].without_dev(start, ground.old) for way, (start, _) in starts.items()}
    problem = problem_of(ground.dataset, ground.new_queries, ground.old, 0, seed)
    if not len(problem.dev):
        return {"mapped": taught["mapped"]}, unseen["mapped"], {}
    among, asked = Candidates(problem, problem.dev, seed), ground.new_queries[problem.dev]
    ways = [list(taught), *([way] for way in taught)]  # the mean first: a part alone must clearly lead it
    scored = [among.score(_mean(unseen, way).apply(asked)) for way in ways]
    best = 0
    for at, scores in enumerate(scored):
        if leads(scores, scored[best], CLEARLY):
            best = at
    before = among.score(ground.old_queries[problem.dev])
    index = {"old": float(before.mean()), "bridge": float(scored[best].mean())}
    return {way: taught[way] for way in ways[best]}, _mean(unseen, ways[best]), index


def _mean(adapters: dict[str, Adapter], which: list[str]) -> Adapter:
    return average([adapters[way] for way in which])


class _Regression:
    """W (d_new, d_old) with W·old ≈ new over chunks and pieces; pulled to the identity where that exists.

    Taken apart once, good for every pull and rank.
    """

    def __init__(self, ground: _Ground, kept: NDArray[np.bool_]) -> None:
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


def _for_queries(old: Vectors, document: NDArray[np.float32]) -> NDArray[np.float32]:
    """A (d_old, d_new) with (A q) · d ≈ q · W d / ‖W d‖ over all stored vectors d, for every q."""
    moved = _unit(old @ document.T)
    gram = old.T @ old
    level = np.float32(QUERY_PULL * float(np.trace(gram)) / len(gram))
    eye = np.eye(len(gram), dtype=np.float32)
    found = np.linalg.solve(gram + level * eye, old.T @ moved + level * document.T)
    return np.ascontiguousarray(found, dtype=np.float32)


@dataclass(frozen=True)
class _Taught:
    """What judged queries add to a linear map of the new model's queries, by the adapter ladder.

    Attributes:
        ground: the vectors.
        start: (d, d_new) the map before; scaled so that mapped queries have length 1 in the mean, as rates expect.
        climbed: the ladder over the mapped queries; its adapter is the identity where nothing was gained.
        seed: of folds, weights and order.
    """

    ground: _Ground
    start: NDArray[np.float32]
    climbed: Climbed
    seed: int

    @classmethod
    def of(
        cls, ground: _Ground, start: NDArray[np.float32], documents: Vectors, seed: int, progress: Progress
    ) -> _Taught:
        """Climb over mapped queries and the documents that they are to search."""
        start = _scaled(start, ground.new_queries)
        queries = ground.new_queries @ start.T
        return cls(ground, start, climb(ground.dataset, queries, documents, seed, progress=progress), seed)

    def adapter(self) -> Adapter:
        """The start and then what the ladder found, as one adapter."""
        return composed(self.climbed.adapter, self.start)

    def describe(self) -> list[dict[str, object]]:
        """The ladder's settings."""
        return [setting.describe() for setting in self.climbed.settings]

    def without_dev(self, start: NDArray[np.float32], documents: Vectors) -> Adapter:
        """The same settings over another start, fitted without the dev queries."""
        start = _scaled(start, self.ground.new_queries)
        queries = self.ground.new_queries @ start.T
        folds = LadderOptions().folds if len(queries) >= FEW else 0
        problem = problem_of(self.ground.dataset, queries, documents, folds, self.seed)
        part = (problem.folds[0].train, problem.folds[0].pool) if problem.folds else None
        found = fit_all(problem, self.climbed.settings, self.seed, Starts(problem, self.seed), part)
        return composed(found, start)


def _scaled(matrix: NDArray[np.float32], queries: Vectors) -> NDArray[np.float32]:
    length = float(np.linalg.norm(queries @ matrix.T, axis=1).mean())
    return np.ascontiguousarray(matrix / np.float32(max(length, 1e-6)))


def _choose(ground: _Ground, positives: Positives) -> tuple[float, float, int]:
    """How good the best pull and rank are on sampled chunks left out in turn, and these two.

    Judged queries whose positive is left out search all stored vectors, moved by a map that has not seen it: nDCG@10.
    With hardly any such query, the correlation of scores with the new model's decides.
    """
    part = np.full(len(ground.old), -1)
    part[ground.sample] = np.arange(len(ground.sample)) % FOLDS
    owner = part[positives.rows[:, 0]]
    regressions = [_Regression(ground, part[ground.sample] != fold) for fold in range(FOLDS)]
    found = []
    for rank in RANKS:
        for pull in PULLS:
            maps = [regression.map(pull, rank) for regression in regressions]
            values = [_fold_score(ground, positives, part, owner, fold, w) for fold, w in enumerate(maps)]
            found.append((float(np.concatenate(values).mean()), pull, rank))
    return max(found, key=lambda item: (round(item[0], 3), -item[1]))


def _fold_score(
    ground: _Ground, positives: Positives, part: Rows, owner: Rows, fold: int, document: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Scores of queries, one each, by a map fitted without this fold."""
    out = part[ground.sample] == fold
    asked = np.flatnonzero(owner == fold)
    if (owner >= 0).sum() < FEW:
        moved = _unit(ground.old[ground.sample][out] @ document.T)
        return np.array([_correlation(ground.new_queries @ moved.T, ground.new_queries @ ground.new[out].T)])
    return ndcg_at_10(ground.new_queries[asked] @ _unit(ground.old @ document.T).T, positives.take(asked))


def _correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Mean over queries of the correlation of two score lists."""
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (left, right))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())


def _linear(kind: Kind, matrix: NDArray[np.float32]) -> Adapter:
    return Adapter(kind, matrix.shape[1], matrix.shape[0], skip=matrix)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found


class _Dev:
    """Dev queries among the sampled chunks, which both models have embedded."""

    def __init__(self, ground: _Ground, positives: Positives) -> None:
        self.ground = ground
        own = positives.take(ground.dev)
        self.positives = replace(own, rows=np.searchsorted(ground.sample, own.rows))
        self.old_queries, self.new_queries = ground.old_queries[ground.dev], ground.new_queries[ground.dev]
        self.old = ground.old[ground.sample]

    def of(self, queries: Vectors, documents: Vectors) -> NDArray[np.float64]:
        """NDCG@10 of each dev query."""
        return ndcg_at_10(queries @ documents.T, self.positives)

    def query_score(self, adapter: Adapter | None) -> NDArray[np.float64]:
        """New queries through the map, on old vectors; without a map old queries."""
        return self.of(self.old_queries if adapter is None else adapter.apply(self.new_queries), self.old)

    def scores(self, query: Adapter | None, document: Adapter, moved: Adapter) -> dict[str, float]:
        """All four means; empty without dev queries."""
        if not len(self.positives):
            return {}
        return {
            "old": float(self.query_score(None).mean()),
            "new": float(self.of(self.new_queries, self.ground.new).mean()),
            "bridge": float(self.query_score(query).mean()),
            "moved": float(self.of(moved.apply(self.new_queries), document.apply(self.old)).mean()),
        }

    def weak(self, query: Adapter | None, trial: NDArray[np.float32], held: NDArray[np.bool_]) -> Json:
        """Chunks mapped worst among those the map did not see, and dev queries that lose most against re-embedding."""
        ids = [list(self.ground.dataset.corpus)[row] for row in self.ground.sample[held]]
        cosines = (_unit(self.old[held] @ trial.T) * self.ground.new[held]).sum(axis=1)
        found: Json = {
            "cosine": round(float(cosines.mean()), 4),
            "chunks": [ids[i] for i in np.argsort(cosines)[:WEAK]],
        }
        if len(self.positives):
            lost = self.of(self.new_queries, self.ground.new) - self.query_score(query)
            keys = list(trained_queries(self.ground.dataset))
            worst = [i for i in np.argsort(-lost)[:WEAK] if lost[i] > 0]
            found["queries"] = [keys[self.ground.dev[i]] for i in worst]
        return found
