"""Batches: every chunk is encoded once for all its queries, and a table says who must not be a negative to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectune.training.data import TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

POSITIVES_AN_EPOCH = 4  # a query with twenty answers would otherwise outweigh twenty queries
QUERIES_A_CHUNK = 4  # of one chunk in one batch: they share its cost, but more would be less variety


@dataclass(frozen=True)
class Unit:
    """A chunk and the queries that learn it in one batch; a chunk is ten times as long, and encoded once."""

    chunk: int
    queries: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        queries: train queries, shape (b,).
        targets: place of each query's positive in ``chunks``, shape (b,).
        chunks: different chunks, shape (c,).
        masked: True where a chunk is no negative of a query although it is not its target, shape (b, c).
    """

    queries: Ints
    targets: Ints
    chunks: Ints
    masked: Bools


class Batches:
    """An endless, repeatable order of batches: epoch ``e`` is the same whenever it is asked for.

    Args:
        data: what to train on.
        size: queries in a batch.
        negatives: mined chunks of each query, hardest first, -1 for none; shape (queries, depth).
        used: how many of them a chunk brings into its batch; later epochs use later ones.
        seed: of the order.
    """

    def __init__(self, data: TrainingData, size: int, negatives: Ints, used: int, seed: int) -> None:
        self.data, self.size, self.negatives, self.used, self.seed = data, size, negatives, used, seed

    def __len__(self) -> int:
        """Batches in the first epoch; others have as many, give or take one."""
        return len(self.epoch(0))

    def epoch(self, number: int) -> list[list[Unit]]:
        """The units of every batch of an epoch, in order."""
        draw = np.random.default_rng([self.seed, number])
        units = self._units(number, draw)
        waiting = [units[i] for i in draw.permutation(len(units))]
        queries = sum(len(unit.queries) for unit in waiting)
        size = -(-queries // max(1, round(queries / self.size)))  # even batches: a short one would have few negatives
        batches: list[list[Unit]] = []
        while waiting:
            batch, waiting = _take(waiting, size, self.data.same)
            batches.append(batch)
        while len(batches) > 1 and sum(len(unit.queries) for unit in batches[-1]) < max(2, size // 4):
            batches.pop()  # what is left over shares one chunk or query: too few negatives to learn from
        return batches

    def _units(self, epoch: int, draw: np.random.Generator) -> list[Unit]:
        learners: dict[int, list[tuple[int, int]]] = {}
        for query, chunks in enumerate(self.data.positives):
            for rank in range(min(len(chunks), POSITIVES_AN_EPOCH)):
                chunk = chunks[(rank + epoch * POSITIVES_AN_EPOCH) % len(chunks)]
                learners.setdefault(int(self.data.same[chunk]), []).append((query, chunk))
        units = []
        for pairs in learners.values():
            order = [pairs[i] for i in draw.permutation(len(pairs))]
            for start in range(0, len(order), QUERIES_A_CHUNK):
                part = order[start : start + QUERIES_A_CHUNK]
                units.append(Unit(part[0][1], tuple(query for query, _ in part)))
        return units

    def batch(self, units: list[Unit], epoch: int) -> Batch:
        """The units with their mined negatives and masks."""
        queries = np.array([query for unit in units for query in unit.queries], dtype=np.int64)
        targets = np.array([place for place, unit in enumerate(units) for _ in unit.queries], dtype=np.int64)
        mined = [self._mined(unit, epoch) for unit in units]
        chunks = np.array(
            list(dict.fromkeys([*(unit.chunk for unit in units), *(c for row in mined for c in row)])), dtype=np.int64
        )
        masked = self.masks(queries, chunks)
        for row, (query, target) in enumerate(zip(queries, targets, strict=True)):
            own = np.isin(chunks, mined[target])  # mining has already judged its own
            masked[row, own] = self.data.answers(int(query), chunks[own])
            masked[row, target] = False
        return Batch(queries, targets, chunks, masked)

    def masks(self, queries: Ints, chunks: Ints) -> Bools:
        """Which chunks must not be negatives of which queries when they meet by chance, shape (queries, chunks)."""
        return np.stack([self.data.kin(int(query), chunks) for query in queries])

    def _mined(self, unit: Unit, epoch: int) -> list[int]:
        """Negatives of one of the unit's queries; another one's in the next epoch."""
        if not self.used:
            return []
        row = self.negatives[unit.queries[epoch % len(unit.queries)]]
        row = row[row >= 0]
        return [int(row[(epoch * self.used + i) % len(row)]) for i in range(min(self.used, len(row)))]

    def walk(self, epoch: int, position: int) -> Iterator[tuple[int, int, Batch]]:
        """Batches from a place on, without end: (epoch, position after it, batch)."""
        while True:
            batches = self.epoch(epoch)
            for at in range(position, len(batches)):
                yield epoch, at + 1, self.batch(batches[at], epoch)
            epoch, position = epoch + 1, 0


def _take(waiting: list[Unit], size: int, same: Ints) -> tuple[list[Unit], list[Unit]]:
    """Fill a batch in order; who shares a query or a chunk's text with it waits for the next."""
    batch: list[Unit] = []
    left: list[Unit] = []
    queries: set[int] = set()
    chunks: set[int] = set()
    for at, unit in enumerate(waiting):
        if len(queries) >= size:
            left.extend(waiting[at:])
            break
        if int(same[unit.chunk]) in chunks or not queries.isdisjoint(unit.queries):
            left.append(unit)
            continue
        batch.append(unit)
        queries.update(unit.queries)
        chunks.add(int(same[unit.chunk]))
    return batch, left
