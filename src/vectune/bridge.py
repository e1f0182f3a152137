"""The bridge: after tuning, queries of the new model search the index that still holds the old vectors.

Two maps are learnt from a sample of chunks that both models embed (``training/spaces.py``): one moves stored vectors
into the new space, one brings new queries to the old vectors. The second starts from what the first makes of all the
stored vectors, which costs no embedding: its scores on old vectors shall be the new queries' scores on moved ones.

Judged queries then say what regression cannot: the adapter ladder (closed form, low rank, linear or residual MLP, by
held-out queries) climbs over the mapped queries against old vectors, and once more against moved ones. Where the new
model was tuned from the old one, its queries are near the old vectors as they are, and a ladder from there errs in
another way than one from the map: their mean is served unless dev prefers one of them. Last come the queries' words
(``words.py``), whose vectors are fitted to the stored ones. Dev queries alone decide all that, and whether new queries
are served at all: the new model has been trained on the others. An adapter or a query encoder has been fitted on dev,
too: then nothing is decided or measured by it, and new queries are served, by the first map and without words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune import __version__
from vectune.adapters import Adapter, Kind, StoredAdapter, composed, save_adapter
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import name_to_open
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import UsageError, check_bounds
from vectune.progress import SILENT, Progress
from vectune.runs import Json, check_output, write_json, writing
from vectune.training.adapter import FEW, Candidates, Climbed, LadderOptions, Starts, average, climb, fit_all, leads
from vectune.training.problem import Positives, Problem, judged_rows, ndcg_among, problem_of, trained_queries, unit
from vectune.training.spaces import Regression, TwoSpaces, choose_map, for_queries
from vectune.training.words import HeldOut, Worded, words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors
    from vectune.words import WordMap

CLEARLY = 2.0  # standard errors on dev by which one part of the map of queries must lead the mean of both
MOVED = "moved"  # the folder beside the bridge for an index of moved vectors: its queries' and its documents' map
WEAK = 10  # chunks and queries that are named as weak


@dataclass(frozen=True)
class BridgeOptions:
    """What a bridge is learnt from.

    Attributes:
        sample: share of the corpus that both models embed.
        most: chunks of the sample at most.
        pieces: sentences and windows of sampled chunks that both models embed besides, at most; 0 takes none.
        old_vectors: stored vectors that the map of queries and the word map are fitted to, at most.
    """

    sample: float = 0.05
    most: int = 20_000
    pieces: int = 2_000
    old_vectors: int = 20_000

    def __post_init__(self) -> None:
        check_bounds("bridge", self, {"sample": (0, 1), "most": (1, inf), "pieces": (0, inf), "old_vectors": (1, inf)})


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
            ``bridge``, and ``words`` where they are served, too; empty without a dev split.
        chosen: pull and rank of the regression, and how good they were on chunks left out.
        weak: chunks that are mapped worst and dev queries that lose most, by id.
        sampled: how many chunks both models embedded.
        words: what queries' words add to the vectors that search the old index; None where dev gains nothing by it.
    """

    query: Adapter
    document: Adapter
    moved: Adapter
    dev: dict[str, float]
    index: dict[str, float]
    chosen: Json
    weak: Json
    sampled: int
    words: WordMap | None = None
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def gains(self) -> bool:
        """False where dev says that old queries serve better on the old vectors: then the folder serves those."""
        return _serves_new(self.index)

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
        UsageError: both are the same model.
    """
    check_output(out, ARTIFACT_FILE)
    if old.fingerprint == new.fingerprint:
        raise UsageError(f"'{old.name}' and '{new.name}' are one model: their vectors are the same already.")
    started = time.perf_counter()
    ground = TwoSpaces.of(old, new, dataset, seed, options)
    found = replace(learn(ground, seed, progress), seconds=time.perf_counter() - started)
    for note in found.notes:
        progress.say(note)
    with writing(out) as beside:
        beside.mkdir(parents=True)
        base = name_to_open(new)
        card = {"document_base": name_to_open(old), "document_base_fingerprint": old.fingerprint}
        save_adapter(beside, StoredAdapter(found.query, found.document, base, new.fingerprint, card))
        if found.words:
            found.words.save(beside)
        (beside / MOVED).mkdir()
        save_adapter(beside / MOVED, StoredAdapter(found.moved, found.document, base, new.fingerprint, card))
        write_json(beside / ARTIFACT_FILE, _marker(found, old, new))
    return found


def _marker(found: Bridge, old: Embedder, new: Embedder) -> Json:
    return {
        "kind": "bridge",
        "base": name_to_open(new),
        "base_fingerprint": new.fingerprint,
        "document_base": name_to_open(old),
        "document_base_fingerprint": old.fingerprint,
        "vectune": __version__,
        "method": "bridge",
        "options": found.chosen,
        "queries": "new" if found.gains else "old",
        "words": found.words is not None,
        "dev": found.dev,
        "index": found.index,
        "kept": {which: found.kept(which) for which in ("bridge", "moved")} if found.dev else {},
        "weak": found.weak,
        "notes": list(found.notes),
    }


# Learning


def learn(ground: TwoSpaces, seed: int, progress: Progress) -> Bridge:
    """Both maps; pull, rank and dev's figures come from fits that leave dev's chunks out, then all is fitted again."""
    rows = {key: row for row, key in enumerate(ground.dataset.corpus)}
    positives = Positives.of(judged_rows(trained_queries(ground.dataset), rows))
    held = np.isin(ground.sample, positives.take(ground.dev).rows)
    if not held.any() or held.all():
        held = np.arange(len(ground.sample)) % 5 == 0
    fidelity, pull, rank = choose_map(ground, positives)
    trial = Regression(ground, ~held).map(pull, rank)
    final = Regression(ground, np.ones(len(held), bool)).map(pull, rank)
    problem = problem_of(ground.dataset, ground.old_queries, ground.old, 0, seed)
    towards_old, unseen, index = _query_map(ground, problem, trial, final, seed, progress)
    plain = np.eye(ground.new.shape[1], dtype=np.float32)
    towards_moved = _Taught.of(ground, plain, unit(ground.old @ final.T), seed, progress)
    board = _Dev(ground, positives)
    unseen_moved = towards_moved.without_dev(plain, unit(ground.old @ trial.T))
    dev = board.scores(unseen, _linear("ridge", trial), unseen_moved)
    chosen: Json = {
        "pull": pull,
        "rank": rank or "full",
        "fidelity": round(fidelity, 4),
        "queries": {way: taught.describe() for way, taught in towards_old.items()},
        "queries_on_moved": towards_moved.describe(),
    }
    worded = _words(ground, problem, unseen, index, seed)
    if worded:
        index["words"] = float(worded.after.mean())
        chosen["added_words"] = worded.describe()
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
        worded.map if worded else None,
        (*_notes(ground, dev, index), *([worded.note] if worded else [])),
    )


def _serves_new(index: dict[str, float]) -> bool:
    """False where dev prefers old queries on the old vectors."""
    return not index or index["bridge"] >= index["old"]


def _notes(ground: TwoSpaces, dev: dict[str, float], index: dict[str, float]) -> list[str]:
    """What a person should read about the outcome."""
    notes = list(ground.told)
    if not _serves_new(index):
        notes.append(
            f"new queries on old vectors score {index['bridge']:.3f} on dev, old queries {index['old']:.3f}: "
            "the folder serves old queries, until all is embedded again."
        )
    if dev and dev["moved"] < dev["old"]:
        notes.append(
            f"new queries on moved vectors score {dev['moved']:.3f} on dev, below the old model's {dev['old']:.3f}: "
            "do not move the index."
        )
    if not dev:
        notes.append("no dev query has its chunks in the sample: the share kept is not known.")
    elif len(ground.dev) < FEW:
        found = f"only {len(ground.dev)} dev queries have their chunks in the sample"
        notes.append(f"{found}: the share kept is a rough guess.")
    if ground.old.shape[1] != ground.new.shape[1]:
        notes.append("the two models have different dimensions; quality across makes of models has not been measured.")
    return notes


def _query_map(
    ground: TwoSpaces,
    problem: Problem,
    trial: NDArray[np.float32],
    final: NDArray[np.float32],
    seed: int,
    progress: Progress,
) -> tuple[dict[str, _Taught], Adapter, dict[str, float]]:
    """What new queries pass through to search old vectors: its parts by name, their mean without dev, and dev's scores.

    Args:
        ground: the vectors.
        problem: old queries and old vectors.
        trial, final: maps of documents, fitted without and with dev's chunks.
        seed: of folds, weights and order.
        progress: told what the ladder scored.
    """
    starts = {"mapped": (for_queries(ground.old, trial), for_queries(ground.old, final))}
    dim_old, dim_new = ground.old.shape[1], ground.new.shape[1]
    if dim_old == dim_new:
        starts["as they are"] = (np.eye(dim_new, dtype=np.float32),) * 2
    taught = {way: _Taught.of(ground, start, ground.old, seed, progress) for way, (_, start) in starts.items()}
    unseen = {way: taught[way].without_dev(start, ground.old) for way, (start, _) in starts.items()}
    if not len(problem.dev):
        return {"mapped": taught["mapped"]}, unseen["mapped"], {}
    among, asked = Candidates(problem, problem.dev, seed), ground.new_queries[problem.dev]
    ways = [list(taught), *([way] for way in taught)]  # the mean first: a part alone must clearly lead it
    scored = [among.score(_mean(unseen, way).apply(asked)) for way in ways]
    best = 0
    for at, scores in enumerate(scored):
        if leads(scores, scored[best], CLEARLY):
            best = at
    before = among.score(problem.queries[problem.dev])
    index = {"old": float(before.mean()), "bridge": float(scored[best].mean())}
    return {way: taught[way] for way in ways[best]}, _mean(unseen, ways[best]), index


def _words(ground: TwoSpaces, problem: Problem, unseen: Adapter, index: dict[str, float], seed: int) -> Worded | None:
    """Words beside the vectors that are served, at the weight that dev chooses; None where it gains nothing by them."""
    if not index:
        return None
    new, old = ground.new_queries[problem.dev], problem.queries[problem.dev]
    asked = unseen.apply(new) if _serves_new(index) else old
    texts = [ground.dataset.queries[key].text for key in trained_queries(ground.dataset)]
    found = words_of(ground.dataset, problem, texts, [HeldOut(problem.dev, asked)], seed)
    return found if found.gains else None


def _mean(adapters: dict[str, Adapter], which: list[str]) -> Adapter:
    return average([adapters[way] for way in which])


@dataclass(frozen=True)
class _Taught:
    """What judged queries add to a linear map of the new model's queries, by the adapter ladder.

    Attributes:
        ground: the vectors.
        start: (d, d_new) the map before; scaled so that mapped queries have length 1 in the mean, as rates expect.
        climbed: the ladder over the mapped queries; its adapter is the identity where nothing was gained.
        seed: of folds, weights and order.
    """

    ground: TwoSpaces
    start: NDArray[np.float32]
    climbed: Climbed
    seed: int

    @classmethod
    def of(
        cls, ground: TwoSpaces, start: NDArray[np.float32], documents: Vectors, seed: int, progress: Progress
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


def _linear(kind: Kind, matrix: NDArray[np.float32]) -> Adapter:
    return Adapter(kind, matrix.shape[1], matrix.shape[0], skip=matrix)


class _Dev:
    """Dev queries among the sampled chunks, which both models have embedded."""

    def __init__(self, ground: TwoSpaces, positives: Positives) -> None:
        self.ground = ground
        own = positives.take(ground.dev)
        self.positives = replace(own, rows=np.searchsorted(ground.sample, own.rows))
        self.old_queries, self.new_queries = ground.old_queries[ground.dev], ground.new_queries[ground.dev]
        self.old = ground.old[ground.sample]

    def of(self, queries: Vectors, documents: Vectors) -> NDArray[np.float64]:
        """NDCG@10 of each dev query."""
        return ndcg_among(queries, documents, self.positives)

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
        cosines = (unit(self.old[held] @ trial.T) * self.ground.new[held]).sum(axis=1)
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
