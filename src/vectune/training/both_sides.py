"""The both-sides rung: linear maps of queries and of stored vectors, for those who can pass their index through one.

Query-side maps reach every bilinear score q·A d already. What the second map adds is that documents have unit norm
again after it, so that it can turn down what all of them share. No text is embedded for that: stored vectors pass
through a matrix. Both are trained together, from the identity, by the loss of ``ladder``; held-out queries among
documents that neither map has seen choose steps and strength, and whether the pair leads the query side's adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import normalize

from vectune.adapters import Adapter
from vectune.progress import SILENT, Progress
from vectune.training.adapter import STEPS, STRENGTHS, Candidates, Climbed, HeldOut, LadderOptions, gains_clearly
from vectune.training.ladder import PoolSoftmax, batches, few_threads
from vectune.training.problem import ndcg_at_10

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Vectors
    from vectune.training.problem import Problem, Rows

    Floats = NDArray[np.float32]
    Scores = NDArray[np.float64]

TEMPERATURE, RATE, BATCH = 0.05, 1e-3, 128


@dataclass(frozen=True)
class Maps:
    """Changes to the identity, (d, d) each: of queries and of documents."""

    query: Floats
    document: Floats

    def adapters(self, strength: float) -> tuple[Adapter, Adapter]:
        """Both as adapters, the changes at this strength."""
        dim = len(self.query)
        eye, by = np.eye(dim, dtype=np.float32), np.float32(strength)
        sides = (np.ascontiguousarray(eye + by * change) for change in (self.query, self.document))
        query, document = (Adapter("linear", dim, dim, skip=side) for side in sides)
        return query, document


@dataclass(frozen=True)
class BothSides:
    """The best pair of maps, fitted to all queries.

    Attributes:
        query, document: the maps.
        steps, strength: where training ended, and the share of the change that is kept.
        scores: nDCG@10 of the held-out queries by maps that did not see them, dev's first.
        alone: the same by the ladder's adapter of the query side.
        dev: how many of them are dev's.
    """

    query: Adapter
    document: Adapter
    steps: int
    strength: float
    scores: Scores
    alone: Scores
    dev: int

    @property
    def gains(self) -> bool:
        """True where the pair clearly leads the query side alone, as the best of many points, and not behind on dev."""
        return gains_clearly(self.scores, self.alone, self.dev)

    @property
    def after(self) -> float:
        """The mean over all held-out queries; ``dev_after``: over dev's."""
        return float(self.scores.mean())

    @property
    def dev_after(self) -> float:
        return float(self.scores[: self.dev].mean())

    @property
    def note(self) -> str:
        """What a person should read about it."""
        means = (
            f"held-out nDCG@10 {self.scores.mean():.3f} with both sides, {self.alone.mean():.3f} with queries' alone"
        )
        if not self.gains:
            return f"{means}: stored vectors may stay as they are."
        return f"{means}. Stored vectors must pass through the adapter's document side before they are searched."

    def describe(self) -> dict[str, object]:
        """For ``chosen`` in the result."""
        return {"rung": "both sides", "steps": self.steps, "strength": self.strength}


def fit_both_sides(problem: Problem, climbed: Climbed, seed: int = 0, progress: Progress = SILENT) -> BothSides:
    """Choose steps and strength on the problem's folds, then train on all queries.

    Args:
        problem: with folds.
        climbed: the ladder of the query side.
        seed: of the order.
        progress: counts trainings.
    """
    board, folds = HeldOut(problem, seed, LadderOptions()), problem.folds
    found: dict[tuple[int, float], list[Scores]] = {}
    fits = len(folds) + 1
    with few_threads(problem.pool, problem.dim), progress.task("both sides", total=fits, unit="trainings") as task:
        for fold, rows, among in zip(folds, board.held, board.among, strict=True):
            for steps, maps in _train(problem, fold.train, fold.pool, seed, STEPS):
                for strength in STRENGTHS:
                    scores = _score(maps, strength, problem.queries[rows], among)
                    found.setdefault((steps, strength), []).append(scores)
            task.advance(1)
        joined = {point: np.concatenate(parts) for point, parts in found.items()}
        steps, strength = best = max(joined, key=lambda point: float(joined[point].mean()))
        *_, (_, maps) = _train(problem, np.arange(len(problem.queries)), problem.pool, seed, (steps,))
        task.advance(1)
    query, document = maps.adapters(strength)
    return BothSides(query, document, steps, strength, joined[best], board.fitted(climbed.settings), len(board.held[0]))


def _score(maps: Maps, strength: float, queries: Vectors, among: Candidates) -> Scores:
    query, document = maps.adapters(strength)
    return ndcg_at_10(query.apply(queries) @ document.apply(among.vectors).T, among.positives)


def _train(problem: Problem, rows: Rows, pool: Rows, seed: int, steps: tuple[int, ...]) -> Iterator[tuple[int, Maps]]:
    """Train on these queries against this pool; the maps after each of ``steps``."""
    dim = problem.dim
    eye = torch.eye(dim)
    query, document = (torch.zeros(dim, dim, requires_grad=True) for _ in range(2))
    adam = torch.optim.Adam([query, document], lr=RATE * 384 / dim)
    queries = torch.from_numpy(np.ascontiguousarray(problem.queries[rows], dtype=np.float32))
    softmax = PoolSoftmax(problem.documents, pool, problem.positives.take(rows), np.random.default_rng(seed))
    order = batches(len(rows), BATCH, torch.Generator().manual_seed(seed))
    for step in range(1, steps[-1] + 1):
        drawn = next(order)
        asked = normalize(queries[drawn] @ (eye + query).T, dim=1)
        loss = softmax.loss(
            asked, drawn.numpy(), TEMPERATURE, lambda vectors: normalize(vectors @ (eye + document).T, dim=1)
        )
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step in steps:
            yield step, Maps(query.detach().numpy().copy(), document.detach().numpy().copy())
