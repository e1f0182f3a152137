"""The adapter ladder: query-side adapters over document vectors that stay as they are.

Every rung is fitted on folds cut by document and scored on the queries it did not see, so that all pairs choose and not
just a small dev split. The highest rung whose gain is more than noise is fitted again on all pairs. Nothing that is
worse on held-out queries than the base is handed out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune.adapters import Adapter, StoredAdapter, identity
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import name_to_open
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import DatasetError
from vectune.progress import SILENT, Progress
from vectune.runs import check_output
from vectune.splits import with_dev
from vectune.training.ladder import (
    CLOSED,
    TRAINED,
    Change,
    Geometry,
    Rung,
    few_threads,
    mean_positives,
    procrustes,
    ridge,
    train,
)
from vectune.training.problem import Problem, ndcg_at_10, problem_of, spread, trained_queries
from vectune.training.result import TuneResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors
    from vectune.training.problem import Rows

    Scores = NDArray[np.float64]

FEW = 20  # with fewer pairs nothing is trained, only closed forms
STEPS = (5, 10, 20, 40, 80)
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5)
PULLS = (0.3, 1.0, 3.0, 10.0, 30.0)
POWERS = (0.0, 0.25, 0.5)
LARGEST_ROTATION = 1024  # dimensions; beyond, Procrustes' decomposition takes longer than all other rungs together
NOISE = 0.25  # standard errors by which a higher rung must lead; see ``leads``


@dataclass(frozen=True)
class LadderOptions:
    """How the ladder is climbed.

    Attributes:
        folds: parts the pairs are cut into, by document.
        held: held-out queries of a fold that are scored, at most.
        mixture: how many rungs whose held-out scores are alike are averaged; 1 takes the best alone.
        both_sides: try a map of stored vectors, too (``both_sides.py``); kept where it leads the query side alone.
    """

    folds: int = 3
    held: int = 400
    mixture: int = 2
    both_sides: bool = False


DEFAULTS = LadderOptions()


@dataclass(frozen=True)
class Setting:
    """One point of the ladder: what is fitted, from where, how far.

    Attributes:
        power: of the documents' whitening that it starts from; 0 starts from the identity.
        rung: None is the start alone.
        at: steps of training, or the pull of a closed form.
        strength: share of the change that is kept.
    """

    power: float
    rung: Rung | None = None
    at: float = 0.0
    strength: float = 1.0

    def describe(self) -> dict[str, object]:
        """For ``chosen`` in the result."""
        if self.rung is None:
            return {"rung": "whitening" if self.power else "identity", "whitening": self.power}
        at = {"steps": self.at} if self.rung.trained else {"pull": self.at}
        return {"rung": self.rung.name, "whitening": self.power, **at, "strength": self.strength}


@dataclass(frozen=True)
class Climbed:
    """What the ladder came to.

    Attributes:
        adapter: fitted on all pairs.
        settings: what it is made of; more than one are averaged.
        before, after: held-out nDCG@10 of base and result, over all folds.
        dev_before, dev_after: the same over the dev queries alone, scored by an adapter that did not see them.
    """

    adapter: Adapter
    settings: tuple[Setting, ...]
    before: float
    after: float
    dev_before: float
    dev_after: float


def tune_adapter(
    dataset: RetrievalDataset,
    out: Path,
    embedder: Embedder,
    seed: int = 0,
    options: LadderOptions = DEFAULTS,
    progress: Progress = SILENT,
) -> TuneResult:
    """Climb the ladder over an embedder and write the adapter's folder.

    Args:
        dataset: with a train split; dev is cut from it by document where it is missing.
        out: the artifact folder.
        embedder: the base; with its cache around it, each text is embedded once, ever.
        seed: of folds, weights and order.
        options: see ``LadderOptions``.
        progress: told what is chosen.

    Raises:
        DatasetError: no train split.
        OutputError: ``out`` cannot be written.
    """
    from vectune.training.both_sides import fit_both_sides
    from vectune.training.folders import write_adapter

    check_output(out, ARTIFACT_FILE)
    started = time.perf_counter()
    dataset, notes = _with_dev(dataset, seed)
    queries, documents = embed_dataset(dataset, embedder)
    trained_from = time.perf_counter()
    problem = _problem(dataset, queries, documents, seed, options)
    climbed = solve(problem, seed, options, progress)
    both = fit_both_sides(problem, climbed, seed, progress) if options.both_sides and problem.folds else None
    seconds = time.perf_counter() - trained_from
    notes += [*notes_on(dataset, queries, climbed), *([both.note] if both else [])]
    both = both if both and both.gains else None
    for note in notes:
        progress.say(note)
    chosen = {
        "settings": [both.describe()] if both else [setting.describe() for setting in climbed.settings],
        "held_out": {"before": round(climbed.before, 4), "after": round(both.after if both else climbed.after, 4)},
        "training_seconds": round(seconds, 2),
    }
    result = TuneResult(
        out,
        "adapter",
        name_to_open(embedder),
        embedder.fingerprint,
        climbed.dev_before,
        both.dev_after if both else climbed.dev_after,
        chosen,
        time.perf_counter() - started,
        tuple(notes),
    )
    query, document = (both.query, both.document) if both else (climbed.adapter, None)
    write_adapter(out, StoredAdapter(query, document, result.model, embedder.fingerprint), embedder, result)
    return result


def _with_dev(dataset: RetrievalDataset, seed: int) -> tuple[RetrievalDataset, list[str]]:
    """The dataset with a dev split, or without one where there are too few pairs to cut it."""
    if dataset.qrels.get("dev"):
        return dataset, []
    try:
        return with_dev(dataset, seed), []
    except DatasetError as error:
        return dataset, [str(error)]


def embed_dataset(dataset: RetrievalDataset, embedder: Embedder) -> tuple[Vectors, Vectors]:
    """Vectors of ``trained_queries(dataset)`` and of the corpus, in their order."""
    documents = embedder.embed_documents([chunk.content for chunk in dataset.corpus.values()])
    queries = embedder.embed_queries([dataset.queries[key].text for key in trained_queries(dataset)])
    return queries, documents


def notes_on(dataset: RetrievalDataset, queries: Vectors, climbed: Climbed) -> list[str]:
    """What a person should read about the outcome."""
    notes = []
    pairs = len(queries)
    if pairs < FEW:
        notes.append(f"only {pairs} queries to learn from (under {FEW}): only closed forms were tried.")
    if _alike(queries):
        notes.append(
            "all queries have the same vector: nothing can be learnt from them beyond the documents' geometry."
        )
    if climbed.settings == (Setting(0.0),):
        notes.append("no adapter beats the base on held-out queries: the base is the result.")
    if not dataset.qrels.get("test"):
        notes.append("the dataset has no test split: chunks of future test documents may have been negatives.")
    return notes


def _alike(queries: Vectors) -> bool:
    return len(queries) > 1 and float(np.abs(queries - queries[0]).max()) < 1e-4


# Climbing


def climb(
    dataset: RetrievalDataset,
    queries: Vectors,
    documents: Vectors,
    seed: int = 0,
    options: LadderOptions = DEFAULTS,
    progress: Progress = SILENT,
) -> Climbed:
    """Choose by held-out queries, then fit on all pairs.

    Args:
        dataset: with train, and dev where there is one.
        queries: (n, d) vectors of ``trained_queries(dataset)``.
        documents: (m, d) of the corpus; may be a memory map.
        seed: of folds, weights and order.
        options: see ``LadderOptions``.
        progress: told each rung's held-out score.
    """
    return solve(_problem(dataset, queries, documents, seed, options), seed, options, progress)


def _problem(
    dataset: RetrievalDataset, queries: Vectors, documents: Vectors, seed: int, options: LadderOptions
) -> Problem:
    """The arrays; without folds where pairs are few."""
    return problem_of(dataset, queries, documents, 0 if len(queries) < FEW else options.folds, seed)


def solve(problem: Problem, seed: int = 0, options: LadderOptions = DEFAULTS, progress: Progress = SILENT) -> Climbed:
    """``climb`` for arrays."""
    with few_threads(problem.pool, problem.dim):
        return _solve(problem, seed, options, progress) if problem.folds else _solve_few(problem, seed)


def _solve(problem: Problem, seed: int, options: LadderOptions, progress: Progress) -> Climbed:
    with progress.task("adapter ladder", unit="rungs") as task:
        board = HeldOut(problem, seed, options)
        start = board.start()
        for rung in (*CLOSED, *TRAINED) if not _alike(problem.queries) else ():
            if rung.kind == "procrustes" and problem.dim > LARGEST_ROTATION:
                continue
            board.score(start, rung)
            task.advance(1, rung.name)
    settings = board.choose()
    progress.event("ladder", scores=board.table())
    before, dev_before = board.held_out((Setting(0.0),))
    after, dev_after = board.held_out(settings)
    if dev_after < dev_before:  # a mixture, where each part alone is not worse
        settings = settings[:1]
        after, dev_after = board.held_out(settings)
    adapter = fit_all(problem, settings, seed, board.starts)
    return Climbed(adapter, settings, before, after, dev_before, dev_after)


def _solve_few(problem: Problem, seed: int) -> Climbed:
    """Too few pairs for folds: ridge, scored by leaving one query out at a time."""
    rows = np.arange(len(problem.queries))
    targets = mean_positives(problem, rows)
    documents = Candidates(problem, rows, seed)
    scored: dict[Setting, Scores] = {}
    starts = Starts(problem, seed)
    for power in POWERS:
        x = np.asarray(problem.queries @ starts[power].T, dtype=np.float32)
        scored[Setting(power)] = documents.score(x)
        if len(rows) <= 2 or _alike(problem.queries):
            continue
        without = [dict(ridge(np.delete(x, row, 0), np.delete(targets, row, 0), PULLS)) for row in rows]
        for pull in PULLS:
            changed = np.concatenate([without[row][pull].of(x[[row]]) for row in rows])
            for strength in STRENGTHS:
                moved: Vectors = (x + np.float32(strength) * changed).astype(np.float32)
                scored[Setting(power, Rung("ridge"), pull, strength)] = documents.score(moved)
    base = Setting(0.0)
    best = base
    for setting, values in scored.items():
        if leads(values, scored[best], 1.0):
            best = setting
    dev = problem.dev if len(problem.dev) else rows
    if scored[best][dev].mean() < scored[base][dev].mean():
        best = base
    return Climbed(
        fit_all(problem, (best,), seed, starts),
        (best,),
        *(float(scored[setting].mean()) for setting in (base, best)),
        *(float(scored[setting][dev].mean()) for setting in (base, best)),
    )


def leads(challenger: Scores, holder: Scores, noise: float = NOISE) -> bool:
    """True where the challenger's mean lead is over ``noise`` standard errors of the paired difference."""
    lead = challenger - holder
    return bool(float(lead.mean()) > max(noise * float(lead.std()) / len(lead) ** 0.5, 1e-4))


def gains_clearly(after: Scores, before: Scores, dev: int) -> bool:
    """True where ``after``, the best of several, leads clearly and is not behind on the first ``dev`` queries."""
    lead = after[:dev] - before[:dev]
    return leads(after, before, 1.0) and (not len(lead) or float(lead.mean()) >= 0)


class Candidates:
    """Held-out queries and the documents they are searched among."""

    def __init__(self, problem: Problem, held: Rows, seed: int) -> None:
        rows = problem.candidates(held, seed)
        self.vectors = np.asarray(problem.documents[rows], dtype=np.float32)
        own = problem.positives.take(held)
        self.positives = replace(own, rows=np.searchsorted(rows, own.rows))

    def score(self, x: Vectors) -> Scores:
        """NDCG@10 of each query; scale and norm of a query do not matter."""
        return ndcg_at_10(x @ self.vectors.T, self.positives)


class HeldOut:
    """Held-out scores of every setting that was tried: per query, all folds after each other."""

    def __init__(self, problem: Problem, seed: int, options: LadderOptions) -> None:
        self.problem, self.seed, self.options = problem, seed, options
        self.held = [fold.held[spread(len(fold.held), options.held)] for fold in problem.folds]
        self.among = [Candidates(problem, held, seed) for held in self.held]
        self.scores: dict[Setting, Scores] = {}
        self.starts = Starts(problem, seed)

    def start(self) -> float:
        """Score the starts, which learn from no query; gives the best one's power."""
        for power in POWERS:
            self._put(Setting(power), [self._start(power, held) for held in self.held])
        gentle = self.scores[Setting(0.25)]  # helped on all sets it was developed on, so the others must lead it
        others = [power for power in (0.0, 0.5) if leads(self.scores[Setting(power)], gentle, 1.0)]
        return max(others, key=lambda power: float(self.scores[Setting(power)].mean())) if others else 0.25

    def _start(self, power: float, rows: Rows) -> Vectors:
        return np.asarray(self.problem.queries[rows] @ self.starts[power].T, dtype=np.float32)

    def _put(self, setting: Setting, vectors: list[Vectors]) -> None:
        self.scores[setting] = np.concatenate([a.score(x) for a, x in zip(self.among, vectors, strict=True)])

    def score(self, power: float, rung: Rung) -> None:
        """Fit the rung on each fold's training part and score all its settings on the held-out part."""
        found: list[dict[Setting, Scores]] = []
        for index in range(len(self.among)):
            found.append(dict(self._fold(index, power, rung)))
            if index == 0 and all(self._hopeless(power, scores) for scores in found[0].values()):
                return
        for setting in found[0]:
            if all(setting in fold for fold in found):
                self.scores[setting] = np.concatenate([fold[setting] for fold in found])

    def _fold(self, index: int, power: float, rung: Rung) -> Iterator[tuple[Setting, Scores]]:
        fold, among = self.problem.folds[index], self.among[index]
        x = self._start(power, self.held[index])
        plain = x @ among.vectors.T
        best, since = 0.0, 0
        for at, change in fit(self.problem, fold.train, fold.pool, self.starts[power], rung, self.seed):
            moved = change.of(x) @ among.vectors.T  # scores are linear in the strength: one product serves all
            values = {s: ndcg_at_10(plain + np.float32(s) * moved, among.positives) for s in STRENGTHS}
            for strength, scores in values.items():
                yield Setting(power, rung, at, strength), scores
            top = max(float(scores.mean()) for scores in values.values())
            best, since = (top, 0) if top > best else (best, since + 1)
            if since == 2 and rung.trained:  # it only gets worse from here
                return

    def _hopeless(self, power: float, dev: Scores) -> bool:
        """True where scores of the first fold lie clearly behind the start's."""
        return leads(self.scores[Setting(power)][: len(dev)], dev, 0.5)

    def choose(self) -> tuple[Setting, ...]:
        """The simplest setting that is not behind by more than noise, averaged with others that score alike."""
        base = Setting(0.0)
        leaders = sorted(self._best_of_rungs(), key=lambda setting: -float(self.scores[setting].mean()))
        fit_to_serve = [
            setting
            for setting in leaders
            if leads(self.scores[setting], self.scores[base], 2 * NOISE) and self._dev(setting) >= self._dev(base)
        ]
        if not fit_to_serve:
            return (base,)
        first = fit_to_serve[0]
        alike = [
            setting
            for setting in fit_to_serve[1:]
            if setting.rung is not None and not leads(self.scores[first], self.scores[setting], 1.0)
        ]
        return (first, *alike[: self.options.mixture - 1]) if first.rung is not None else (first,)

    def _best_of_rungs(self) -> list[Setting]:
        best: dict[Rung | None, Setting] = {}
        for setting, scores in self.scores.items():
            held = best.get(setting.rung)
            if held is None or scores.mean() > self.scores[held].mean():
                best[setting.rung] = setting
        return list(best.values())

    def _dev(self, setting: Setting) -> float:
        return float(self.scores[setting][: len(self.held[0])].mean())

    def held_out(self, settings: tuple[Setting, ...]) -> tuple[float, float]:
        """Mean held-out score over all folds and over the first one, dev; mixtures are fitted again on each fold."""
        if len(settings) == 1:
            return float(self.scores[settings[0]].mean()), self._dev(settings[0])
        found = self.fitted(settings)
        return float(found.mean()), float(found[: len(self.held[0])].mean())

    def fitted(self, settings: tuple[Setting, ...]) -> Scores:
        """Held-out scores of these settings, fitted again on each fold: all folds after each other."""
        found = []
        for fold, held, among in zip(self.problem.folds, self.held, self.among, strict=True):
            mixed = fit_all(self.problem, settings, self.seed, self.starts, (fold.train, fold.pool))
            found.append(among.score(mixed.apply(self.problem.queries[held])))
        return np.concatenate(found)

    def table(self) -> list[dict[str, object]]:
        """Each rung's best setting and its held-out mean."""
        return [{**s.describe(), "nDCG@10": round(float(self.scores[s].mean()), 4)} for s in self._best_of_rungs()]


# Fitting


class Starts:
    """The matrices that rungs start from, by power; scaled to leave the queries' mean length at 1, as rates expect."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.geometry = Geometry.of(problem.documents, seed)
        self.queries = problem.queries
        self._made: dict[float, NDArray[np.float32]] = {}

    def __getitem__(self, power: float) -> NDArray[np.float32]:
        if power not in self._made:
            start = self.geometry.whitening(power)
            length = 1.0 if power == 0 else float(np.linalg.norm(self.queries @ start.T, axis=1).mean())
            self._made[power] = start / np.float32(max(length, 1e-6))
        return self._made[power]


def fit(
    problem: Problem, rows: Rows, pool: Rows, start: NDArray[np.float32], rung: Rung, seed: int, at: float | None = None
) -> Iterator[tuple[float, Change]]:
    """A rung's changes along its path: over steps, or over pulls; with ``at``, only the one at this place."""
    x = np.asarray(problem.queries[rows] @ start.T, dtype=np.float32)
    if rung.trained:
        steps = STEPS if at is None else (int(at),)
        yield from train(x, problem.positives.take(rows), problem.documents, pool, rung, seed, steps)
        return
    targets = mean_positives(problem, rows)
    if rung.kind == "procrustes":
        yield 0.0, procrustes(x, targets)
        return
    yield from ridge(x, targets, PULLS if at is None else (at,))


def fit_all(
    problem: Problem, settings: tuple[Setting, ...], seed: int, starts: Starts, part: tuple[Rows, Rows] | None = None
) -> Adapter:
    """The adapter of these settings; several are averaged into one.

    Args:
        problem: the arrays.
        settings: what to fit.
        seed: of weights and order.
        starts: of this problem.
        part: rows of queries and of the pool to fit on; None takes all.
    """
    rows, pool = part or (np.arange(len(problem.queries)), problem.pool)
    parts = []
    for setting in settings:
        start = starts[setting.power]
        if setting.rung is None:
            plain = (
                identity(problem.dim) if setting.power == 0 else Adapter("linear", problem.dim, problem.dim, skip=start)
            )
            parts.append(plain)
            continue
        *_, (_, change) = fit(problem, rows, pool, start, setting.rung, seed, setting.at)
        parts.append(change.adapter(setting.rung.kind, start, setting.strength))
    return average(parts)


def average(parts: list[Adapter]) -> Adapter:
    """The mean of adapters' outputs before unit norm as one adapter: matrices add up, hidden layers queue up."""
    if len(parts) == 1:
        return parts[0]
    share = np.float32(1 / len(parts))
    dim_in, dim_out = parts[0].dim_in, parts[0].dim_out
    skip = np.zeros((dim_out, dim_in), dtype=np.float32)
    hidden = []
    for part in parts:
        if part.is_linear:
            skip += share * part.matrix()
        else:
            skip += share * (np.eye(dim_out, dim_in, dtype=np.float32) if part.skip is None else part.skip)
            hidden.append(part)
    if not hidden:
        return Adapter("linear", dim_in, dim_out, skip=skip)
    if len({part.activation for part in hidden}) > 1:
        raise ValueError("adapters with different activations cannot be averaged into one.")
    stacked: Mapping[str, NDArray[np.float32]] = {
        "down": np.concatenate([part.down for part in hidden if part.down is not None]),
        "down_bias": np.concatenate(
            [
                np.zeros(len(part.down), np.float32) if part.down_bias is None else part.down_bias
                for part in hidden
                if part.down is not None
            ]
        ),
        "up": np.concatenate([share * part.up for part in hidden if part.up is not None], axis=1),
    }
    return Adapter("mlp", dim_in, dim_out, skip=skip, **stacked, activation=hidden[0].activation)
