"""Ids of many records as hashes of 64 bits: which number a record has, at twelve bytes of memory for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Rows = NDArray[np.int64]


def hash64(text: str) -> int:
    """A hash that is the same in every run; two of ten million texts share one with a chance of 3 in 10⁶."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def hashes_of(texts: Iterable[str]) -> Hashes:
    """``hash64`` of each text; shape (n,)."""
    return np.fromiter(map(hash64, texts), np.uint64)


class Ids:
    """Hashes of ids → row.

    Args:
        hashes: of every record's id, in order; shape (n,).
    """

    def __init__(self, hashes: Hashes) -> None:
        order = np.argsort(hashes, kind="stable")
        self._sorted, self._order = hashes[order], order.astype(np.uint32)

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def unique(self) -> bool:
        """Whether all ids differ."""
        return not bool((self._sorted[1:] == self._sorted[:-1]).any())

    def hashes(self) -> Hashes:
        """The hashes in order of row; shape (n,)."""
        found = np.empty(len(self), np.uint64)
        found[self._order] = self._sorted
        return found

    def row(self, key: str) -> int:
        """Row of an id; -1 where it is unknown."""
        return int(self.rows(np.array([hash64(key)], np.uint64))[0])

    def rows(self, hashes: Hashes) -> Rows:
        """Rows of hashed ids, -1 where one is unknown; shape of ``hashes``."""
        if not len(self):
            return np.full(len(hashes), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._sorted, hashes), len(self) - 1)
        return np.where(self._sorted[places] == hashes, self._order[places].astype(np.int64), -1)


def numbered(hashes: Hashes) -> NDArray[np.int32]:
    """Equal numbers for equal hashes, from 0 in the order of the hashes; shape of ``hashes``."""
    order = np.argsort(hashes, kind="stable")
    along = hashes[order]
    numbers = np.empty(len(hashes), dtype=np.int32)
    numbers[order] = np.cumsum(np.concatenate([[False], along[1:] != along[:-1]])[: len(along)], dtype=np.int32)
    return numbers
