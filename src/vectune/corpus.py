"""Chunks in a dataset folder, ``corpus.jsonl`` and ``documents.jsonl``: written as they come, read whole or on demand.

A small corpus is read into memory. Of one that is large, only ids and places of lines are, and each chunk is read when
it is asked for, so that a corpus may be larger than the memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.errors import DatasetError
from vectune.ids import hash64, hashes_of, numbered
from vectune.lines import json_lines, json_records, tsv_rows
from vectune.records import Chunk
from vectune.runs import Json
from vectune.stored import LineFile, StoredRecords

if TYPE_CHECKING:
    from vectune.ids import Hashes

IN_MEMORY = 256 << 20  # bytes of corpus.jsonl; in memory a chunk takes about twice its place on disk


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


class StoredCorpus(StoredRecords[Chunk]):
    """A corpus on disk: about 70 bytes of memory for a chunk, which is read when it is asked for.

    Args:
        path: a folder with corpus.jsonl, and documents.jsonl or docs.tsv where there is one.

    Attributes:
        documents: equal numbers for chunks of one document, shape (chunks,).
        starts: where each chunk begins in its document; -1 where unknown, shape (chunks,).
        contents: hash of each chunk's title and text, shape (chunks,).
        texts: hash of each chunk's text, or of its title where it has no text, shape (chunks,).
    """

    def __init__(self, path: Path) -> None:
        texts = array("Q")

        def content(line: Json) -> str:
            title, text = line.get("title") or "", line["text"]
            texts.append(hash64(text or title))
            return f"{title}\x1f{text}"

        super().__init__(path / "corpus.jsonl", content)
        self.texts: Hashes = np.frombuffer(texts, np.uint64)
        self._places: LineFile | None = None
        self._place_of = np.full(len(self), -1, dtype=np.int32)
        self._documents: dict[str, Json] = {}
        self.starts = np.full(len(self), -1, dtype=np.int32)
        documents = self.ids.hashes()  # without a document each chunk is its own
        if (path / "documents.jsonl").exists():
            self._read_stored_places(path / "documents.jsonl", documents)
        else:
            self._documents = _read_places(path)
            rows = self.ids.rows(hashes_of(self._documents))
            named = hashes_of(place["document"] for place in self._documents.values())
            documents[rows[rows >= 0]] = named[rows >= 0]
        self.documents = numbered(documents)

    def _read_stored_places(self, path: Path, documents: Hashes) -> None:
        places = LineFile(path)
        keys, named, starts = array("Q"), array("Q"), array("q")
        for place in checked_places(path, places.starts):
            keys.append(hash64(str(place.get("_id"))))
            named.append(hash64(place["document"]) if place.get("document") else keys[-1])
            starts.append(place.get("start", -1))
        rows = self.ids.rows(np.frombuffer(keys, np.uint64))
        known = rows >= 0
        self._place_of[rows[known]] = np.flatnonzero(known)
        documents[rows[known]] = np.frombuffer(named, np.uint64)[known]
        self.starts[rows[known]] = np.frombuffer(starts, np.int64)[known]
        self._places = places

    def _record(self, row: int, line: Json) -> Chunk:
        place = self._documents.get(line["_id"], {})
        if self._places is not None and self._place_of[row] >= 0:
            place = self._places[int(self._place_of[row])]
        return _chunk(line, place)


def _read_places(path: Path) -> dict[str, dict[str, Any]]:
    """Chunk id → its document and place, from documents.jsonl or a docs.tsv; empty where there is neither."""
    if (path / "documents.jsonl").exists():
        return {str(record.get("_id")): record for record in checked_places(path / "documents.jsonl")}
    if (path / "docs.tsv").exists():
        # A header, where there is one, stays: no chunk has its first word for an id.
        return {row[0]: {"document": row[1]} for _, row in tsv_rows(path / "docs.tsv", 2)}
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
