"""RetrievalDataset: a corpus, queries and judgments, in the BEIR layout on disk.

``corpus.jsonl``, ``queries.jsonl`` and ``qrels/{train,dev,test}.tsv`` are what the field's tools read. Beside them
``documents.jsonl`` tells which document, offsets and page a chunk comes from (a ``docs.tsv`` with passage and document
serves as well), and ``dataset.json`` where the dataset came from. Other formats are in ``formats.py``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from vectune.corpus import StoredCorpus, read_corpus, write_corpus
from vectune.errors import DatasetError
from vectune.judgments import StoredQrels, checked_grade, is_header
from vectune.lines import json_records, tsv_rows
from vectune.records import Chunk, Query
from vectune.runs import Json, restore, write_json, writing
from vectune.stored import StoredQueries, query_of

SPLITS = ("train", "dev", "test")
QUERIES_IN_MEMORY = 64 << 20  # bytes of queries.jsonl; in memory a query and its judgments take ten times as much
Qrels = dict[str, dict[str, int]]  # query id → chunk id → grade, grades of at least 1


@dataclass
class RetrievalDataset:
    """Chunks, queries and who answers what.

    Attributes:
        corpus: chunk id → chunk, in the order of the file; a large one stays on disk (``corpus.StoredCorpus``).
        queries: query id → query; all splits together. Millions stay on disk (``stored.StoredQueries``).
        qrels: split → query id → chunk id → grade. Only grades of at least 1. Where the queries stay on disk, those of
            train are in arrays (``judgments.StoredQrels``).
        info: free facts kept in ``dataset.json``: where it came from, filters' counts, warnings.
        path: the folder it was read from, if any.
    """

    corpus: Mapping[str, Chunk]
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

    def generated_in(self, split: str) -> bool:
        """``generated`` of one split: not where people put their own, which name no writer, beside written ones.

        Raises:
            DatasetError: the dataset has no such split.
        """
        written = any(query.writer for query in self.queries_of(split))
        return written or (self.generated and not any(query.writer for query in self.queries.values()))

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
                f"the dataset '{self.path or self.name}' has no judgments for the split '{split}' (it has: {have}).",
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
        """Write the folder whole or not at all. Files there that are not the dataset's, such as notes, stay."""
        with writing(folder) as beside:
            (beside / "qrels").mkdir(parents=True)
            write_corpus(beside, self.corpus.values())
            _write_lines(beside / "queries.jsonl", (_query_line(query) for query in self.queries.values()))
            for split, qrels in self.qrels.items():
                _write_qrels(beside / "qrels" / f"{split}.tsv", qrels)
            write_json(beside / "dataset.json", {**self.info, "counts": self.counts(), "labels": labels_hash(beside)})
            if folder.is_dir():
                _copy_others(folder, beside)

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
        if not path.exists():
            restore(path)
        if not path.is_dir():
            raise DatasetError(f"{path}: no such dataset folder.", "Give a folder with corpus.jsonl and queries.jsonl.")
        file = path / "queries.jsonl"
        if file.exists() and file.stat().st_size > QUERIES_IN_MEMORY:
            return cls._stored(path)
        corpus = read_corpus(path)
        queries = {line["_id"]: query_of(line) for line in json_records(file)}
        qrels = _some(_read_all_qrels(path, corpus, queries), path)
        return cls(corpus, queries, qrels, _read_info(path), path)

    @classmethod
    def _stored(cls, path: Path) -> RetrievalDataset:
        corpus, queries = StoredCorpus(path), StoredQueries(path / "queries.jsonl")
        train = path / "qrels" / "train.tsv"
        qrels = _read_all_qrels(path, corpus, queries, tuple(split for split in SPLITS if split != "train"))
        if train.exists():
            qrels = {"train": cast(Qrels, StoredQrels.read(train, queries, corpus)), **qrels}
        # whoever is given a dataset only reads it, so that mappings may stand in for dictionaries
        return cls(corpus, cast("dict[str, Query]", queries), _some(qrels, path), _read_info(path), path)


def corpus_hash(dataset: RetrievalDataset) -> str:
    """Changes with any chunk's id, content or place in the corpus."""
    return _hash_of_lines(f"{chunk.id}\x1f{chunk.content}" for chunk in dataset.corpus.values())


def asked_hash(dataset: RetrievalDataset, split: str) -> str:
    """Changes with the corpus, and with any query or judgment of a split."""
    judged = dataset.split(split)
    asked = (f"{key}\x1f{dataset.queries[key].text}\x1f{sorted(judged[key].items())}" for key in sorted(judged))
    return _hash_of_lines([corpus_hash(dataset), *asked])


def labels_hash(path: Path) -> str:
    """Changes with any query or judgment of a dataset, by what its files hold: copying a folder changes nothing."""
    files = [path / "queries.jsonl", *sorted((path / "qrels").glob("*.tsv"))] if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        digest.update(f"{file.name}\x1e".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _hash_of_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\x1e".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


# Writing


def _copy_others(folder: Path, beside: Path) -> None:
    """Copy what a person put into the folder, such as a CSV being edited: all but the files that ``write`` writes."""
    own = {"corpus.jsonl", "documents.jsonl", "queries.jsonl", "dataset.json"}
    own |= {f"qrels/{split}.tsv" for split in SPLITS}

    def ours(place: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(place, name).relative_to(folder).as_posix() in own]

    shutil.copytree(folder, beside, symlinks=True, ignore=ours, dirs_exist_ok=True)


def _write_lines(path: Path, lines: Iterator[Json]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _write_qrels(path: Path, qrels: Qrels) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(
            f"{query}\t{chunk}\t{grade}\n" for query, judged in qrels.items() for chunk, grade in judged.items()
        )


def _query_line(query: Query) -> Json:
    return {"_id": query.id, "text": query.text, "style": query.style, "writer": query.writer}


# Reading


def _read_all_qrels(
    path: Path, corpus: Mapping[str, Chunk], queries: Mapping[str, Query], splits: tuple[str, ...] = SPLITS
) -> dict[str, Qrels]:
    return {
        split: _read_qrels(path / "qrels" / f"{split}.tsv", corpus, queries)
        for split in splits
        if (path / "qrels" / f"{split}.tsv").exists()
    }


def _some(found: dict[str, Qrels], path: Path) -> dict[str, Qrels]:
    if not any(found.values()):
        raise DatasetError(f"{path / 'qrels'}: no judgments found.", "Expected qrels/train.tsv, dev.tsv or test.tsv.")
    return found


def _read_qrels(path: Path, corpus: Mapping[str, Chunk], queries: Mapping[str, Query]) -> Qrels:
    qrels: Qrels = {}
    for number, row in tsv_rows(path, columns=3):
        query, chunk, score = row[:3]
        if number == 1 and is_header(row) and (query not in queries or chunk not in corpus):
            continue  # files without a header are read as well
        for kind, key, known in (("query", query, queries), ("chunk", chunk, corpus)):
            if key not in known:
                raise DatasetError(f"names the unknown {kind} id '{key}'.", path=path, line=number)
        if (grade := checked_grade(score, path, number)) >= 1:
            qrels.setdefault(query, {})[chunk] = grade
    return qrels


def _read_info(path: Path) -> Json:
    file = path / "dataset.json"
    if not file.exists():
        return {}
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"is not valid JSON ({error}).", path=file) from None
    return info if isinstance(info, dict) else {}
