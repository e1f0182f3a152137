"""Judgments of a split in arrays: millions of pairs at 14 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.corpus import StoredCorpus
from vectune.errors import DatasetError
from vectune.ids import hashes_of
from vectune.lines import tsv_rows
from vectune.stored import StoredQueries

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 65_536  # lines whose ids are looked up together


@dataclass(frozen=True)
class StoredQrels(Mapping[str, Mapping[str, int]]):
    """Query id → chunk id → grade, over a corpus and queries on disk.

    Attributes:
        queries, corpus: what the rows are rows of.
        asked: row of each judgment's query, ascending, shape (judgments,).
        chunks: row of its chunk, shape (judgments,).
        grades: its grade, at least 1, shape (judgments,).
    """

    queries: StoredQueries
    corpus: StoredCorpus
    asked: NDArray[np.int32]
    chunks: NDArray[np.int32]
    grades: NDArray[np.int16]

    @classmethod
    def read(cls, path: Path, queries: StoredQueries, corpus: StoredCorpus) -> StoredQrels:
        """Read a TSV of query, chunk and score; scores below 1 are left out.

        Raises:
            DatasetError: an unknown id, or a score that is no number.
        """
        parts: tuple[array[int], array[int], array[int]] = array("i"), array("i"), array("h")
        rows = tsv_rows(path, columns=3)
        while block := list(islice(rows, BLOCK)):
            asked = queries.ids.rows(hashes_of(row[0] for _, row in block))
            chunks = corpus.ids.rows(hashes_of(row[1] for _, row in block))
            if block[0][0] == 1 and is_header(block[0][1]) and min(asked[0], chunks[0]) < 0:
                block, asked, chunks = block[1:], asked[1:], chunks[1:]
            for kind, column, found in (("query", 0, asked), ("chunk", 1, chunks)):
                if (found < 0).any():
                    number, row = block[int(np.flatnonzero(found < 0)[0])]
                    raise DatasetError(f"names the unknown {kind} id '{row[column]}'.", path=path, line=number)
            grades = np.array([checked_grade(row[2], path, number) for number, row in block], dtype=np.int64)
            kept = grades >= 1
            for part, values in zip(parts, (asked, chunks, np.minimum(grades, 2**15 - 1)), strict=True):
                part.frombytes(values[kept].astype(f"={part.typecode}").tobytes())
        types = (np.int32, np.int32, np.int16)
        columns = [np.frombuffer(part, kind) for part, kind in zip(parts, types, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return cls(queries, corpus, *(column[order] for column in columns))

    def take(self, kept: NDArray[np.bool_]) -> StoredQrels:
        """Some of the judgments; ``kept`` has the shape (judgments,)."""
        return StoredQrels(self.queries, self.corpus, self.asked[kept], self.chunks[kept], self.grades[kept])

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The same in memory; for a few."""
        return {key: dict(judged) for key, judged in self.items()}

    def _of_row(self, row: int) -> dict[str, int]:
        start, end = np.searchsorted(self.asked, [row, row + 1])
        return {self.corpus.id_at(int(self.chunks[at])): int(self.grades[at]) for at in range(start, end)}

    def __getitem__(self, key: str) -> dict[str, int]:
        row = self.queries.ids.row(key)
        found = self._of_row(row) if row >= 0 else {}
        if not found:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return (self.queries.id_at(int(row)) for row in np.unique(self.asked))

    def __len__(self) -> int:
        return int((np.diff(self.asked, prepend=-1) > 0).sum())


def is_header(row: Sequence[str]) -> bool:
    """Whether a first row's third field is no number; its ids must be unknown, too."""
    try:
        return not isfinite(float(row[2]))
    except ValueError:
        return True


def grade_of(score: Any) -> int:
    """A score as a whole number.

    Raises:
        ValueError: it is none; a grade of 0.9 would not say whether the chunk answers.
    """
    try:
        grade = float(score)
    except (TypeError, ValueError):
        grade = nan
    if not isfinite(grade):
        raise ValueError(f"the score '{score}' is not a number.")
    if not grade.is_integer():
        raise ValueError(f"the score '{score}' is not a whole number; 0 is not relevant, 1 and more is.")
    return int(grade)


def checked_grade(score: str, path: Path, line: int) -> int:
    """``grade_of`` for a line of a file.

    Raises:
        DatasetError: it is no whole number.
    """
    try:
        return grade_of(score)
    except ValueError as error:
        raise DatasetError(str(error), path=path, line=line) from None
