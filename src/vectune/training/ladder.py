"""The rungs of the adapter ladder: how each kind of adapter is fitted to queries over frozen document vectors.

A rung learns a change ``δ(x)`` to a start ``M x``; the adapter is ``M x + strength · δ(x)``. The start is the identity
or the documents' geometry with its dominant directions damped (shrunk whitening: Su et al. 2021, arXiv 2103.15316).
Trained rungs minimise −log softmax of each positive against the pool (InfoNCE, van den Oord et al. 2018; arXiv
1807.03748), with a query's other positives left out of the denominator. δ starts at zero, and strength and number of
steps, found on held-out documents, are what holds it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from vectune.adapters import Activation, Adapter, Kind
from vectune.training.problem import Positives, Problem, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Vectors
    from vectune.training.problem import Rows

EXACT = 4096  # documents up to which every step's softmax runs over the whole pool
RUN = 32  # sampled negatives come in runs of neighbouring rows: few reads of a memory map, and siblings are hard
SAMPLE = 20_000  # document vectors from which the geometry is estimated
Map = Callable[[torch.Tensor], torch.Tensor]
SMALL = 2_000_000  # numbers in the pool's vectors up to which threads cost more than they bring


@contextmanager
def few_threads(pool: Rows, dim: int) -> Iterator[None]:
    """One thread for PyTorch where the matrices are small; the number it had is put back.

    Threads wait for each other after every small product. Where something else holds a core, they wait for a time
    slice: a ladder of 1 CPU second then took 44.
    """
    before = torch.get_num_threads()
    if len(pool) * dim <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Change:
    """δ: a matrix, or up · activation(down · x + down_bias)."""

    matrix: NDArray[np.float32] | None = None
    down: NDArray[np.float32] | None = None
    down_bias: NDArray[np.float32] | None = None
    up: NDArray[np.float32] | None = None
    activation: Activation = "none"

    def of(self, x: Vectors) -> Vectors:
        """δ of vectors (n, d)."""
        if self.matrix is not None:
            return x @ self.matrix.T
        assert self.down is not None and self.up is not None
        hidden: Vectors = x @ self.down.T + (0 if self.down_bias is None else self.down_bias)
        if self.activation == "relu":
            np.maximum(hidden, 0, out=hidden)
        return _f32(hidden @ self.up.T)

    def adapter(self, kind: Kind, start: NDArray[np.float32], strength: float) -> Adapter:
        """The adapter ``start x + strength · δ(start x)`` as one formula over x."""
        dim, by = len(start), np.float32(strength)
        if self.matrix is not None:
            return Adapter(kind, dim, dim, skip=_f32(start + by * (self.matrix @ start)))
        assert self.down is not None and self.up is not None
        return Adapter(
            kind,
            dim,
            dim,
            skip=None if _is_identity(start) else start,
            down=_f32(self.down @ start),
            down_bias=self.down_bias,
            up=_f32(by * self.up),
            activation=self.activation,
        )


@dataclass(frozen=True)
class Rung:
    """A kind of adapter and how it is fitted.

    Attributes:
        kind: of the adapter.
        temperature: cosines are divided by it; 0 for closed forms.
        rate: Adam's, at 384 dimensions.
        rank: of low-rank and hidden layers.
    """

    kind: Kind
    temperature: float = 0.0
    rate: float = 1e-3
    rank: int = 64

    @property
    def trained(self) -> bool:
        """False for closed forms."""
        return self.temperature > 0

    @property
    def name(self) -> str:
        return f"{self.kind} (temperature {self.temperature})" if self.trained else self.kind


# simplest first: the ladder climbs only where held-out queries ask for it
CLOSED = (Rung("ridge"), Rung("procrustes"))
TRAINED = (
    Rung("low-rank", 0.05, rate=3e-3),
    Rung("linear", 0.02),
    Rung("linear", 0.05),
    Rung("mlp", 0.05, rate=3e-3),
)


# Starts


@dataclass(frozen=True)
class Geometry:
    """In which directions documents vary: taken apart once, good for every power.

    Attributes:
        axes: (d, d), one direction a column.
        variances: (d,), relative to their mean.
    """

    axes: NDArray[np.float32]
    variances: NDArray[np.float32]

    @classmethod
    def of(cls, documents: Vectors, seed: int = 0) -> Geometry:
        """From (m, d) vectors; at most ``SAMPLE`` of them are read."""
        count, dim = documents.shape
        rows = np.arange(count)
        if count > SAMPLE:
            rows = np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))
        drawn = np.asarray(documents[rows], dtype=np.float32)
        drawn = drawn - drawn.mean(axis=0)
        if float((drawn**2).sum()) < 1e-8 * count:  # all documents alike, but for rounding: eigh may not converge
            return cls(np.eye(dim, dtype=np.float32), np.ones(dim, np.float32))
        values, axes = torch.linalg.eigh(torch.from_numpy(drawn.T @ drawn))
        variances = np.maximum(values.numpy(), 0)
        mean = float(variances.mean())
        return cls(axes.numpy(), variances / mean)

    def whitening(self, power: float, shrink: float = 0.1) -> NDArray[np.float32]:
        """A symmetric (d, d) matrix that damps the directions in which documents vary most, as ``variance ** -power``.

        Args:
            power: 0 is the identity, 0.5 full whitening.
            shrink: share of the mean variance added to each direction's, so that empty directions are not blown up.
        """
        if power == 0:
            return np.eye(len(self.axes), dtype=np.float32)
        scale = (self.variances + shrink) ** -power
        return _f32((self.axes * (scale / scale.mean())) @ self.axes.T)


def _is_identity(matrix: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32)))


def _f32(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


# Closed forms


def ridge(x: Vectors, targets: Vectors, pulls: Sequence[float]) -> Iterator[tuple[float, Change]]:
    """argmin over δ of ‖x + δx − target‖² + pull·‖δ‖²: ridge regression pulled to the identity, for each pull.

    Args:
        x: (n, d) queries.
        targets: (n, d), the mean of each query's positives.
        pulls: in units of the mean squared singular value of x, so that one means the same for every n.
    """
    rest = targets - x
    rest = rest - rest.mean(axis=0)  # a common shift leads all queries to the documents that were asked about so far
    dual = len(x) <= x.shape[1]  # an (n, n) system
    gram = torch.from_numpy(x @ x.T if dual else x.T @ x)
    found, turned = torch.linalg.eigh(gram)
    values, axes = found.numpy(), turned.numpy()
    left = rest.T @ axes if dual else rest.T @ (x @ axes)
    right = axes.T @ x if dual else axes.T
    for pull in pulls:
        yield pull, Change(matrix=_f32((left / (values + pull * float(values.mean()))) @ right))


def procrustes(x: Vectors, targets: Vectors) -> Change:
    """The rotation that brings queries nearest to their positives (Schönemann 1966), minus the identity."""
    left, _, right = torch.linalg.svd(torch.from_numpy(targets.T @ x))
    return Change(matrix=_f32((left @ right).numpy() - np.eye(x.shape[1], dtype=np.float32)))


def mean_positives(problem: Problem, rows: Rows) -> Vectors:
    """The unit mean of each query's positives: (n, d)."""
    positives = problem.positives.take(rows)
    summed = np.zeros((len(rows), problem.dim), dtype=np.float32)
    for column in range(positives.rows.shape[1]):
        summed += positives.weights[:, column, None] * problem.documents[positives.rows[:, column]]
    return unit(summed)


# Trained


def train(
    x: Vectors,
    positives: Positives,
    documents: Vectors,
    pool: Rows,
    rung: Rung,
    seed: int,
    steps: tuple[int, ...],
    batch: int = 128,
) -> Iterator[tuple[int, Change]]:
    """Fit a rung by Adam; yields (step, δ so far) at each of ``steps``. Stop taking to stop training.

    Args:
        x: (n, d) queries at their start.
        positives: of these queries, rows of ``documents``.
        documents: (m, d), may be a memory map.
        pool: rows that may be negatives; up to ``EXACT`` all of them are in every softmax, above that a sample.
        rung: what to fit.
        seed: of weights and order.
        steps: ascending.
        batch: queries in a step.
    """
    generator = torch.Generator().manual_seed(seed)
    weights, delta, change = _parameters(rung, x.shape[1], generator)
    adam = torch.optim.Adam(weights, lr=rung.rate * 384 / x.shape[1])  # early steps move each entry by the rate
    queries = torch.from_numpy(np.ascontiguousarray(x))
    softmax = PoolSoftmax(documents, pool, positives, np.random.default_rng(seed))
    order = batches(len(x), batch, generator)
    for step in range(1, steps[-1] + 1):
        rows = next(order)
        here = queries[rows]
        loss = softmax.loss(F.normalize(here + delta(here), dim=1), rows.numpy(), rung.temperature)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step in steps:
            yield step, change()


def _parameters(
    rung: Rung, dim: int, generator: torch.Generator
) -> tuple[list[torch.Tensor], Map, Callable[[], Change]]:
    """Weights at δ = 0, δ as torch computes it, and δ as NumPy."""
    if rung.kind == "linear":
        matrix = torch.zeros(dim, dim, requires_grad=True)
        return [matrix], lambda x: x @ matrix.T, lambda: Change(matrix=_numpy(matrix))
    rank = min(rung.rank, dim)
    down = torch.randn(rank, dim, generator=generator) * (2 if rung.kind == "mlp" else 1) / dim**0.5
    up = torch.zeros(dim, rank)
    if rung.kind == "low-rank":
        weights = [down.requires_grad_(), up.requires_grad_()]
        return weights, lambda x: x @ down.T @ up.T, lambda: Change(down=_numpy(down), up=_numpy(up))
    shift = torch.zeros(rank)
    weights = [down.requires_grad_(), shift.requires_grad_(), up.requires_grad_()]

    def change() -> Change:
        return Change(None, _numpy(down), _numpy(shift), _numpy(up), "relu")

    return weights, lambda x: F.relu(x @ down.T + shift) @ up.T, change


def _numpy(weights: torch.Tensor) -> NDArray[np.float32]:
    return weights.detach().numpy().copy()


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of rows for ever; each query comes up equally often."""
    while True:
        order = torch.randperm(count, generator=generator)
        whole = count if count < 2 * batch else count // batch * batch
        yield from torch.split(order[:whole], batch)


class PoolSoftmax:
    """The loss over the pool: exact where it fits, over a fresh sample of runs in each step where it does not."""

    def __init__(self, documents: Vectors, pool: Rows, positives: Positives, rng: np.random.Generator) -> None:
        self.documents, self.pool, self.positives, self.rng = documents, pool, positives, rng
        self.columns: Rows | None = None
        if len(pool) <= EXACT:
            self.columns, self.vectors = self._load(pool, positives.rows)

    def _load(self, pool: Rows, rows: Rows) -> tuple[Rows, torch.Tensor]:
        columns = np.unique(np.concatenate([pool, rows.ravel()]))
        return columns, torch.from_numpy(np.ascontiguousarray(self.documents[columns], dtype=np.float32))

    def _sampled(self, rows: Rows) -> tuple[Rows, torch.Tensor]:
        starts = self.rng.integers(0, len(self.pool) - RUN, EXACT // RUN)
        picked = (starts[:, None] + np.arange(RUN)).ravel()
        return self._load(self.pool[picked], rows)

    def loss(self, queries: torch.Tensor, which: Rows, temperature: float, mapped: Map | None = None) -> torch.Tensor:
        """Mean over queries of the weighted mean over positives of −log p(positive); documents pass through a map."""
        own = self.positives.take(which)
        columns, vectors = (self.columns, self.vectors) if self.columns is not None else self._sampled(own.rows)
        vectors = vectors if mapped is None else mapped(vectors)
        at = torch.from_numpy(np.searchsorted(columns, own.rows))
        scores = queries @ vectors.T / temperature
        mine = scores.gather(1, at)
        negatives = torch.logsumexp(scores.scatter(1, at, -1e9), dim=1, keepdim=True)
        weights = torch.from_numpy(own.weights)
        return (F.softplus(negatives - mine) * weights / weights.sum(dim=1, keepdim=True)).sum(dim=1).mean()
