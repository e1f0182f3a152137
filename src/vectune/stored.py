"""Records of a JSONL file that stay on disk: in memory are a hash of each id and the place of each line."""

from __future__ import annotations

import threading
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from vectune.errors import DatasetError
from vectune.ids import Ids, hash64
from vectune.lines import json_records, json_texts, whole_json
from vectune.records import Query
from vectune.runs import Json

T = TypeVar("T")


class LineFile:
    """Lines of a JSONL file by number; safe to read from several threads.

    Attributes:
        starts: where each line begins, in bytes; whoever reads the file first fills it.
    """

    def __init__(self, path: Path) -> None:
        self.starts = array("Q")
        self._file = path.open("rb")
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def __getitem__(self, number: int) -> Json:
        with self._lock:
            self._file.seek(self.starts[number])
            line = self._file.readline()
        found: Json = whole_json(line.decode("utf-8-sig"))
        return found


class StoredRecords(Mapping[str, T], Generic[T]):
    """Id → record; a record is read when it is asked for. About 30 bytes of memory for each.

    Every line is checked at the start. The file stays open, so a folder that is replaced goes on being read.

    Args:
        path: the file.
        content: what of a line is hashed, to find lines that say the same.

    Attributes:
        ids: id → row.
        contents: hash of each line's content, shape (n,).

    Raises:
        DatasetError: the file is missing, a line is broken, an id is doubled.
    """

    def __init__(self, path: Path, content: Callable[[Json], str]) -> None:
        keys, contents, starts = array("Q"), array("Q"), array("Q")
        for _, start, record in json_texts(path):
            keys.append(hash64(record["_id"]))
            contents.append(hash64(content(record)))
            starts.append(start)
        self._lines = LineFile(path)
        self._lines.starts = starts
        self.ids = Ids(np.frombuffer(keys, np.uint64))
        self.contents = np.frombuffer(contents, np.uint64)
        if not self.ids.unique:
            for _ in json_records(path):  # names the two lines
                pass
            raise DatasetError("two ids have the same hash of 64 bits; change one of them.", path=path)

    @abstractmethod
    def _record(self, row: int, line: Json) -> T:
        """The record of a line, whose ``_id`` is a string."""

    def at(self, row: int) -> T:
        """The record of a row."""
        line = self._lines[row]
        line["_id"] = str(line["_id"])
        return self._record(row, line)

    def id_at(self, row: int) -> str:
        """The id of a row."""
        return str(self._lines[row]["_id"])

    def __getitem__(self, key: str) -> T:
        row = self.ids.row(key)
        if row < 0:
            raise KeyError(key)
        return self.at(row)

    def __iter__(self) -> Iterator[str]:
        return map(self.id_at, range(len(self)))

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.ids.row(key) >= 0

    def values(self) -> ValuesView[T]:
        return _Records(self)


class _Records(ValuesView[T]):
    """All records, one after another: no look-up for each."""

    def __init__(self, records: StoredRecords[T]) -> None:
        super().__init__(records)
        self._records = records

    def __iter__(self) -> Iterator[T]:
        return map(self._records.at, range(len(self._records)))


class StoredQueries(StoredRecords[Query]):
    """The queries of a folder's queries.jsonl; ``contents`` are hashes of their texts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda line: str(line["text"]))

    def _record(self, row: int, line: Json) -> Query:
        return query_of(line)


def query_of(line: Json) -> Query:
    """A line of queries.jsonl as a query."""
    return Query(line["text"], line.get("style", ""), line.get("writer", ""), id=line["_id"])
