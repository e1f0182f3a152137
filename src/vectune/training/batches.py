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
class Units:
    """Many units in arrays.

    Attributes:
        chunks: of each unit, shape (n,).
        queries: of all units, one after another.
        starts: where each unit's queries begin, shape (n + 1,).
    """

    chunks: Ints
    queries: Ints
    starts: Ints

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Unit:
        part = self.queries[self.starts[number] : self.starts[number + 1]]
        return Unit(int(self.chunks[number]), tuple(part.tolist()))


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
        return sum(1 for _ in self.epoch(0))

    def epoch(self, number: int) -> Iterator[list[Unit]]:
        """The units of every batch of an epoch, in order; made as they are asked for."""
        draw = np.random.default_rng([self.seed, number])
        units = self._units(number, draw)
        coming = (units[place] for place in draw.permutation(len(units)))
        queries = len(units.queries)
        size = -(-queries // max(1, round(queries / self.size)))  # even batches: a short one would have few negatives
        batch, waiting = _take([], coming, size, self.data.same)
        some, small = False, list[list[Unit]]()
        while batch:
            # what is left over at the end shares one chunk or query: too few negatives to learn from
            if some and sum(len(unit.queries) for unit in batch) < max(2, size // 4):
                small.append(batch)
            else:
                yield from (*small, batch)
                some, small = True, []
            batch, waiting = _take(waiting, coming, size, self.data.same)

    def _units(self, epoch: int, draw: np.random.Generator) -> Units:
        """The epoch's pairs by chunk, each chunk's in random order; in arrays, since there may be millions."""
        positives, same = self.data.positives, self.data.same
        counts = np.diff(positives.starts)
        taken = np.minimum(counts, POSITIVES_AN_EPOCH)
        queries = np.repeat(np.arange(len(taken)), taken)
        ranks = np.arange(len(queries)) - np.repeat(np.cumsum(taken) - taken, taken)
        places = positives.starts[queries] + (ranks + epoch * POSITIVES_AN_EPOCH) % counts[queries]
        chunks = positives.values[places]
        first = np.zeros(len(same), dtype=np.int64)  # where a chunk's text comes first: the order of the groups
        first[same[chunks[::-1]]] = np.arange(len(chunks))[::-1]
        group = first[same[chunks]]
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        ends = np.append(starts[1:], len(order))
        for start, end in zip(*((s[ends - starts > 1]) for s in (starts, ends)), strict=True):
            order[start:end] = order[start:end][draw.permutation(end - start)]
        within = np.arange(len(order)) - np.repeat(starts, ends - starts)
        cuts = np.flatnonzero(within % QUERIES_A_CHUNK == 0)
        return Units(chunks[order[cuts]], queries[order], np.append(cuts, len(order)))

    def batch(self, units: list[Unit], epoch: int) -> Batch:
        """The units with their mined negatives and masks."""
        queries = np.array([query for unit in units for query in unit.queries], dtype=np.int64)
        targets = np.array([place for place, unit in enumerate(units) for _ in unit.queries], dtype=np.int64)
        mined = [self._mined(unit, epoch) for unit in units]
        chunks = np.array(
            list(dict.fromkeys([*(unit.chunk for unit in units), *(c for row in mined for c in row)])), dtype=np.int64
        )
        masked = self.masks(queries, chunks)
        askers = [self._asker(unit, epoch) for unit in units]
        for row, (query, target) in enumerate(zip(queries, targets, strict=True)):
            if query == askers[target]:  # mining has already judged what it found for this one
                own = np.isin(chunks, mined[target])
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
        row = self.negatives[self._asker(unit, epoch)]
        row = row[row >= 0]
        return [int(row[(epoch * self.used + i) % len(row)]) for i in range(min(self.used, len(row)))]

    @staticmethod
    def _asker(unit: Unit, epoch: int) -> int:
        """The query whose mined chunks its unit brings along."""
        return unit.queries[epoch % len(unit.queries)]

    def walk(self, epoch: int, position: int) -> Iterator[tuple[int, int, Batch]]:
        """Batches from a place on, without end: (epoch, position after it, batch)."""
        while True:
            for at, units in enumerate(self.epoch(epoch)):
                if at >= position:
                    yield epoch, at + 1, self.batch(units, epoch)
            epoch, position = epoch + 1, 0


def _take(waiting: list[Unit], coming: Iterator[Unit], size: int, same: Ints) -> tuple[list[Unit], list[Unit]]:
    """Fill a batch in order; who shares a query or a chunk's text with it waits for the next."""
    batch: list[Unit] = []
    left: list[Unit] = []
    queries: set[int] = set()
    chunks: set[int] = set()
    earlier = iter(waiting)
    while len(queries) < size:
        unit = next(earlier, None) or next(coming, None)
        if unit is None:
            break
        if int(same[unit.chunk]) in chunks or not queries.isdisjoint(unit.queries):
            left.append(unit)
            continue
        batch.append(unit)
        queries.update(unit.queries)
        chunks.add(int(same[unit.chunk]))
    return batch, [*left, *earlier]
