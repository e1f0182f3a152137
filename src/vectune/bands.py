"""Where signatures of many texts are kept: a few bytes of each in memory, the rest in a temporary file."""

from __future__ import annotations

import weakref
from array import array
from tempfile import SpooledTemporaryFile

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 16 << 20  # bytes; longer lists of records go to a temporary file
FRESH = 65_536  # entries kept in a dictionary before they become a sorted array
LONGEST = 1 << 21  # entries of a sorted array: merging two of them takes as much memory again

Keys = NDArray[np.uint64]


class RecordFile:
    """Byte strings by their number, appended one by one; eight bytes each in memory."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile[bytes](max_size=IN_MEMORY)
        weakref.finalize(self, self._file.close)
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, record: bytes) -> int:
        """Keep a record; returns its number."""
        self._file.seek(self._ends[-1])
        self._file.write(record)
        self._ends.append(self._ends[-1] + len(record))
        return len(self) - 1

    def __getitem__(self, number: int) -> bytes:
        start = self._ends[number]
        self._file.seek(start)
        return self._file.read(self._ends[number + 1] - start)


class KeyIndex:
    """Keys of 64 bits → numbers, several for a key where need be.

    New entries are in a dictionary, older ones in sorted arrays of which a long one is made from two of a length:
    twelve bytes an entry, and a look-up is a binary search in each of a few arrays.
    """

    def __init__(self) -> None:
        self._fresh: dict[int, list[int]] = {}
        self._entries = 0
        self._runs: list[tuple[Keys, NDArray[np.uint32]]] = []

    def insert(self, keys: Keys, number: int) -> None:
        """Let each of the keys lead to the number (below 2³²)."""
        for key in keys.tolist():
            self._fresh.setdefault(key, []).append(number)
        self._entries += len(keys)
        if self._entries >= FRESH:
            self._sort_fresh()

    def find(self, keys: Keys) -> set[int]:
        """All numbers that one of the keys leads to."""
        found = {number for key in keys.tolist() for number in self._fresh.get(key, ())}
        for known, numbers in self._runs:
            starts = np.searchsorted(known, keys)
            hits = np.flatnonzero(known[np.minimum(starts, len(known) - 1)] == keys)
            for hit in hits.tolist():
                end = int(np.searchsorted(known, keys[hit], side="right"))
                found.update(numbers[starts[hit] : end].tolist())
        return found

    def _sort_fresh(self) -> None:
        entries = [(key, number) for key, numbers in self._fresh.items() for number in numbers]
        keys, numbers = zip(*entries, strict=True)
        self._runs.append(_sorted(np.array(keys, np.uint64), np.array(numbers, np.uint32)))
        self._fresh.clear()
        self._entries = 0
        while len(self._runs) > 1 and self._alike(*(len(keys) for keys, _ in self._runs[-2:])):
            first, second = self._runs[-2:]
            self._runs[-2:] = [_sorted(np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]))]

    @staticmethod
    def _alike(first: int, second: int) -> bool:
        return first <= 2 * second and first + second <= LONGEST


def _sorted(keys: Keys, numbers: NDArray[np.uint32]) -> tuple[Keys, NDArray[np.uint32]]:
    order = np.argsort(keys)
    return keys[order], numbers[order]
