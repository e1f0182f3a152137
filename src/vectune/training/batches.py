"""Batches: every chunk once, every query once, and a table of who must not be a negative to whom."""

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


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        queries: train queries, shape (b,).
        chunks: different chunks, first the positives in the order of the queries, then the others; shape (c,).
        masked: True where chunk ``j`` is no negative of query ``i`` although it is not its target; shape (b, c).
    """

    queries: Ints
    chunks: Ints
    masked: Bools


class Batches:
    """An endless, repeatable order of batches: epoch ``e`` is the same whenever it is asked for.

    Args:
        data: what to train on.
        size: queries in a batch.
        negatives: mined chunks of each query, hardest first, -1 for none; shape (queries, depth).
        used: how many of them go into a batch with their query; later epochs use later ones.
        seed: of the order.
    """

    def __init__(self, data: TrainingData, size: int, negatives: Ints, used: int, seed: int) -> None:
        self.data, self.size, self.negatives, self.used, self.seed = data, size, negatives, used, seed
        self._pairs = [
            (query, rank)
            for query, chunks in enumerate(data.positives)
            for rank in range(min(len(chunks), POSITIVES_AN_EPOCH))
        ]

    def __len__(self) -> int:
        """Batches in an epoch; the same in each, up to queries that share their only positive."""
        return max(1, -(-len(self._pairs) // self.size))

    def epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """(query, positive) of every batch of an epoch, in order."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self._pairs))
        waiting = [self._pair(int(i), number) for i in order]
        batches: list[list[tuple[int, int]]] = []
        size = -(-len(waiting) // len(self))  # even batches: a short last one would have few negatives
        while waiting:
            batch, waiting = _take(waiting, size, self.data.same)
            batches.append(batch)
        while len(batches) > 1 and len(batches[-1]) < max(2, size // 4):
            batches.pop()  # what is left over all shares one chunk: too few to learn from
        return batches

    def _pair(self, i: int, epoch: int) -> tuple[int, int]:
        query, rank = self._pairs[i]
        chunks = self.data.positives[query]
        return query, chunks[(rank + epoch * POSITIVES_AN_EPOCH) % len(chunks)]

    def batch(self, pairs: list[tuple[int, int]], epoch: int) -> Batch:
        """The pairs with their mined negatives and masks."""
        queries = np.array([query for query, _ in pairs], dtype=np.int64)
        targets = [chunk for _, chunk in pairs]
        mined = [self._mined(query, epoch) for query, _ in pairs]
        chunks = np.array(list(dict.fromkeys([*targets, *(c for row in mined for c in row)])), dtype=np.int64)
        masked = np.zeros((len(queries), len(chunks)), dtype=bool)
        for row, query in enumerate(queries):
            masked[row] = self.data.kin(int(query), chunks)
            masked[row] &= ~np.isin(chunks, mined[row])  # mining has already judged these
            masked[row, row] = False
        return Batch(queries, chunks, masked)

    def _mined(self, query: int, epoch: int) -> list[int]:
        row = self.negatives[query]
        row = row[row >= 0]
        if not len(row) or not self.used:
            return []
        return [int(row[(epoch * self.used + i) % len(row)]) for i in range(min(self.used, len(row)))]

    def walk(self, epoch: int, position: int) -> Iterator[tuple[int, int, Batch]]:
        """Batches from a place on, without end: (epoch, position after it, batch)."""
        while True:
            batches = self.epoch(epoch)
            for at in range(position, len(batches)):
                yield epoch, at + 1, self.batch(batches[at], epoch)
            epoch, position = epoch + 1, 0


def _take(waiting: list[tuple[int, int]], size: int, same: Ints) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Fill a batch in order; who shares a query or a chunk's text with it waits for the next."""
    batch: list[tuple[int, int]] = []
    left: list[tuple[int, int]] = []
    queries: set[int] = set()
    chunks: set[int] = set()
    for at, (query, chunk) in enumerate(waiting):
        if len(batch) == size:
            left.extend(waiting[at:])
            break
        if query in queries or int(same[chunk]) in chunks:
            left.append((query, chunk))
            continue
        batch.append((query, chunk))
        queries.add(query)
        chunks.add(int(same[chunk]))
    return batch, left
