"""RetrievalDataset: a corpus, queries and judgments, in the BEIR layout on disk.

``corpus.jsonl``, ``queries.jsonl`` and ``qrels/{train,dev,test}.tsv`` are what the field's tools read. Beside them
``documents.jsonl`` tells which document, offsets and page a chunk comes from (a ``docs.tsv`` with passage and document
serves as well), and ``dataset.json`` where the dataset came from. Other formats are in ``formats.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vectune.errors import DatasetError
from vectune.records import Chunk, Query
from vectune.runs import Json, hash_files, write_json, writing

SPLITS = ("train", "dev", "test")
Qrels = dict[str, dict[str, int]]  # query id → chunk id → grade, grades of at least 1


@dataclass
class RetrievalDataset:
    """Chunks, queries and who answers what.

    Attributes:
        corpus: chunk id → chunk, in the order of the file.
        queries: query id → query; all splits together.
        qrels: split → query id → chunk id → grade. Only grades of at least 1.
        info: free facts kept in ``dataset.json``: where it came from, filters' counts, warnings.
        path: the folder it was read from, if any.
    """

    corpus: dict[str, Chunk]
    queries: dict[str, Query]
    qrels: dict[str, Qrels]
    info: Json = field(default_factory=dict)
    path: Path | None = None

    @property
    def name(self) -> str:
        return str(self.info.get("name") or (self.path.name if self.path else "dataset"))

    @property
    def generated(self) -> bool:
        """True when the queries were written by a machine; a board must say so in its title."""
        return bool(self.info.get("generated"))

    def queries_of(self, split: str) -> list[Query]:
        """The queries that have judgments in this split, in a stable order.

        Raises:
            DatasetError: the dataset has no such split.
        """
        return [self.queries[query_id] for query_id in self.split(split)]

    def split(self, split: str) -> Qrels:
        """The judgments of one split.

        Raises:
            DatasetError: the dataset has no such split.
        """
        if not self.qrels.get(split):
            have = ", ".join(name for name in self.qrels if self.qrels[name]) or "none"
            raise DatasetError(
                f"the dataset '{self.name}' has no judgments for the split '{split}' (it has: {have}).",
                f"Add qrels/{split}.tsv, or name another split.",
            )
        return self.qrels[split]

    @cached_property
    def chunks_of(self) -> Mapping[str, tuple[str, ...]]:
        """Document id → ids of its chunks, in order."""
        found: dict[str, list[str]] = {}
        for chunk in self.corpus.values():
            found.setdefault(chunk.document_id, []).append(chunk.id)
        return {document: tuple(chunks) for document, chunks in found.items()}

    def documents_of(self, split: str) -> set[str]:
        """Ids of the documents that hold a positive of this split."""
        return {self.corpus[chunk].document_id for judged in self.split(split).values() for chunk in judged}

    def write(self, folder: Path) -> None:
        """Write the folder whole or not at all."""
        with writing(folder) as beside:
            (beside / "qrels").mkdir(parents=True)
            write_corpus(beside, self.corpus.values())
            _write_lines(beside / "queries.jsonl", (_query_line(query) for query in self.queries.values()))
            for split, qrels in self.qrels.items():
                _write_qrels(beside / "qrels" / f"{split}.tsv", qrels)
            write_json(beside / "dataset.json", {**self.info, "counts": self.counts()})

    def counts(self) -> Json:
        """How many chunks, documents and queries there are, and queries for each split."""
        return {
            "chunks": len(self.corpus),
            "documents": len(self.chunks_of),
            "queries": len(self.queries),
            **{split: len(qrels) for split, qrels in self.qrels.items()},
        }

    @classmethod
    def read(cls, folder: str | Path) -> RetrievalDataset:
        """Read a dataset folder; every line is checked.

        Raises:
            DatasetError: a file is missing, a line is broken, an id is doubled or unknown.
        """
        path = Path(folder)
        if not path.is_dir():
            raise DatasetError(f"{path}: no such dataset folder.", "Give a folder with corpus.jsonl and queries.jsonl.")
        corpus = read_corpus(path)
        queries = {
            line["_id"]: Query(line["text"], line.get("style", ""), line.get("writer", ""), id=line["_id"])
            for line in _records(path / "queries.jsonl")
        }
        qrels = _read_all_qrels(path, corpus, queries)
        return cls(corpus, queries, qrels, _read_info(path), path)


def dataset_key(folder: Path) -> str:
    """Changes whenever a file of the dataset folder changes; read from sizes and times, not from contents."""
    return hash_files(sorted(file for file in folder.rglob("*") if file.is_file() and ".cache" not in file.parts))


# Writing


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


def _write_lines(path: Path, lines: Iterator[Json]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _write_qrels(path: Path, qrels: Qrels) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(
            f"{query}\t{chunk}\t{grade}\n" for query, judged in qrels.items() for chunk, grade in judged.items()
        )


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


def _query_line(query: Query) -> Json:
    return {"_id": query.id, "text": query.text, "style": query.style, "writer": query.writer}


# Reading


def read_corpus(path: Path) -> dict[str, Chunk]:
    """Chunk id → chunk, from corpus.jsonl and, where there is one, documents.jsonl or docs.tsv."""
    places = _read_places(path)
    corpus = {}
    for line in _records(path / "corpus.jsonl"):
        place = places.get(line["_id"], {})
        corpus[line["_id"]] = Chunk(
            text=line["text"],
            title=line.get("title") or "",
            document_id=place.get("document", ""),
            source=place.get("source", ""),
            start=place.get("start", -1),
            end=place.get("end", -1),
            page=place.get("page", 0),
            headings=tuple(place.get("headings", ())),
            id=line["_id"],
        )
    if not corpus:
        raise DatasetError("holds no chunk.", path=path / "corpus.jsonl")
    return corpus


def _records(path: Path) -> Iterator[Json]:
    """The objects of a JSONL file, each with a unique string ``_id`` and a string ``text``."""
    seen: dict[str, int] = {}
    for number, record in _json_lines(path):
        key, text = record.get("_id"), record.get("text")
        if not isinstance(key, str | int) or key == "":
            raise DatasetError("has no '_id'.", path=path, line=number)
        if not isinstance(text, str):
            raise DatasetError(f"'text' of '{key}' is not a string.", path=path, line=number)
        record["_id"] = str(key)
        if record["_id"] in seen:
            first = seen[record["_id"]]
            raise DatasetError(
                f"the id '{key}' is already on line {first}; ids must be unique.", path=path, line=number
            )
        seen[record["_id"]] = number
        yield record


def _json_lines(path: Path) -> Iterator[tuple[int, Json]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"is not valid JSON ({error}).", path=path, line=number) from None
        if not isinstance(record, dict):
            raise DatasetError("is not a JSON object.", path=path, line=number)
        yield number, record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a file of ours; whatever keeps it from being read is a DatasetError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: the file is missing.", "A dataset folder holds corpus.jsonl, queries.jsonl and qrels/."
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"is not valid UTF-8 ({error.reason} at byte {error.start}).", path=path) from None
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror}).", path=path) from None


def _read_places(path: Path) -> dict[str, dict[str, Any]]:
    """Chunk id → its document and place, from documents.jsonl or a docs.tsv; empty where there is neither."""
    if (path / "documents.jsonl").exists():
        return {str(record.get("_id")): record for record in _checked_places(path / "documents.jsonl")}
    if (path / "docs.tsv").exists():
        return {row[0]: {"document": row[1]} for number, row in _tsv_rows(path / "docs.tsv", 2) if number > 1}
    return {}


def _checked_places(path: Path) -> Iterator[Json]:
    kinds: dict[str, type] = {"document": str, "source": str, "start": int, "end": int, "page": int, "headings": list}
    for number, record in _json_lines(path):
        for key, kind in kinds.items():
            if key in record and not isinstance(record[key], kind):
                raise DatasetError(f"'{key}' is not of the type {kind.__name__}.", path=path, line=number)
        yield record


def _tsv_rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Rows with at least this many columns, the header among them."""
    for number, line in _lines(path):
        row = line.rstrip("\r\n").split("\t")
        if row == [""]:
            continue
        if len(row) < columns:
            raise DatasetError(f"has {len(row)} columns, expected {columns}.", path=path, line=number)
        yield number, row


def _read_all_qrels(path: Path, corpus: dict[str, Chunk], queries: dict[str, Query]) -> dict[str, Qrels]:
    found = {
        split: _read_qrels(path / "qrels" / f"{split}.tsv", corpus, queries)
        for split in SPLITS
        if (path / "qrels" / f"{split}.tsv").exists()
    }
    if not any(found.values()):
        raise DatasetError(f"{path / 'qrels'}: no judgments found.", "Expected qrels/train.tsv, dev.tsv or test.tsv.")
    return found


def _read_qrels(path: Path, corpus: dict[str, Chunk], queries: dict[str, Query]) -> Qrels:
    qrels: Qrels = {}
    for number, row in _tsv_rows(path, columns=3):
        query, chunk, score = row[:3]
        grade = _grade(score)
        if grade is None and number == 1:  # the header; files without one are read as well
            continue
        for kind, key, known in (("query", query, queries), ("chunk", chunk, corpus)):
            if key not in known:
                raise DatasetError(f"names the unknown {kind} id '{key}'.", path=path, line=number)
        if grade is None:
            raise DatasetError(f"the score '{score}' is not a number.", path=path, line=number)
        if grade >= 1:
            qrels.setdefault(query, {})[chunk] = grade
    return qrels


def _grade(score: str) -> int | None:
    try:
        return int(float(score))
    except (ValueError, OverflowError):
        return None


def _read_info(path: Path) -> Json:
    file = path / "dataset.json"
    if not file.exists():
        return {}
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"is not valid JSON ({error}).", path=file) from None
    return info if isinstance(info, dict) else {}
