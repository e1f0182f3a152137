"""The bridge: after tuning, queries of the new model search the index that still holds the old vectors.

Two maps are learnt from a sample of chunks and from queries that both models embed: new → old for queries, old → new
for vectors that are moved without the model. A ridge regression pulled to the identity (or, between spaces of different
dimension, to nothing) brings the spaces together. Its transpose brings queries to the old documents, because
q · (W d) = (Wᵀ q) · d. From there the adapter ladder goes on with the judged queries over the old vectors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune import __version__
from vectune.adapters import Adapter, StoredAdapter, save_adapter
from vectune.dataset import RetrievalDataset
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import DatasetError
from vectune.progress import SILENT, Progress
from vectune.runs import Json, check_output, write_json, writing
from vectune.splits import with_dev
from vectune.training.adapter import FEW, Climbed, Starts, fit_all, solve
from vectune.training.problem import Positives, Problem, judged_rows, ndcg_at_10, problem_of, trained_queries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors
    from vectune.training.problem import Rows

PULLS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LEAST = 50  # chunks of a sample, where the corpus has them
WEAK = 10  # chunks and queries that are named as weak


@dataclass(frozen=True)
class BridgeOptions:
    """What a bridge is learnt from.

    Attributes:
        sample: share of the corpus that both models embed.
        most: chunks of the sample at most.
        old_vectors: stored vectors beside the sample that judged queries are searched among, at most.
        labels: go on from the regression with the judged queries, by the adapter ladder.
    """

    sample: float = 0.05
    most: int = 20_000
    old_vectors: int = 20_000
    labels: bool = True


DEFAULTS = BridgeOptions()


@dataclass(frozen=True)
class Bridge:
    """The two maps and what dev says of them.

    Attributes:
        query: new queries → old space.
        document: stored old vectors → new space.
        dev: nDCG@10 of the dev queries among the sampled chunks: ``old``, ``new`` (everything embedded again),
            ``bridge`` (new queries on old vectors), ``moved`` (new queries on moved vectors).
        chosen: pull of the regression and the ladder's settings.
        weak: chunks that are mapped worst and dev queries that lose most, by id.
        sampled: how many chunks both models embedded.
    """

    query: Adapter
    document: Adapter
    dev: dict[str, float]
    chosen: Json
    weak: Json
    sampled: int
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

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
    found = replace(learn(ground, seed, options, progress), seconds=time.perf_counter() - started)
    for note in found.notes:
        progress.say(note)
    with writing(out) as beside:
        beside.mkdir(parents=True)
        card = {"document_base": old.name, "document_base_fingerprint": old.fingerprint}
        save_adapter(beside, StoredAdapter(found.query, found.document, new.name, new.fingerprint, card))
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
        "dev": found.dev,
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
        old_queries, new_queries: of ``trained_queries(dataset)``.
        dev: rows of the dev queries whose positives are all sampled.
    """

    dataset: RetrievalDataset
    old: Vectors
    sample: Rows
    new: Vectors
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
        asked = list(dict.fromkeys(key for grades in dataset.qrels.get("dev", {}).values() for key in grades))
        asked = asked[: size // 3]  # dev needs its positives; the rest of the sample is drawn from everything
        drawn = [key for key in rng.permutation(ids).tolist() if key not in set(asked)]
        sampled = {*asked, *drawn[: size - len(asked)]}
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
        return cls(
            small,
            old.embed_documents(contents),
            sample,
            new.embed_documents([contents[row] for row in sample]),
            old.embed_queries(texts),
            new.embed_queries(texts),
            np.array(dev, dtype=np.int64),
        )


def _cut_down(dataset: RetrievalDataset, kept: set[str]) -> RetrievalDataset:
    """The dataset with these chunks alone; test judgments stay only to keep their chunks out of training."""
    test = {
        query: {key: grade for key, grade in grades.items() if key in kept}
        for query, grades in dataset.qrels.get("test", {}).items()
    }
    qrels = {**dataset.qrels, "test": {query: grades for query, grades in test.items() if grades}}
    return replace(dataset, corpus={key: chunk for key, chunk in dataset.corpus.items() if key in kept}, qrels=qrels)


# Learning


def learn(ground: _Ground, seed: int, options: BridgeOptions, progress: Progress) -> Bridge:
    """Both maps; every choice is made with dev's chunks and queries left out of the fit, then all is fitted again."""
    positives = Positives.of(
        judged_rows(trained_queries(ground.dataset), {k: r for r, k in enumerate(ground.dataset.corpus)})
    )
    held = (
        np.isin(ground.sample, positives.take(ground.dev).rows)
        if len(ground.dev)
        else np.zeros(len(ground.sample), bool)
    )
    if not held.any() or held.all():
        held = np.arange(len(ground.sample)) % 5 == 0
    pull, fidelity = _choose_pull(ground, ~held)
    trial = _regression(ground, ~held, pull)
    board = _Dev(ground, positives)
    ladder = _climb(ground, trial, seed, progress) if options.labels else None
    maps: dict[str, Adapter] = {"regression": _linear("ridge", trial.T)}
    if ladder is not None:
        maps["ladder"] = _after(ladder.unseen, trial.T)
    notes, chosen_query, chosen_document = _pick(board, maps, trial, ground)
    final = _regression(ground, np.ones(len(held), bool), pull)
    finals = {"regression": _linear("ridge", final.T)}
    if ladder is not None:
        finals["ladder"] = _after(ladder.climbed.adapter, final.T)
    same = ground.old.shape[1] == ground.new.shape[1]
    document_map = (
        _linear("ridge", final) if chosen_document == "regression" else _linear("linear", finals["ladder"].matrix().T)
    )
    dev = board.scores(maps.get(chosen_query), _turned(maps, chosen_document, trial))
    chosen: Json = {"pull": pull, "fidelity": round(fidelity, 4), "queries": chosen_query, "documents": chosen_document}
    if ladder is not None and "ladder" in (chosen_query, chosen_document):
        chosen["ladder"] = [setting.describe() for setting in ladder.climbed.settings]
    if len(ground.dev) < FEW:
        notes.append(
            f"only {len(ground.dev)} dev queries have their chunks in the sample: the share kept is a rough guess."
        )
    if not same:
        notes.append("the two models have different dimensions; quality across makes of models has not been measured.")
    weak = board.weak(maps.get(chosen_query), trial, held)
    return Bridge(finals[chosen_query], document_map, dev, chosen, weak, len(ground.sample), tuple(notes))


def _regression(ground: _Ground, kept: NDArray[np.bool_], pull: float) -> NDArray[np.float32]:
    """W (d_new, d_old) with W·old ≈ new, over sampled chunks and over queries; pulled to the identity if it exists."""
    x = np.concatenate([ground.old[ground.sample][kept], ground.old_queries])
    y = np.concatenate([ground.new[kept], ground.new_queries])
    weight = np.ones(len(x), dtype=np.float32)
    chunks = int(kept.sum())  # as many queries as there are must not outweigh the chunks they are to find
    weight[chunks:] = min(1.0, chunks / max(len(x) - chunks, 1))
    root = np.sqrt(weight)[:, None]
    x, y = x * root, y * root
    dim_old, dim_new = x.shape[1], y.shape[1]
    prior = (
        np.eye(dim_new, dim_old, dtype=np.float32) if dim_old == dim_new else np.zeros((dim_new, dim_old), np.float32)
    )
    gram = x.T @ x
    level = pull * float(np.trace(gram)) / dim_old
    change = np.linalg.solve(gram + level * np.eye(dim_old, dtype=np.float32), x.T @ (y - x @ prior.T))
    return np.ascontiguousarray(prior + change.T, dtype=np.float32)


def _choose_pull(ground: _Ground, kept: NDArray[np.bool_]) -> tuple[float, float]:
    """The pull whose map gives new queries the most faithful scores on chunks it did not see, and that correlation."""
    truth = ground.new_queries @ ground.new[~kept].T
    found = []
    for pull in PULLS:
        moved = _unit(ground.old[ground.sample][~kept] @ _regression(ground, kept, pull).T)
        found.append((_correlation(ground.new_queries @ moved.T, truth), pull))
    fidelity, pull = max(found)
    return pull, fidelity


def _correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Mean over queries of the correlation of two score lists."""
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (left, right))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())


def _climb(ground: _Ground, trial: NDArray[np.float32], seed: int, progress: Progress) -> _Ladder | None:
    """The ladder over old vectors for new queries that the regression brought to the old space."""
    queries = _unit(ground.new_queries @ trial)
    if len(queries) < FEW or not ground.dataset.qrels.get("dev"):
        return None
    whole = problem_of(ground.dataset, queries, ground.old, 2, seed)
    # only dev is held out: the new model has seen the other queries, so they cannot judge
    problem: Problem = replace(whole, folds=whole.folds[:1])
    climbed = solve(problem, seed, progress=progress)
    fold = problem.folds[0]
    unseen = fit_all(problem, climbed.settings, seed, Starts(problem, seed), (fold.train, fold.pool))
    return _Ladder(climbed, unseen)


@dataclass(frozen=True)
class _Ladder:
    """The ladder's outcome, and the same adapter fitted without dev."""

    climbed: Climbed
    unseen: Adapter


def _after(adapter: Adapter, first: NDArray[np.float32]) -> Adapter:
    """``adapter`` applied to ``first · x``, as one adapter over x."""
    skip = first if adapter.skip is None else adapter.skip @ first
    down = None if adapter.down is None else np.ascontiguousarray(adapter.down @ first)
    return replace(adapter, dim_in=first.shape[1], skip=np.ascontiguousarray(skip, dtype=np.float32), down=down)


def _linear(kind: str, matrix: NDArray[np.float32]) -> Adapter:
    return Adapter(kind, matrix.shape[1], matrix.shape[0], skip=np.ascontiguousarray(matrix))  # type: ignore[arg-type]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return found


def _turned(maps: dict[str, Adapter], which: str, trial: NDArray[np.float32]) -> Adapter:
    """The map of stored vectors that belongs to a map of queries: its transpose."""
    return _linear("ridge", trial) if which == "regression" else _linear("linear", maps["ladder"].matrix().T)


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

    def scores(self, query: Adapter | None, document: Adapter) -> dict[str, float]:
        """All four means; empty without dev queries."""
        if not len(self.positives):
            return {}
        return {
            "old": float(self.query_score(None).mean()),
            "new": float(self.of(self.new_queries, self.ground.new).mean()),
            "bridge": float(self.query_score(query).mean()),
            "moved": float(self.of(self.new_queries, document.apply(self.old)).mean()),
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


def _pick(
    board: _Dev, maps: dict[str, Adapter], trial: NDArray[np.float32], ground: _Ground
) -> tuple[list[str], str, str]:
    """Which map serves queries and which moves documents, by dev; and what must be said about it."""
    if not len(board.positives):
        return (
            ["no dev query has its chunks in the sample: the regression is taken unseen."],
            "regression",
            "regression",
        )
    values = {name: float(board.query_score(adapter).mean()) for name, adapter in maps.items()}
    query = max(values, key=lambda name: values[name])
    turned = {
        name: float(board.of(board.new_queries, _turned(maps, name, trial).apply(board.old)).mean())
        for name, adapter in maps.items()
        if adapter.is_linear
    }
    document = max(turned, key=lambda name: turned[name])
    notes = []
    old = float(board.query_score(None).mean())
    for what, value in (("new queries on old vectors", values[query]), ("moved vectors", turned[document])):
        if value < old:
            notes.append(
                f"{what} score {value:.3f} on dev, below the old model's {old:.3f}: "
                "keep the old model until all is embedded again."
            )
    return notes, query, document
