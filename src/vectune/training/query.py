"""The query encoder alone: every weight trains, but only on queries, against document vectors that stay as they are.

Nothing is embedded again, and since only short texts are encoded a run takes seconds. The encoder starts where the
adapter ladder ended: what it puts out goes through the ladder's adapter, and it is trained through it. Where the index
is to be kept, the queries' words come last (``words.py``).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vectune.adapters import Adapter, StoredAdapter
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import name_to_open
from vectune.embedders.machine import fast_bf16
from vectune.embedders.options import Precision
from vectune.errors import DatasetError, ModelError, TrainingError
from vectune.progress import SILENT, Progress
from vectune.runs import check_output
from vectune.splits import with_dev
from vectune.training.adapter import (
    FEW,
    Candidates,
    Climbed,
    LadderOptions,
    Starts,
    climb,
    embed_dataset,
    fit_all,
    leads,
    notes_on,
)
from vectune.training.choice import mixture
from vectune.training.encoder import Encoder, Texts
from vectune.training.folders import local_model, write_adapter, write_query_encoder
from vectune.training.ladder import PoolSoftmax
from vectune.training.opening import add_lora, dropout_at
from vectune.training.options import TuneOptions
from vectune.training.problem import Fold, Problem, problem_of, spread, trained_queries
from vectune.training.result import TuneResult
from vectune.training.words import HeldOut, Worded, words_of, write_words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from vectune.protocols import Embedder
    from vectune.training.problem import Rows

    Scores = NDArray[np.float64]
    Weights = dict[str, torch.Tensor]

SHARES = (0.75, 0.5, 0.25)  # of the tuned weights in mixtures with the base's, tried on the last state
LEAST_STEPS, MOST_STEPS = 20, 600  # of a training on all queries
FOLDS = 2  # of the ladder's folds: a training on each, and then the one that is kept
ELSEWHERE = " vectune opens this artifact; its folder vectors/, without the words, opens elsewhere too."
HELD = 250  # held-out queries of a fold that are encoded at each look, at most


@dataclass(frozen=True)
class QueryOptions:
    """How the query encoder is tuned.

    Attributes:
        epochs: passes over the train queries that are planned.
        batch: queries in a step.
        rate: peak learning rate of AdamW.
        temperature: cosines are divided by it before the softmax.
        warmup: share of the steps over which the rate rises.
        seconds: the plan is cut so that all trainings together take about this long; 0 takes the time it takes.
        checks: looks at held-out queries in a training.
        lora_rank: of low-rank additions, which are trained instead of every weight at ten times the rate; None: every
            weight.
        precision: arithmetic of the training; ``auto`` takes bf16 where this machine is measured to be faster at it.
    """

    epochs: float = 6.0
    batch: int = 64
    rate: float = 1e-4
    temperature: float = 0.05
    warmup: float = 0.1
    seconds: float = 25.0
    checks: int = 4
    lora_rank: int | None = None
    precision: Precision = "auto"


DEFAULTS = QueryOptions()


@dataclass(frozen=True)
class Point:
    """Where a training ends: after which share of its steps, at which share in the mixture with the base."""

    done: float
    share: float = 1.0


UNTRAINED = Point(0.0, 0.0)


@dataclass(frozen=True)
class Trials:
    """What held-out queries say of trainings that did not see them.

    Attributes:
        point: where training ends best.
        scores: nDCG@10 of each held-out query there, dev's first.
        base: the same for the base; ``start``: for the base's encoder with the adapter.
        dev: how many of them are dev's.
        held_out: the held-out queries and their vectors at that point.
    """

    point: Point
    scores: Scores
    base: Scores
    start: Scores
    dev: int
    held_out: list[HeldOut]

    @property
    def better(self) -> bool:
        """True where training the encoder gained over the adapter alone; clearly, as the best of several points."""
        return leads(self.scores, self.start, 1.0)

    @property
    def gains(self) -> bool:
        """True where encoder and adapter together beat the base, on dev as well."""
        lead = self.scores - self.base
        return float(lead.mean()) > 0 and float(lead[: self.dev].mean()) >= 0


@dataclass(frozen=True)
class Encoded:
    """A tuned query encoder.

    Attributes:
        model: the tuned model.
        adapter: what its vectors pass through; the identity where nothing.
        trials: what held-out queries say of it.
        chosen: where the training ended, the adapter's settings.
    """

    model: SentenceTransformer
    adapter: Adapter
    trials: Trials
    chosen: dict[str, object]


def tune_query_encoder(
    dataset: RetrievalDataset,
    out: Path,
    embedder: Embedder,
    seed: int = 0,
    options: QueryOptions = DEFAULTS,
    progress: Progress = SILENT,
) -> TuneResult:
    """Tune the query encoder and write it as a Router: queries to the tuned model, documents to the base.

    Args:
        dataset: with a train split; dev is cut from it by document where it is missing.
        out: the artifact folder.
        embedder: a local model, best with its cache around it.
        seed: of the order of queries.
        options: see ``QueryOptions``.
        progress: told steps and looks at dev.

    Raises:
        DatasetError: too few pairs.
        ModelError: the base is not a local sentence-transformers model.
        OutputError: ``out`` holds something else.
        TrainingError: the loss is not finite.
    """
    return _tune(dataset, out, embedder, seed, options, progress, ladder=False)


def tune_keeping_index(
    dataset: RetrievalDataset,
    out: Path,
    embedder: Embedder,
    seed: int = 0,
    options: QueryOptions = DEFAULTS,
    progress: Progress = SILENT,
) -> TuneResult:
    """Climb identity → adapter → query encoder → words and keep what dev asks for; no document is embedded again.

    Arguments and errors as for ``tune_query_encoder``; a base that is not local climbs to the adapter only.
    """
    return _tune(dataset, out, embedder, seed, options, progress, ladder=True)


def _tune(
    dataset: RetrievalDataset,
    out: Path,
    embedder: Embedder,
    seed: int,
    options: QueryOptions,
    progress: Progress,
    ladder: bool,
) -> TuneResult:
    check_output(out, "vectune.json")
    started = time.perf_counter()
    model = local_model(embedder)
    if model is None and not ladder:
        raise ModelError(
            f"--method query trains a local model's weights; '{embedder.name}' is not one.",
            "Use --method adapter, which works over any embedder.",
        )
    dataset = _with_dev(dataset, seed, needed=not ladder)
    queries, documents = embed_dataset(dataset, embedder)
    given = time.perf_counter()
    climbed = climb(dataset, queries, documents, seed, LadderOptions(), progress)
    encoded = worded = None
    notes = notes_on(dataset, queries, climbed)
    if dataset.qrels.get("dev") and len(queries) >= FEW:
        problem = problem_of(dataset, queries, documents, LadderOptions().folds, seed)
        texts = [dataset.queries[key].text for key in trained_queries(dataset)]
        if model is not None:
            encoded = encode_queries(problem, texts, model, climbed, seed, options, progress, must_lead=ladder)
            if encoded is None:
                notes.append("tuning the query encoder added nothing on dev: the adapter alone is the result.")
        if ladder:
            vectors = encoded.trials.held_out if encoded else _held_out(problem, climbed, seed)
            worded = words_of(dataset, problem, texts, vectors, seed)
            notes.append(worded.note + (ELSEWHERE if worded.gains and model is not None else ""))
    outcome = _Outcome(climbed, encoded, worded if worded is not None and worded.gains else None)
    seconds = {"training_seconds": round(time.perf_counter() - given, 2)}
    result = TuneResult(
        out,
        outcome.method,
        name_to_open(embedder),
        embedder.fingerprint,
        outcome.dev_before,
        outcome.dev_after,
        {**outcome.chosen, **seconds},
        time.perf_counter() - started,
        tuple(notes),
    )
    outcome.write(out, embedder, result)
    return result


def _held(fold: Fold) -> Rows:
    """The held-out queries of a fold that are looked at."""
    return fold.held[spread(len(fold.held), HELD)]


def _held_out(problem: Problem, climbed: Climbed, seed: int) -> list[HeldOut]:
    """Held-out queries and their vectors by adapters that did not see them."""
    starts = Starts(problem, seed)
    found = []
    for fold in problem.folds[:FOLDS]:
        rows = _held(fold)
        adapter = fit_all(problem, climbed.settings, seed, starts, (fold.train, fold.pool))
        found.append(HeldOut(rows, adapter.apply(problem.queries[rows])))
    return found


@dataclass(frozen=True)
class _Outcome:
    """What a climb ended with, and how it is told and written."""

    climbed: Climbed
    encoded: Encoded | None
    worded: Worded | None

    @property
    def method(self) -> str:
        return "words" if self.worded else "query" if self.encoded else "adapter"

    @property
    def dev_before(self) -> float:
        if self.worded:
            return float(self.worded.base[: self.worded.dev].mean())
        trials = self.encoded and self.encoded.trials
        return float(trials.base[: trials.dev].mean()) if trials else self.climbed.dev_before

    @property
    def dev_after(self) -> float:
        if self.worded:
            return float(self.worded.after[: self.worded.dev].mean())
        trials = self.encoded and self.encoded.trials
        return float(trials.scores[: trials.dev].mean()) if trials else self.climbed.dev_after

    @property
    def chosen(self) -> dict[str, object]:
        settings: dict[str, object] = {"settings": [setting.describe() for setting in self.climbed.settings]}
        found = self.encoded.chosen if self.encoded else settings
        return {**found, "added_words": self.worded.describe()} if self.worded else found

    def write(self, out: Path, embedder: Embedder, result: TuneResult) -> None:
        """Write the artifact folder; what makes the vectors is a folder inside where words are added to them."""
        if self.worded:
            write_words(out, self.worded.map, lambda inner: self._write(inner, embedder, result), result)
        else:
            self._write(out, embedder, result)

    def _write(self, out: Path, embedder: Embedder, result: TuneResult) -> None:
        adapter = self.encoded.adapter if self.encoded else self.climbed.adapter
        stored = StoredAdapter(adapter, None, result.model, embedder.fingerprint)
        if self.encoded:
            write_query_encoder(out, self.encoded.model, stored, embedder, result)
        else:
            write_adapter(out, stored, embedder, result)


def _with_dev(dataset: RetrievalDataset, seed: int, needed: bool) -> RetrievalDataset:
    try:
        dataset = with_dev(dataset, seed)
    except DatasetError:
        if needed:
            raise
        return dataset
    if needed and len(trained_queries(dataset)) < FEW:
        raise DatasetError(
            f"'{dataset.name}' has {len(trained_queries(dataset))} train queries; an encoder needs at least {FEW}.",
            "Use --method adapter, which fits closed forms to few pairs.",
        )
    return dataset


def encode_queries(
    problem: Problem,
    texts: list[str],
    model: SentenceTransformer,
    climbed: Climbed,
    seed: int = 0,
    options: QueryOptions = DEFAULTS,
    progress: Progress = SILENT,
    must_lead: bool = False,
) -> Encoded | None:
    """Train a copy of the model on folds to see where to end, then on all queries up to there.

    Args:
        problem: with at least one fold; the first one's held-out queries are dev.
        texts: of ``problem.queries``.
        model: the base; stays as it is.
        climbed: the ladder's outcome; its settings are fitted to each training's queries to start from.
        seed: of the order.
        options: see ``QueryOptions``.
        progress: told steps and held-out scores.
        must_lead: whether it must be better than the adapter alone.

    Returns:
        None where it gains nothing: no better than the base, or than the adapter where it must be. Training ends as
        soon as that is seen, on dev or on all folds.
    """
    torch.manual_seed(seed)
    tuning = _Tuning(problem, texts, copy.deepcopy(model), climbed, seed, options, progress)
    looks: list[dict[Point, _Look]] = []
    base: list[Scores] = []
    for fold in problem.folds[:FOLDS]:
        looks.append(tuning.trial(fold))
        held = _held(fold)
        base.append(Candidates(problem, held, seed).score(problem.queries[held]))
        trials = _trials(looks, base)
        if must_lead and float((trials.scores - trials.start).mean()) <= 0:
            return None
    if not (trials.gains and (trials.better or not must_lead)):
        return None
    adapter = tuning.keep(trials.point)
    chosen = {
        "rung": "query encoder" if options.lora_rank is None else f"query encoder, rank {options.lora_rank}",
        "adapter": [setting.describe() for setting in climbed.settings],
        "steps": round(trials.point.done * tuning.steps(len(problem.queries))),
        "share": trials.point.share,
    }
    return Encoded(tuning.finished(), adapter, trials, chosen)


def _trials(looks: list[dict[Point, _Look]], base: list[Scores]) -> Trials:
    """What the folds that were trained on say together; ``base`` holds the base's scores of each."""
    pooled = {point: np.concatenate([look[point].scores for look in looks]) for point in looks[0]}
    best = max((point for point in pooled if point != UNTRAINED), key=lambda point: float(pooled[point].mean()))
    held_out = [look[best].held_out for look in looks]
    return Trials(best, pooled[best], np.concatenate(base), pooled[UNTRAINED], len(base[0]), held_out)


@dataclass(frozen=True)
class _Look:
    """Held-out queries at one point of a training: their vectors, and nDCG@10 of each."""

    held_out: HeldOut
    scores: Scores


class _Tuning:
    """Trainings of one query encoder, each from the base."""

    def __init__(
        self,
        problem: Problem,
        texts: list[str],
        model: SentenceTransformer,
        climbed: Climbed,
        seed: int,
        options: QueryOptions,
        progress: Progress,
    ) -> None:
        self.problem, self.model, self.settings, self.seed = problem, model, climbed.settings, seed
        self.options, self.progress, self.epochs = options, progress, options.epochs
        self.off = ExitStack()
        self.off.enter_context(dropout_at(model, 0.0))
        self.lora = None if options.lora_rank is None else add_lora(model, TuneOptions(lora_rank=options.lora_rank))
        self.rate = options.rate if self.lora is None else 10 * options.rate  # the additions start at nothing
        half = options.precision == "bf16" or (options.precision == "auto" and fast_bf16(model.device.type))
        self.encoder = Encoder(model, torch.bfloat16 if half else torch.float32)
        self.texts: Texts = self.encoder.tokenize(texts, "query")
        self.trained: Weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.base = self._weights()
        self.starts = Starts(problem, seed)
        self.timed = not options.seconds

    def trial(self, fold: Fold) -> dict[Point, _Look]:
        """Train on a fold; the held-out queries at every point, ``UNTRAINED`` among them."""
        held = _held(fold)
        candidates, adapter = Candidates(self.problem, held, self.seed), self._adapter(fold.train, fold.pool)

        def look() -> _Look:
            vectors = adapter.apply(self.encoder.embed(self.texts, held))
            return _Look(HeldOut(held, vectors), candidates.score(vectors))

        self._put(self.base)
        found = {UNTRAINED: look()}
        for done in self._train(fold.train, fold.pool, adapter):
            found[Point(done)] = look()
        tuned = self._weights()
        for share in SHARES:
            self._put(self._mixed(tuned, share))
            found[Point(1.0, share)] = look()
        for point, at in found.items():
            about = {"done": point.done, "share": point.share}
            self.progress.event("dev", **about, value=round(float(at.scores.mean()), 5))
        return found

    def keep(self, point: Point) -> Adapter:
        """Train on all queries up to the point; what the model's vectors then pass through."""
        rows, pool = np.arange(len(self.problem.queries)), self.problem.pool
        adapter = self._adapter(rows, pool)
        self._put(self.base)
        for done in self._train(rows, pool, adapter):
            if done >= point.done:
                break
        self._put(self._mixed(self._weights(), point.share))
        return adapter

    def _adapter(self, rows: Rows, pool: Rows) -> Adapter:
        return fit_all(self.problem, self.settings, self.seed, self.starts, (rows, pool))

    def _train(self, rows: Rows, pool: Rows, adapter: Adapter) -> Iterator[float]:
        """Train on these queries; gives the share of the steps that is done at each check, 1 at the end."""
        options, through, rng = self.options, as_torch(adapter), np.random.default_rng(self.seed)
        softmax = PoolSoftmax(self.problem.documents, pool, self.problem.positives.take(rows), rng)
        fused = self.model.device.type in ("cpu", "cuda")
        adam = torch.optim.AdamW(self.trained.values(), lr=self.rate, weight_decay=0.01, fused=fused)
        order = _Order(len(rows), options.batch, rng)
        step, looks, started, steps = 0, 0, time.perf_counter(), self.steps(len(rows))
        with self.progress.task("query encoder", total=steps, unit="steps") as task:
            while step < steps:
                batch = next(order)
                for group in adam.param_groups:
                    group["lr"] = self.rate * self._rise_and_fall(step, steps)
                value = self._step(adam, softmax, rows, batch, through)
                step += 1
                task.advance(1, f"loss {value:.3f}")
                if step == 3 and not self.timed:  # the first steps are the slowest: the plan is on the safe side
                    self._cut_plan((time.perf_counter() - started) / 3)
                    steps = self.steps(len(rows))
                if (look := step * options.checks // steps) > looks:
                    looks = look
                    yield look / options.checks

    def steps(self, count: int) -> int:
        """Steps of a training on so many queries: the same number of passes over them for folds and the whole."""
        whole = len(self.problem.queries)
        planned = float(np.clip(self.epochs * whole / self.options.batch, LEAST_STEPS, MOST_STEPS))
        return max(2 * self.options.checks, math.ceil(planned * count / whole))

    def _cut_plan(self, each: float) -> None:
        """Fewer epochs where a step takes so long that all trainings together would outlast their time."""
        whole, folds = len(self.problem.queries), self.problem.folds[:FOLDS]
        passes = (whole + sum(len(fold.train) for fold in folds)) / whole
        steps = 0.8 * self.options.seconds / each / passes  # looks take the rest
        self.epochs = min(self.epochs, steps * self.options.batch / whole)
        self.timed = True

    def _rise_and_fall(self, step: int, steps: int) -> float:
        rise = max(1, round(self.options.warmup * steps))
        return (step + 1) / rise if step < rise else max(0.05, (steps - step) / max(1, steps - rise))

    def _step(
        self,
        adam: torch.optim.Optimizer,
        softmax: PoolSoftmax,
        rows: Rows,
        batch: Rows,
        through: Callable[[torch.Tensor], torch.Tensor],
    ) -> float:
        self.model.train()
        vectors = through(self.encoder.vectors(self.texts, rows[batch]).cpu())
        loss = softmax.loss(F.normalize(vectors, dim=1), batch, self.options.temperature)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value}.", "Lower the rate.")
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        adam.step()
        return value

    def _weights(self) -> Weights:
        return {name: p.detach().clone() for name, p in self.trained.items()}

    def _mixed(self, tuned: Weights, share: float) -> Weights:
        """Weights between the base's and the tuned ones: often better than either (arXiv 2109.01903)."""
        return mixture(self.base, tuned, share)

    def _put(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(weights[name])

    def finished(self) -> SentenceTransformer:
        """The model, in eval mode, with the dropout it came with, and additions added to its weights."""
        if self.lora is not None:
            self.lora.merge_and_unload()
        self.off.close()
        return self.model.eval()


def as_torch(adapter: Adapter) -> Callable[[torch.Tensor], torch.Tensor]:
    """The adapter, without the scaling to unit norm, with gradients for what goes in."""
    parts = {name: torch.from_numpy(tensor) for name, tensor in adapter.tensors().items()}
    if adapter.activation not in ("none", "relu"):
        raise ValueError(f"the ladder makes no adapter with the activation '{adapter.activation}'.")

    def through(x: torch.Tensor) -> torch.Tensor:
        y = x @ parts["skip"].T if "skip" in parts else x
        y = y + parts["bias"] if "bias" in parts else y
        if "down" not in parts:
            return y
        hidden = F.linear(x, parts["down"], parts.get("down_bias"))
        return y + (F.relu(hidden) if adapter.activation == "relu" else hidden) @ parts["up"].T

    return through


class _Order:
    """Batches of rows for ever, each query equally often."""

    def __init__(self, count: int, batch: int, rng: np.random.Generator) -> None:
        self.count, self.batch, self.rng = count, batch, rng
        self.left: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __next__(self) -> NDArray[np.int64]:
        if not len(self.left):
            self.left = self.rng.permutation(self.count)
        rows, self.left = self.left[: self.batch], self.left[self.batch :]
        return rows
