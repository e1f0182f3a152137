"""Training loops of the LlamaIndex doors: a torch adapter over fixed vectors, and a model as LlamaIndex does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from vectune.errors import TrainingError
from vectune.integrations.llama_embedding import apply_adapter
from vectune.progress import SILENT, Progress
from vectune.training.adapter import Candidates
from vectune.training.encoder import Role, preprocess, prompt_of
from vectune.training.ladder import PoolSoftmax
from vectune.training.problem import Problem

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROLES: tuple[Role, Role] = ("query", "document")  # of a pair's sides
SCALE = 20.0  # of cosines in the softmax, as LlamaIndex has it


@dataclass(frozen=True)
class AdapterPlan:
    """How a torch adapter is trained.

    Attributes:
        batch: queries in a step; without ``pool`` pairs of a query and one of its chunks.
        epochs: passes over them, at most.
        rate: peak learning rate of the optimizer.
        shuffle: draw a new order for each epoch; False takes the dataset's.
        pool: compare each query with every chunk that may be a negative; False with the chunks of its batch.
        patience: epochs without a gain on dev until it stops, and the best state is kept; 0 keeps the last.
        steps_per_epoch: None is one pass.
        max_grad_norm: gradients are clipped there.
        warmup_steps: steps over which the rate rises; None is a tenth of them.
        optimizer: a torch optimizer's class; None is AdamW.
        optimizer_params: its arguments; a rate in it wins over ``rate``.
        seed: of the order.
    """

    batch: int = 32
    epochs: int = 20
    rate: float = 1e-3
    shuffle: bool = True
    pool: bool = True
    patience: int = 4
    steps_per_epoch: int | None = None
    max_grad_norm: float = 1.0
    warmup_steps: int | None = None
    optimizer: type[torch.optim.Optimizer] | None = None
    optimizer_params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def fit_adapter(
    module: Any,
    problem: Problem,
    plan: AdapterPlan,
    device: str = "cpu",
    saved: Callable[[int], None] = lambda step: None,
    progress: Progress = SILENT,
) -> tuple[float, float]:
    """Train the adapter in place; afterwards it is in the state that dev likes best.

    Args:
        module: a torch module from query vectors to query vectors.
        problem: vectors and judgments; its first fold, where it has one, holds out dev.
        plan: see ``AdapterPlan``.
        device: where the adapter is trained.
        saved: called after every step with its number.
        progress: counts the epochs.

    Returns:
        nDCG@10 on dev of the base without an adapter and of the result; NaN where there is no dev.

    Raises:
        TrainingError: the loss is no number any more.
    """
    rows = problem.folds[0].train if problem.folds else np.arange(len(problem.queries))
    loss_of = _Loss(problem, rows, problem.folds[0].pool if problem.folds else problem.pool, plan, device)
    dev = _Dev(problem, plan.seed, device)

    module.to(device)
    steps = plan.steps_per_epoch or -(-len(loss_of) // plan.batch)
    optimizer, schedule = _optimizer(module, plan, steps * plan.epochs)
    base, best, since = dev.base(), dev(module), 0
    state = _copy(module)
    order, step = _order(len(loss_of), plan), 0
    module.train()
    with progress.task("adapter", plan.epochs, "epochs") as task:
        for _ in range(plan.epochs):
            for _ in range(steps):
                loss = loss_of(module, next(order))
                _check(loss, step)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(module.parameters(), plan.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                step += 1
                saved(step)
            value = dev(module)
            task.advance(1, f"dev {value:.3f}")
            if not plan.patience or np.isnan(value):
                continue
            since = 0 if value > best else since + 1
            if value > best:
                best, state = value, _copy(module)
            if since >= plan.patience:
                break
    if plan.patience and not np.isnan(best):
        module.load_state_dict(state)
    module.eval()
    return base, dev(module)


class _Dev:
    """nDCG@10 on the first fold's questions; NaN where there is none."""

    def __init__(self, problem: Problem, seed: int, device: str) -> None:
        held = problem.folds[0].held if problem.folds else None
        self.among = None if held is None else Candidates(problem, held, seed)
        self.vectors = problem.queries if held is None else problem.queries[held]
        self.device = device

    def base(self) -> float:
        """Of the vectors as they are."""
        return float("nan") if self.among is None else float(self.among.score(self.vectors).mean())

    def __call__(self, module: Any) -> float:
        if self.among is None:
            return float("nan")
        was_training = module.training
        module.eval()
        value = float(self.among.score(apply_adapter(module, self.vectors, self.device)).mean())
        module.train(was_training)
        return value


class _Loss:
    """InfoNCE of adapted queries: over the pool, where no other positive of a query is its negative, or over the batch.

    A sample is a query with all its positives or, over the batch, with one of them, as in LlamaIndex.
    """

    def __init__(self, problem: Problem, rows: Any, pool: Any, plan: AdapterPlan, device: str) -> None:
        self.plan, self.device = plan, device
        self.queries = torch.from_numpy(np.ascontiguousarray(problem.queries[rows]))
        self.positives = problem.positives.take(rows)
        self.documents = problem.documents
        rng = np.random.default_rng(plan.seed)
        self.softmax = PoolSoftmax(problem.documents, pool, self.positives, rng) if plan.pool else None
        self.pairs = np.argwhere(self.positives.weights > 0)  # query, place of the positive

    def __len__(self) -> int:
        return len(self.queries) if self.softmax is not None else len(self.pairs)

    def __call__(self, module: Any, samples: torch.Tensor) -> torch.Tensor:
        if self.softmax is not None:
            return self.softmax.loss(self._adapted(module, samples.numpy()).cpu(), samples.numpy(), 1 / SCALE)
        rows, places = self.pairs[samples.numpy()].T
        texts = torch.from_numpy(np.asarray(self.documents[self.positives.rows[rows, places]], dtype=np.float32))
        scores = self._adapted(module, rows) @ texts.to(self.device).T * SCALE
        return F.cross_entropy(scores, torch.arange(len(rows), device=scores.device))

    def _adapted(self, module: Any, rows: Any) -> torch.Tensor:
        return F.normalize(module(self.queries[rows].to(self.device)), dim=1)


def _step(value: torch.Tensor, step: int, loss: Any, optimizer: Any, schedule: Any) -> None:
    _check(value, step)
    value.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()


def _check(loss: torch.Tensor, step: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"the loss is {float(loss)} after {step} steps.", "Lower the learning rate.")


def _order(count: int, plan: AdapterPlan) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(plan.seed)
    while True:
        order = torch.randperm(count, generator=generator) if plan.shuffle else torch.arange(count)
        yield from torch.split(order, plan.batch)


def _optimizer(module: Any, plan: AdapterPlan, steps: int) -> tuple[Any, Any]:
    make = plan.optimizer or torch.optim.AdamW
    optimizer = make(module.parameters(), **{"lr": plan.rate, **plan.optimizer_params})
    rise = steps // 10 if plan.warmup_steps is None else plan.warmup_steps
    return optimizer, _linear(optimizer, rise, steps)


def _linear(optimizer: Any, rise: int, steps: int) -> Any:
    def share(step: int) -> float:
        return step / max(1, rise) if step < rise else max(0.0, (steps - step) / max(1, steps - rise))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _copy(module: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def fit_plainly(
    model: SentenceTransformer,
    pairs: Sequence[tuple[str, str]],
    loss: Any,
    *,
    batch: int,
    epochs: float,
    rate: float = 2e-5,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    seed: int = 0,
    prompted: bool = True,
    measure: Callable[[], float] | None = None,
    measure_every: int = 0,
    to_beat: float | None = None,
    progress: Progress = SILENT,
) -> float | None:
    """Train a model with a sentence-transformers loss as LlamaIndex's engine does: fp32, AdamW, a linear schedule.

    Args:
        model: trained in place.
        pairs: (question, text).
        loss: of sentence-transformers, over this model and on its device.
        batch: pairs in a step.
        epochs: passes over the pairs.
        rate: peak learning rate.
        weight_decay: on all weights but biases and norms.
        warmup: share of the steps over which the rate rises.
        seed: of the order, a new one for each epoch; what dropout draws is torch's own.
        prompted: questions and texts get the model's prompts of their role; False trains on them bare, as LlamaIndex.
        measure: what to keep the best state by; it puts the model into eval mode. None keeps the last.
        measure_every: steps between two looks; there is one after each epoch, and at the end, in any case.
        to_beat: what the model measures now; it stays as it is where no state is better. None keeps the best state.
        progress: counts the steps.

    Returns:
        The best measured value; None without ``measure``.

    Raises:
        TrainingError: the loss is no number any more.
    """
    an_epoch = -(-len(pairs) // batch)
    steps, looks = max(1, round(epochs * an_epoch)), measure_every or an_epoch
    optimizer = torch.optim.AdamW(_groups(loss, weight_decay), lr=rate)
    schedule = _linear(optimizer, int(steps * warmup), steps)
    losses = _losses(model, pairs, loss, _order(len(pairs), AdapterPlan(batch=batch, seed=seed)), prompted)
    best = to_beat if measure is not None else None
    state = {} if best is None else _copy(model)
    with progress.task("tuning", steps, "steps") as task:
        for step in range(1, steps + 1):
            _step(next(losses), step, loss, optimizer, schedule)
            task.advance()
            if measure is not None and (step % looks == 0 or step % an_epoch == 0 or step == steps):
                found = measure()
                if best is None or found > best:
                    best, state = found, _copy(model)
    if state:
        model.load_state_dict(state)
    model.eval()
    return best


def _losses(
    model: SentenceTransformer,
    pairs: Sequence[tuple[str, str]],
    loss: Any,
    order: Iterator[torch.Tensor],
    prompted: bool,
) -> Iterator[Any]:
    prompts = [prompt_of(model, role) if prompted else None for role in ROLES]
    for rows in order:
        loss.train()
        drawn = zip(*(pairs[row] for row in rows.tolist()), strict=True)
        yield loss([_features(model, list(side), prompt) for side, prompt in zip(drawn, prompts, strict=True)], None)


def _groups(loss: Any, weight_decay: float) -> list[dict[str, Any]]:
    named = [(name, weight) for name, weight in loss.named_parameters() if weight.requires_grad]
    free = [weight for name, weight in named if "bias" in name or "LayerNorm" in name]
    held = [weight for name, weight in named if not ("bias" in name or "LayerNorm" in name)]
    return [{"params": held, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _features(model: SentenceTransformer, texts: list[str], prompt: str | None) -> dict[str, Any]:
    found = preprocess(model, texts, prompt)
    return {name: value.to(model.device) if hasattr(value, "to") else value for name, value in found.items()}


def save_step(module: Any, folder: str | None, every: int) -> Callable[[int], None]:
    """Saves the adapter as ``step_N`` in the folder after every so many steps; does nothing without a folder."""

    def saved(step: int) -> None:
        if folder is not None and step % every == 0:
            module.save(str(Path(folder) / f"step_{step}"))

    return saved
