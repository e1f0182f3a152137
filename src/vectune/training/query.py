"""The query encoder alone: every weight trains, but only on queries, against document vectors that stay as they are.

Nothing is embedded again, and since only short texts are encoded a run takes seconds. The encoder starts where the
adapter ladder ended: what it puts out goes through the ladder's adapter, and it is trained through it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vectune.adapters import Adapter, StoredAdapter
from vectune.dataset import RetrievalDataset
from vectune.embedders.machine import fast_bf16
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
from vectune.training.encoder import Encoder, Texts
from vectune.training.folders import local_model, write_adapter, write_query_encoder
from vectune.training.ladder import PoolSoftmax
from vectune.training.problem import Fold, Problem, problem_of, trained_queries
from vectune.training.result import TuneResult

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from vectune.protocols import Embedder, Vectors

    Scores = NDArray[np.float64]
    Weights = dict[str, torch.Tensor]

SHARES = (1.0, 0.75, 0.5, 0.25)  # of the tuned weights in a mixture with the base's
LEAST_STEPS, MOST_STEPS = 30, 600


@dataclass(frozen=True)
class QueryOptions:
    """How the query encoder is tuned.

    Attributes:
        epochs: passes over the train queries that are planned.
        batch: queries in a step.
        rate: peak learning rate of AdamW.
        temperature: cosines are divided by it before the softmax.
        warmup: share of the steps over which the rate rises.
        seconds: the plan is cut so that training takes about this long; 0 takes the time it takes.
        checks: looks at dev.
        patience: looks without a gain until it stops.
    """

    epochs: float = 10.0
    batch: int = 64
    rate: float = 1e-4
    temperature: float = 0.05
    warmup: float = 0.1
    seconds: float = 40.0
    checks: int = 10
    patience: int = 3


DEFAULTS = QueryOptions()


@dataclass(frozen=True)
class Encoded:
    """A tuned query encoder and what dev says of it.

    Attributes:
        model: the tuned model.
        adapter: what its vectors pass through; the identity where nothing.
        scores: nDCG@10 of each dev query.
        base: the same for the base; ``start``: for the base's encoder with the adapter.
        chosen: steps, share in the mixture with the base, the adapter's settings.
    """

    model: SentenceTransformer
    adapter: Adapter
    scores: Scores
    base: Scores
    start: Scores
    chosen: dict[str, object]

    @property
    def better(self) -> bool:
        """True where training the encoder gained over the adapter alone."""
        return leads(self.scores, self.start)

    @property
    def gains(self) -> bool:
        """True where encoder and adapter together beat the base."""
        return float(self.scores.mean()) > float(self.base.mean())


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
    """Climb identity → adapter → query encoder and keep what dev asks for; no document is ever embedded again.

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
    encoded = None
    if model is not None and dataset.qrels.get("dev") and len(queries) >= FEW:
        problem = problem_of(dataset, queries, documents, 2, seed)
        texts = [dataset.queries[key].text for key in trained_queries(dataset)]
        encoded = encode_queries(problem, texts, model, climbed, seed, options, progress)
    seconds = {"training_seconds": round(time.perf_counter() - given, 2)}
    notes = notes_on(dataset, queries, climbed)
    if encoded is not None and (encoded.better or (encoded.gains and not ladder)):
        result = TuneResult(
            out,
            "query",
            embedder.name,
            embedder.fingerprint,
            float(encoded.base.mean()),
            float(encoded.scores.mean()),
            {**encoded.chosen, **seconds},
            time.perf_counter() - started,
            tuple(notes),
        )
        stored = StoredAdapter(encoded.adapter, None, embedder.name, embedder.fingerprint)
        write_query_encoder(out, encoded.model, stored, embedder, result)
        return result
    if model is not None:
        notes.append("tuning the query encoder added nothing on dev: the adapter alone is the result.")
    settings = [setting.describe() for setting in climbed.settings]
    adapter = climbed.adapter
    result = TuneResult(
        out,
        "adapter",
        embedder.name,
        embedder.fingerprint,
        climbed.dev_before,
        climbed.dev_after,
        {"settings": settings, **seconds},
        time.perf_counter() - started,
        tuple(notes),
    )
    write_adapter(out, StoredAdapter(adapter, None, embedder.name, embedder.fingerprint), embedder, result)
    return result


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
) -> Encoded:
    """Train a copy of the model on the first fold's train queries; its held-out queries are dev.

    Args:
        problem: with at least one fold.
        texts: of ``problem.queries``.
        model: the base; stays as it is.
        climbed: the ladder's outcome; its settings are fitted on the fold's train queries to start from.
        seed: of the order.
        options: see ``QueryOptions``.
        progress: told steps and looks at dev.
    """
    torch.manual_seed(seed)
    fold = problem.folds[0]
    adapter = fit_all(problem, climbed.settings, seed, Starts(problem, seed), (fold.train, fold.pool))
    run = _Run(problem, fold, texts, copy.deepcopy(model), adapter, options, seed, progress)
    base = Candidates(problem, fold.held, seed).score(problem.queries[fold.held])
    weights, scores, start, chosen = run.go()
    run.put(weights)
    through = [setting.describe() for setting in climbed.settings]
    chosen = {"rung": "query encoder", "adapter": through, **chosen}
    return Encoded(run.finished(), adapter, scores, base, start, chosen)


class _Run:
    """One training of a query encoder."""

    def __init__(
        self,
        problem: Problem,
        fold: Fold,
        texts: list[str],
        model: SentenceTransformer,
        adapter: Adapter,
        options: QueryOptions,
        seed: int,
        progress: Progress,
    ) -> None:
        self.options, self.progress, self.model = options, progress, model
        self.restore = without_dropout(model)
        dtype = torch.bfloat16 if fast_bf16(model.device.type) else torch.float32
        self.encoder = Encoder(model, dtype)
        self.train = self.encoder.tokenize([texts[row] for row in fold.train], "query")
        self.dev: Texts = self.encoder.tokenize([texts[row] for row in fold.held], "query")
        self.candidates = Candidates(problem, fold.held, seed)
        self.adapter, self.through = adapter, as_torch(adapter)
        self.rng = np.random.default_rng(seed)
        self.softmax = PoolSoftmax(problem.documents, fold.pool, problem.positives.take(fold.train), self.rng)
        self.base: Weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def go(self) -> tuple[Weights, Scores, Scores, dict[str, object]]:
        """Train, then take the best state or mixture with the base by dev; also the scores at the start."""
        count, options = len(self.train), self.options
        steps = int(np.clip(math.ceil(options.epochs * count / options.batch), LEAST_STEPS, MOST_STEPS))
        adam = torch.optim.AdamW(self.model.parameters(), lr=options.rate, weight_decay=0.01)
        best: tuple[float, Weights | None, int] = (float(self.look().mean()), None, 0)
        started, since, step = time.perf_counter(), 0, 0
        order = _Order(count, options.batch, self.rng)
        with self.progress.task("query encoder", total=steps, unit="steps") as task:
            while step < steps:
                loss = self._step(adam, next(order), self._rate(step, steps))
                step += 1
                task.advance(1, f"loss {loss:.3f}")
                if (
                    step == 3 and options.seconds
                ):  # the first steps are slower than the rest: the plan is on the safe side
                    each = (time.perf_counter() - started) / 3
                    steps = min(steps, max(LEAST_STEPS // 2, int(options.seconds * 0.8 / each)))
                if step % max(1, steps // options.checks) and step != steps:
                    continue
                value = float(self.look().mean())
                self.progress.event("dev", step=step, value=round(value, 5), loss=round(loss, 4))
                if value > best[0]:
                    best, since = (value, self._weights(), step), 0
                else:
                    since += 1
                late = options.seconds and time.perf_counter() - started > options.seconds
                if since >= options.patience or late:
                    break
        tuned = [(step, self._weights())] + ([(best[2], best[1])] if best[1] is not None and best[2] != step else [])
        return self._mixed(tuned)

    def _mixed(self, tuned: list[tuple[int, Weights]]) -> tuple[Weights, Scores, Scores, dict[str, object]]:
        """Of the last and the best state, and their mixtures with the base, what dev likes best.

        A late state mixed with the base is often better than an early one (Wortsman et al., arXiv 2109.01903).
        """
        self.put(self.base)
        found: list[tuple[Scores, Weights, float, int]] = [(self.look(), self.base, 0.0, 0)]
        for step, state in tuned:
            for share in SHARES:
                mixed = {name: self.base[name].lerp(value, share) for name, value in state.items()}
                self.put(mixed)
                found.append((self.look(), mixed, share, step))
        scores, weights, share, step = max(found, key=lambda item: float(item[0].mean()))
        return weights, scores, found[0][0], {"step": step, "share": share}

    def _step(self, adam: torch.optim.Optimizer, rows: NDArray[np.int64], rate: float) -> float:
        self.model.train()
        for group in adam.param_groups:
            group["lr"] = rate
        vectors = self.encoder.vectors(self.train, rows).cpu()
        loss = self.softmax.loss(F.normalize(self.through(vectors), dim=1), rows, self.options.temperature)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value}.", "Lower the rate.")
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        adam.step()
        return value

    def _rate(self, step: int, steps: int) -> float:
        rise = max(1, round(self.options.warmup * steps))
        share = (step + 1) / rise if step < rise else max(0.05, (steps - step) / max(1, steps - rise))
        return self.options.rate * share

    def look(self) -> Scores:
        """nDCG@10 of each dev query with the weights as they are."""
        vectors: Vectors = self.encoder.embed(self.dev)
        return self.candidates.score(self.adapter.apply(vectors))

    def _weights(self) -> Weights:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def put(self, weights: Weights) -> None:
        """Set the model's weights."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def finished(self) -> SentenceTransformer:
        """The model, in eval mode and with the dropout it came with."""
        self.restore()
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


def without_dropout(model: SentenceTransformer) -> Callable[[], None]:
    """Switch dropout off, which makes attention several times faster; call the result to have it back."""
    before = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    for module, _ in before:
        module.p = 0.0

    def restore() -> None:
        for module, value in before:
            module.p = value

    return restore
