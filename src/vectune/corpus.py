"""Chunks in a dataset folder, ``corpus.jsonl`` and ``documents.jsonl``: written as they come, read whole or on demand.

A small corpus is read into memory. Of one that is large, only ids and places of lines are, and each chunk is read when
it is asked for, so that a corpus may be larger than the memory.
"""

from __future__ import annotations

import json
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vectune.errors import DatasetError
from vectune.lines import json_lines, json_records, tsv_rows
from vectune.records import Chunk
from vectune.runs import Json

IN_MEMORY = 256 << 20  # bytes of corpus.jsonl; in memory a chunk takes about twice its place on disk
MISSING = 2**64 - 1


def write_corpus(folder: Path, chunks: Iterable[Chunk]) -> int:
    """Write corpus.jsonl and documents.jsonl as the chunks come; returns how many there were."""
    count = 0
    with (
        (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
        (folder / "documents.jsonl").open("w", encoding="utf-8") as places,
    ):
        for chunk in chunks:
            corpus.write(json.dumps(_chunk_line(chunk), ensure_ascii=False) + "\n")
            places.write(json.dumps(_place_line(chunk), ensure_ascii=False) + "\n")
            count += 1
    return count


def _chunk_line(chunk: Chunk) -> Json:
    return {"_id": chunk.id, "title": chunk.title, "text": chunk.text}


def _place_line(chunk: Chunk) -> Json:
    return {
        "_id": chunk.id,
        "document": chunk.document_id,
        "source": chunk.source,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "headings": list(chunk.headings),
    }


def read_corpus(path: Path, in_memory: int = IN_MEMORY) -> Mapping[str, Chunk]:
    """Chunk id → chunk, from corpus.jsonl and, where there is one, documents.jsonl or docs.tsv.

    Args:
        path: the dataset folder.
        in_memory: size of corpus.jsonl, in bytes, from which chunks are read on demand.

    Raises:
        DatasetError: a file is missing or empty, a line is broken, an id is doubled.
    """
    file = path / "corpus.jsonl"
    large = file.exists() and file.stat().st_size > in_memory
    corpus = StoredCorpus(path) if large else _read_whole(path)
    if not corpus:
        raise DatasetError("holds no chunk.", path=file)
    return corpus


def _read_whole(path: Path) -> dict[str, Chunk]:
    places = _read_places(path)
    return {line["_id"]: _chunk(line, places.get(line["_id"], {})) for line in json_records(path / "corpus.jsonl")}


def _chunk(line: Json, place: Json) -> Chunk:
    return Chunk(
        text=line["text"],
        title=line.get("title") or "",
        document_id=place.get("document", ""),
        source=place.get("source", ""),
        start=place.get("start", -1),
        end=place.get("end", -1),
        page=place.get("page", 0),
        headings=tuple(place.get("headings", ())),
        id=str(line["_id"]),
    )


class StoredCorpus(Mapping[str, Chunk]):
    """A corpus on disk: about 200 bytes of memory for a chunk, which is read when it is asked for.

    Every line is checked at the start. The files stay open, so a folder that is replaced goes on being read.

    Args:
        path: a folder with corpus.jsonl, and documents.jsonl or docs.tsv where there is one.
    """

    def __init__(self, path: Path) -> None:
        self._lines, self._rows = LineFile(path / "corpus.jsonl"), dict[str, int]()
        for record in json_records(path / "corpus.jsonl", self._lines.starts):
            self._rows[record["_id"]] = len(self._rows)
        self._places: LineFile | None = None
        self._row_of_place = array("Q", [MISSING]) * len(self._rows)
        self._documents: dict[str, Json] = {}
        if (path / "documents.jsonl").exists():
            self._places = LineFile(path / "documents.jsonl")
            for row, place in enumerate(checked_places(path / "documents.jsonl", self._places.starts)):
                if str(place.get("_id")) in self._rows:
                    self._row_of_place[self._rows[str(place["_id"])]] = row
        else:
            self._documents = _read_places(path)

    def __getitem__(self, key: str) -> Chunk:
        row = self._rows[key]
        place = self._documents.get(key, {})
        if self._places is not None and self._row_of_place[row] != MISSING:
            place = self._places[self._row_of_place[row]]
        return _chunk(self._lines[row], place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows


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
        found: Json = json.loads(line)
        return found


def _read_places(path: Path) -> dict[str, dict[str, Any]]:
    """Chunk id → its document and place, from documents.jsonl or a docs.tsv; empty where there is neither."""
    if (path / "documents.jsonl").exists():
        return {str(record.get("_id")): record for record in checked_places(path / "documents.jsonl")}
    if (path / "docs.tsv").exists():
        return {row[0]: {"document": row[1]} for number, row in tsv_rows(path / "docs.tsv", 2) if number > 1}
    return {}


def checked_places(path: Path, starts: array[int] | None = None) -> Iterator[Json]:
    kinds: dict[str, type] = {"document": str, "source": str, "start": int, "end": int, "page": int, "headings": list}
    for number, start, record in json_lines(path):
        for key, kind in kinds.items():
            if key in record and not isinstance(record[key], kind):
                raise DatasetError(f"'{key}' is not of the type {kind.__name__}.", path=path, line=number)
        if starts is not None:
            starts.append(start)
        yield record
