"""The training loop: steps, looks at dev, checkpoints. What it does at step n depends on the seed and n alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from vectune.embedders.machine import activation_bytes
from vectune.errors import TrainingError
from vectune.progress import Progress, Task
from vectune.training.anchor import Anchor
from vectune.training.batches import Batch, Batches
from vectune.training.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from vectune.training.data import TrainingData
from vectune.training.dev import DevSample
from vectune.training.distributed import ALONE, World
from vectune.training.encoder import Encoder, Texts
from vectune.training.ground import Miner
from vectune.training.memory import ChunkMemory
from vectune.training.options import TuneOptions
from vectune.training.schedule import PROBE, Schedule
from vectune.training.streamed import StreamedTexts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

# Takes vectors of queries (b, d) and of chunks (c, d) and the batch they belong to; gives the loss to be minimised.
Loss = Callable[[Tensor, Tensor, Batch], Tensor]
Weights = dict[str, Tensor]
T = TypeVar("T")
DIVERGED = 2.0  # times the first loss; what a model that knows nothing loses is often above the first, by less


@dataclass
class State:
    """Where a run stands; all of it is in a checkpoint.

    Attributes:
        step: steps done.
        epoch, position: where the data's order stands.
        best, best_step: the highest value on dev, and after how many steps it was seen.
        since_best: looks at dev since then.
        averaged: states in the running mean.
        seconds_before: what earlier, killed starts have taken.
        curve: (step, value) of every look at dev.
        losses: the first step's loss, and the running mean of the later ones.
        stopped: why the run ended early; empty otherwise.
        diverged: whether that was the loss.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    best: float = -1.0
    best_step: int = 0
    since_best: int = 0
    averaged: int = 0
    seconds_before: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    stopped: str = ""
    diverged: bool = False

    def diverging(self, loss: float) -> bool:
        """Take in a step's loss; true where the running mean is far above where it began."""
        first, mean = self.losses or (loss, loss)
        self.losses = [first, 0.9 * mean + 0.1 * loss]
        return self.losses[1] > DIVERGED * max(first, 1.0)


class Loop:
    """Trains an encoder in place.

    Args:
        encoder: the model.
        loss: what to minimise.
        batches: the data's order.
        texts: tokens of train queries, of all chunks, and of dev queries.
        dev: what the looks are measured on.
        schedule: the plan.
        folder: where checkpoints go.
        key: hash of everything the run depends on.
        options: rates, limits and weights.
        progress: gets ``train`` and ``dev`` events.
        world: the processes that share each batch.
        miner: finds negatives anew, where the options ask for that.
    """

    def __init__(
        self,
        encoder: Encoder,
        loss: Loss,
        batches: Batches,
        texts: tuple[Texts | StreamedTexts, Texts | StreamedTexts, Texts],
        dev: DevSample,
        schedule: Schedule,
        folder: Path,
        key: str,
        options: TuneOptions,
        progress: Progress,
        world: World = ALONE,
        miner: Miner | None = None,
    ) -> None:
        self.encoder, self.loss, self.batches, self.dev = encoder, loss, batches, dev
        self.queries, self.chunks, self.dev_queries = texts
        self.schedule, self.folder, self.key, self.options, self.progress = schedule, folder, key, options, progress
        self.world, self.miner = world, miner
        self.anchor: Anchor | None = None  # on general text, where the options name some
        self.room = activation_bytes(options.memory_gib, encoder.device.type)
        self.remembered = ChunkMemory(options.remember, batches.masks)
        self.state = State()
        self._clock, self._times = (0.0, 0.0, 0.0), [0.0]
        self.best: Weights = {}
        self.average: Weights = {}
        self.step_tokens = 0
        self.optimizer = _optimizer(self.parameters, schedule.rate, options.weight_decay)

    @property
    def parameters(self) -> Weights:
        """What is trained, by name."""
        return {name: p for name, p in self.encoder.model.named_parameters() if p.requires_grad}

    def run(self, base_score: float, check_seconds: float, spent: float) -> State:
        """Go on from the last checkpoint, or start; returns when the plan is done or nothing improves any more.

        Args:
            base_score: the base's value on dev.
            check_seconds: what a look at dev takes here.
            spent: seconds of the time limit that are already used.
        """
        self.state.best = base_score
        self._resume()
        self.encoder.model.train()
        started = saved = time.perf_counter()
        before = self.state.seconds_before
        self._clock, self._times = (started, spent + before, check_seconds), []
        with self.progress.task("train", total=self.schedule.steps, unit="steps") as task:
            task.advance(self.state.step)
            walk = self.batches.walk(self.state.epoch, self.state.position)
            while self.state.step < self.schedule.steps and not self.state.stopped:
                at = time.perf_counter()
                self.state.epoch, self.state.position, batch = next(walk)
                if not self._step(batch, task, at):
                    break
                self._times.append(time.perf_counter() - at)
                due = self.schedule.checks_after(self.state.step)
                if due:
                    self._check(task)
                if self.schedule.refreshes_after(self.state.step, self.options.refresh):
                    self._refresh()
                if self.options.max_minutes and (due or self.state.step == PROBE):
                    self._fit()
                if time.perf_counter() - saved >= self.options.checkpoint_seconds:
                    self._save()
                    saved = time.perf_counter()
        self._save()
        self.world.wait()
        return self.state

    def _refresh(self) -> None:
        """Mine negatives with the model as it is: those that the base found hard are easy by now."""
        if self.miner is None or isinstance(self.queries, StreamedTexts) or isinstance(self.chunks, StreamedTexts):
            return
        texts, pool = (self.queries, self.chunks), self.miner.pool
        queries, chunks = self._in_memory(lambda: (self.encoder.embed(texts[0]), self.encoder.embed(texts[1], pool)))
        self.batches.negatives = self.world.from_first(self.miner(queries, chunks))

    def _fit(self) -> None:
        """Plan what is left of a time limit by what steps have taken here."""
        started, spent, check_seconds = self._clock
        left = 60 * (self.options.max_minutes or 0) - spent - (time.perf_counter() - started)
        plan = self.schedule.fitted(self.state.step, float(np.median(self._times[-8:])), check_seconds, left)
        plan = self.world.from_first(plan)
        if plan != self.schedule and self.state.step < self.schedule.steps:
            self.schedule = plan
            self._save()  # the plan came from a clock: a second start must not make another one
            self.progress.event("plan", step=self.state.step, steps=plan.steps, checks=plan.checks)

    def _step(self, batch: Batch, task: Task, started: float) -> bool:
        """Learn from a batch; false where the loss ends the run."""
        rate = self.schedule.rate_at(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        further = self.remembered.rise(batch)
        value = self._in_memory(lambda: self._backward(batch))
        if not math.isfinite(value):
            self._stop(f"the loss became {value} at step {self.state.step + 1}; try a lower rate, or fp32")
            self.optimizer.zero_grad(set_to_none=True)
            return False
        if self.anchor is not None and self.world.first:  # gradients of all processes are added up
            self.anchor.backward(self.state.step)
        parameters = list(self.parameters.values())
        self.world.add_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        if self.state.diverging(value - further):
            first, mean = self.state.losses
            self._stop(f"the loss rose from {first:.2f} to {mean:.2f}; try a lower rate or a longer warmup")
        seconds = time.perf_counter() - started
        pairs = len(batch.queries) / seconds
        self.progress.event(
            "train", step=self.state.step, loss=round(value, 5), rate=rate, pairs=round(pairs, 2),
            seconds=round(seconds, 3),
        )  # fmt: skip
        task.advance(1, f"loss {value:.3f}, {pairs:.1f} pairs/s, dev {self.state.best:.3f}")
        return not self.state.diverged

    def _stop(self, why: str) -> None:
        self.state.stopped, self.state.diverged = why, True

    def _in_memory(self, work: Callable[[], T]) -> T:
        """What the work gives; where memory runs out, it is done again in smaller pieces, down to a text at a time."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or self.world.size > 1:
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                if self.encoder.piece_tokens < 64:
                    raise TrainingError(
                        "memory ran out even with one text at a time.",
                        "Choose a smaller model or --method lora, a shorter max_length, or free some memory.",
                    ) from error
                if self.room:
                    self.room = 0.0
                else:
                    self.encoder.piece_tokens //= 2
                self.progress.warn(
                    f"memory ran out: batches now go through in pieces of {self.encoder.piece_tokens} tokens"
                )

    def _backward(self, batch: Batch) -> float:
        """Gradients of the loss of one batch; in pieces where the activations would take too much memory."""
        sides = [self._side(self.queries, batch.queries), self._side(self.chunks, batch.chunks)]
        if sum(side.tokens for side in sides) * self.encoder.token_bytes > self.room:
            return self._backward_in_pieces(batch, sides)
        self._draw_anew()
        queries, chunks = (
            self.world.assembled(self.encoder.vectors(side.texts, side.rows), side.shares) for side in sides
        )
        return self._backward_from(queries, chunks, batch)

    def _side(self, texts: Texts | StreamedTexts, rows: Ints) -> Side:
        tokens, places = texts.at(rows)
        return Side(tokens, places, self.world)

    def _backward_from(self, queries: Tensor, chunks: Tensor, batch: Batch) -> float:
        longer, all_chunks = self.remembered.extended(batch, chunks)
        loss = self.loss(queries, all_chunks, longer)
        if loss.requires_grad:  # not where others encode all of a small batch
            loss.backward()  # type: ignore[no-untyped-call]
        self.remembered.add(batch, chunks)
        return loss.item()

    def _backward_in_pieces(self, batch: Batch, sides: list[Side]) -> float:
        """GradCache (Gao et al., arXiv 2101.06983): vectors first, then each piece again with its vectors' gradient."""
        leaves: list[Tensor] = []
        with torch.no_grad():
            for side in sides:
                parts = [self._piece(side, number, piece) for number, piece in enumerate(side.pieces(self.encoder))]
                leaves.append(self.encoder.in_order(parts, list(side.pieces(self.encoder))))
        for leaf in leaves:
            leaf.requires_grad_()
        queries, chunks = (self.world.assembled(leaf, side.shares) for leaf, side in zip(leaves, sides, strict=True))
        value = self._backward_from(queries, chunks, batch)
        for side, leaf in zip(sides, leaves, strict=True):
            for number, piece in enumerate(side.pieces(self.encoder)):
                gradient = leaf.grad[torch.from_numpy(piece)] if leaf.grad is not None else None
                self._piece(side, number, piece).backward(gradient)  # type: ignore[no-untyped-call]
        return value

    def _piece(self, side: Side, number: int, piece: Ints) -> Tensor:
        """Vectors of a piece; dropout draws the same whenever the same piece of a step is asked for."""
        self._draw_anew(number)
        return self.encoder.piece(side.texts, side.rows[piece])

    def _draw_anew(self, number: int = 0) -> None:
        """What dropout draws depends on the seed, the step and the piece alone: a checkpoint holds no random state."""
        if self.options.dropout:
            torch.manual_seed(hash((self.options.seed, self.state.step, number)) % 2**63)

    # Dev

    def measure(self) -> NDArray[np.float64]:
        """nDCG@10 of each dev query with the weights as they are."""
        return self.world.from_first(
            self._in_memory(lambda: self.dev.scores(*self.dev_vectors())) if self.world.first else np.zeros(0)
        )

    def read_again(self, data: TrainingData) -> None:
        """Make the tokens of chunks and dev queries anew, after the model's length has changed."""
        self.dev_queries = self.encoder.tokenize(data.dev_queries, "query")
        if isinstance(self.chunks, Texts):  # those on disk are made whenever they are asked for
            self.chunks = self.encoder.tokenize(data.chunks, "document")

    def dev_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit vectors of dev's queries and chunks."""
        queries = self.encoder.embed(self.dev_queries, self.dev.queries)
        return queries, self.encoder.embed(*self.chunks.at(self.dev.chunks))

    def _check(self, task: Task) -> None:
        value = float(self.measure().mean())
        state = self.state
        state.curve.append([state.step, value])
        self.progress.event("dev", step=state.step, value=round(value, 5))
        if value > state.best:
            state.best, state.best_step, state.since_best = value, state.step, 0
            self.best = self.weights()
        else:
            state.since_best += 1
            if self.options.patience and state.since_best >= self.options.patience:
                state.stopped = f"dev did not improve in {state.since_best} looks"
        task.advance(0, f"dev {value:.3f}, best {state.best:.3f}")
        if state.step * 2 >= self.schedule.steps:
            self._add_to_average()

    def _add_to_average(self) -> None:
        """A running mean of the states seen in the second half (Izmailov et al., arXiv 1803.05407)."""
        self.state.averaged += 1
        if not self.average:
            self.average = self.weights()
            return
        for name, value in self.parameters.items():
            self.average[name].lerp_(value.detach(), 1 / self.state.averaged)

    # Weights

    def weights(self) -> Weights:
        """A copy of what is trained."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def put(self, weights: Weights) -> None:
        """Put weights into the model."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(weights[name])

    # Checkpoints

    def _save(self) -> None:
        if not self.world.first:
            return
        tensors: Weights = {f"model.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"best.{name}": p for name, p in self.best.items()}
        tensors |= {f"average.{name}": p for name, p in self.average.items()}
        tensors["mined.chunks"] = torch.from_numpy(self.batches.negatives)
        tensors |= self.remembered.tensors() | optimizer_tensors(self.optimizer)
        started, spent, _ = self._clock
        past = spent + time.perf_counter() - started
        state = {
            "state": {**vars(self.state), "seconds_before": past},
            "schedule": vars(self.schedule),
            "pieces": [self.room, self.encoder.piece_tokens],
        }
        save_checkpoint(self.folder / "checkpoint", self.key, state, tensors)

    def _resume(self) -> None:
        found = load_checkpoint(self.folder / "checkpoint", self.key, self.encoder.device)
        if found is None:
            if (self.folder / "checkpoint").exists():
                self.progress.say("the checkpoint here is damaged, or of other data, options or weights: training anew")
            return
        state, tensors = found
        self.state, self.schedule = State(**state["state"]), Schedule(**state["schedule"])
        room, tokens = state["pieces"]  # smaller where memory ran out; a person may allow less by now, too
        self.room, self.encoder.piece_tokens = min(self.room, room), min(self.encoder.piece_tokens, tokens)
        self.put(_part(tensors, "model."))
        self.best, self.average = _part(tensors, "best."), _part(tensors, "average.")
        self.batches.negatives = tensors["mined.chunks"].cpu().numpy()
        self.remembered.restore(tensors)
        restore_optimizer(self.optimizer, tensors)
        self.progress.say(f"going on from step {self.state.step} of {self.schedule.steps}")


@dataclass(frozen=True)
class Side:
    """One side of a batch, queries or chunks, and which of its texts this process encodes."""

    texts: Texts
    all_rows: Ints
    world: World

    @cached_property
    def shares(self) -> list[Ints]:
        """Positions in ``all_rows`` of each process."""
        return self.world.shares(self.texts.lengths[self.all_rows])

    @cached_property
    def rows(self) -> Ints:
        """This process's texts."""
        found: Ints = self.all_rows[self.shares[self.world.rank]]
        return found

    @property
    def tokens(self) -> int:
        """Tokens of this process's texts."""
        return int(self.texts.lengths[self.rows].sum())

    def pieces(self, encoder: Encoder) -> Iterator[Ints]:
        """Positions in ``rows``, piece by piece."""
        return encoder.pieces(self.texts, self.rows)


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text


def _part(tensors: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(parameters: Weights, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)
