"""Datasets in the neighbours' formats: recognised, read, and written.

BEIR folders, LlamaIndex's JSON, CSV, TSV, JSONL and Parquet tables, and Hugging Face datasets saved to disk.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from vectune.characters import wording
from vectune.dataset import SPLITS, Qrels, RetrievalDataset
from vectune.errors import DatasetError, MissingExtraError, UsageError
from vectune.lines import checked_id, whole_json
from vectune.records import Chunk, Query
from vectune.runs import Json, is_own, writing
from vectune.tables import SPLIT_NAMES, SYNONYMS, Row, Table, guess_columns

Format = Literal["beir", "llama-index", "csv", "tsv", "jsonl", "parquet", "hf"]
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_NO_SEPARATOR = "\x1f"  # of a table with one column: there, a comma is part of the text
_LLAMA_INDEX = ("queries", "corpus", "relevant_docs")


def open_dataset(path: str | Path, *, skip_malformed: bool = False) -> RetrievalDataset:
    """Read a dataset, whatever its format.

    Args:
        path: a BEIR folder; a folder or file of LlamaIndex's JSON (``train_dataset.json`` and ``val_dataset.json``
            become train and test); a CSV, TSV, JSONL or Parquet table, or a folder of them with the split in each name;
            a folder that Hugging Face's ``save_to_disk`` wrote. Tables without splits are all train.
        skip_malformed: leave malformed rows out; their messages are in ``info["skipped"]``.

    Raises:
        DatasetError: nothing is known about the format, or the content is broken; names file and line.
        MissingExtraError: Parquet or Hugging Face data without their packages.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such dataset.", "Give a dataset folder, or a JSON, CSV or Parquet file.")
    if path.is_dir():
        return _open_folder(path, skip_malformed)
    if path.suffix.lower() == ".json":
        return _open_json(path, skip_malformed)
    if path.suffix.lower() in TABLES:
        return _open_tables({path: "train"}, path, skip_malformed)
    raise DatasetError(f"{path}: not a known format.", f"Known are folders, .json, {', '.join(TABLES)}.")


def holds_labels(path: Path) -> bool:
    """Whether a path is data with queries, and not documents: it would be strange to cut queries from their queries.

    What cannot be read is not: whoever reads it says why.
    """
    try:
        if path.is_dir():
            names = {entry.name for entry in path.iterdir()}
            return bool(names & {"queries.jsonl", "qrels", "dataset_dict.json"})
        if path.suffix.lower() in TABLES:
            _, first = next(iter(_rows(path, Table(path))), (0, {}))
            return {"query", "positive"} <= guess_columns(list(first), path).keys()
        return path.suffix.lower() == ".json" and _is_llama_index(path) and _holds_all(_load_json(path))
    except (DatasetError, OSError):
        return False


def _holds_all(content: Any) -> bool:
    """Whether it has the parts of LlamaIndex's JSON."""
    return isinstance(content, dict) and set(_LLAMA_INDEX) <= content.keys()


def _open_folder(path: Path, skip_malformed: bool) -> RetrievalDataset:
    names = {entry.name for entry in path.iterdir()}
    if names & {"corpus.jsonl", "queries.jsonl", "qrels", "dataset.json"}:
        return RetrievalDataset.read(path)
    if names & {"dataset_dict.json", "state.json"}:
        return _open_hugging_face(path, skip_malformed)
    if "run.json" in names and is_own(path):
        raise DatasetError(f"{path} is a run, and a dataset is wanted.", f"Its dataset is {path / 'dataset'}.")
    json_files = sorted(entry for entry in path.glob("*.json") if _is_llama_index(entry))
    if json_files:
        return _open_llama_index(_llama_index_splits(json_files), path.name)
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in TABLES]
    if files:
        splits = _splits_of([file.stem for file in files], path)
        return _open_tables(dict(zip(files, splits, strict=True)), path, skip_malformed)
    raise DatasetError(f"{path}: the folder holds no dataset.", "Expected corpus.jsonl, queries.jsonl and qrels/.")


def _words(name: str) -> list[str]:
    return name.lower().replace("-", "_").split("_")


def _splits_of(names: Sequence[str], path: Path) -> list[str]:
    """The split that a word of each name tells; all are train where no name tells one.

    Raises:
        DatasetError: only some names tell one. The others may be what is tested on, and must not be trained on.
    """
    found = [next((SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES), "") for name in names]
    if any(found) and not all(found):
        unknown = ", ".join(repr(name) for name, split in zip(names, found, strict=True) if not split)
        raise DatasetError(
            f"no split can be told from the name {unknown}, but from those beside it.",
            "Put train, dev (or validation) or test into each name, or take away what is not to be read.",
            path=path,
        )
    return [split or "train" for split in found]


def _llama_index_splits(files: list[Path]) -> dict[str, Path]:
    """The file of each split; LlamaIndex's ``val`` is what it tests on, where nothing else is.

    Raises:
        DatasetError: two files are of one split.
    """
    splits = _splits_of([file.stem for file in files], files[0].parent)
    tested = len(files) == 1 or "test" in splits
    found: dict[str, Path] = {}
    for file, split in zip(files, splits, strict=True):
        if split == "dev" and not tested and "dev" not in _words(file.stem):
            split = "test"
        if split in found:
            raise DatasetError(
                f"{found[split].name} and {file.name} are both of the split '{split}'.",
                "Name them train, dev (or val) and test.",
                path=file.parent,
            )
        found[split] = file
    return found


# LlamaIndex


def _is_llama_index(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(4096).lstrip()
    except (OSError, UnicodeDecodeError):
        return False
    return head.startswith("{") and any(f'"{key}"' in head for key in _LLAMA_INDEX)


def _open_json(path: Path, skip_malformed: bool) -> RetrievalDataset:
    content = _load_json(path)
    if _holds_all(content):
        return _open_llama_index({"train": path}, path.stem)
    if isinstance(content, list):
        table = Table(path)
        table.add(_objects(enumerate(content, start=1), table, "entry"), unit="entry")
        return table.dataset(skip_malformed)
    raise DatasetError(f"{path}: neither LlamaIndex's {', '.join(_LLAMA_INDEX)} nor a list of objects.")


def _load_json(path: Path) -> Any:
    try:
        return whole_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"is not valid UTF-8 ({error.reason} at byte {error.start}).", path=path) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"is not valid JSON ({error}).", path=path) from None


def _open_llama_index(files: dict[str, Path], name: str) -> RetrievalDataset:
    """One dataset of a file for each split. Files may count their ids alike (q0, q1, …): an id that has another text in
    a file before gets the split in front (``test-q0``), so that nothing is lost.
    """
    corpus: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    qrels: dict[str, Qrels] = {}
    for split, path in files.items():
        content = _load_json(path)
        for key in _LLAMA_INDEX:
            if not isinstance(content, dict) or not isinstance(content.get(key), dict):
                raise DatasetError(f"'{key}' is missing or not an object.", path=path)
        # each file is a corpus of its own: without other evidence its chunks are one document
        ids: dict[str, str] = {}
        for key, text in content["corpus"].items():
            own = ids[key] = _own_id(key, _string(text, key, path), corpus, split)
            corpus[own] = Chunk(text, document_id=f"{name}/{path.stem}", source=path.stem, id=own)
        qrels[split] = {}
        for key, text in content["queries"].items():
            own = _own_id(key, _string(text, key, path), queries, split)
            queries[own] = Query(text, id=own)
            qrels[split][own] = {ids[chunk]: 1 for chunk in _relevant(content, key, path)}
    return RetrievalDataset(corpus, queries, qrels, {"name": name, "imported": "llama-index"})


def _own_id(key: str, text: str, known: Mapping[str, Chunk] | Mapping[str, Query], split: str) -> str:
    """The id, with the split in front where it stands for another text already."""
    while key in known and known[key].text != text:
        key = f"{split}-{key}"
    return key


def _relevant(content: Json, key: str, path: Path) -> list[str]:
    chunks = content["relevant_docs"].get(key)
    if not isinstance(chunks, list) or not chunks:
        raise DatasetError(f"the query '{key}' has no relevant_docs.", path=path)
    for chunk in chunks:
        if not isinstance(chunk, str) or chunk not in content["corpus"]:
            raise DatasetError(f"the query '{key}' names the unknown chunk '{str(chunk)[:60]}'.", path=path)
    return chunks


def _string(text: Any, key: str, path: Path) -> str:
    if not isinstance(text, str):
        raise DatasetError(f"the text of '{key}' is {str(text)[:60]!r}, not a text.", path=path)
    try:
        checked_id(key)
    except ValueError as problem:
        raise DatasetError(str(problem), path=path) from None
    return text


# Tables


def _open_tables(files: dict[Path, str], path: Path, skip_malformed: bool) -> RetrievalDataset:
    table = Table(path)
    for file, split in files.items():
        table.path = file
        table.add(_rows(file, table), split, "row" if file.suffix.lower() == ".parquet" else "line")
    table.path = path
    return table.dataset(skip_malformed)


def _rows(path: Path, table: Table) -> Iterator[tuple[int, Row]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in (".jsonl", ".ndjson"):
        return _objects(_json_lines(path, table), table, "line")
    return _csv_rows(path, "\t" if suffix == ".tsv" else None, table)


def _csv_rows(path: Path, separator: str | None, table: Table) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _utf8(path), path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        if separator is None:
            separator = max((",", ";", "\t"), key=first.count)
        if separator not in first:
            separator = _NO_SEPARATOR
        plain = separator in ("\t", _NO_SEPARATOR) and not _quoted(file, separator)
        file.seek(0)
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
        header = next(reader, [])
        before = reader.line_num
        for values in reader:
            number, before = before + 1, reader.line_num  # a quoted cell may hold line breaks
            if not any(values):
                continue
            wrong = f"has {len(values)} cells, the header {len(header)}" if len(values) != len(header) else ""
            if lines.ended:  # the reader would not have asked for more
                wrong = "a quote is opened and not closed"
            if wrong:
                table.problems.append(f"{path}, line {number}: {wrong} (it begins with {values[0][:40]!r}).")
                continue
            yield number, dict(zip(header, values, strict=True))


class _Lines:
    """A file's lines.

    Attributes:
        ended: somebody asked for a line after the last one.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        yield from self._file
        self.ended = True


def _quoted(file: TextIO, separator: str) -> bool:
    """Whether quotes stand around whole cells, as a writer of CSV puts them; in many a log they are text.

    Where a quote within a cell speaks against it, the header decides, or how many rows have the header's length.
    """
    file.seek(0)
    header = file.readline().rstrip("\r\n").split(separator)
    if all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in header):
        return True
    file.seek(0)
    try:
        for _ in csv.reader(file, delimiter=separator, strict=True):
            pass
    except csv.Error:
        return _misfits(file, separator, csv.QUOTE_MINIMAL) < _misfits(file, separator, csv.QUOTE_NONE)
    return True


def _misfits(file: TextIO, separator: str, quoting: Literal[0, 3]) -> int:
    """How many rows are longer or shorter than the header."""
    file.seek(0)
    rows = csv.reader(file, delimiter=separator, quoting=quoting)
    length = len(next(rows, []))
    return sum(len(row) not in (0, length) for row in rows)


def _json_lines(path: Path, table: Table) -> Iterator[tuple[int, Any]]:
    with _utf8(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, whole_json(line)
            except (ValueError, RecursionError) as error:
                table.problems.append(f"{path}, line {number}: is not valid JSON ({error}).")


def _objects(entries: Iterator[tuple[int, Any]] | Any, table: Table, unit: str) -> Iterator[tuple[int, Row]]:
    for number, entry in entries:
        if isinstance(entry, dict):
            yield number, entry
        else:
            table.problems.append(f"{table.path}, {unit} {number}: is not a JSON object.")


class _utf8:
    """Turns what is wrong with a file of text into a message with the path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, UnicodeDecodeError):
            hint = "Save it as UTF-8; spreadsheets call that 'CSV UTF-8'."
            raise DatasetError(f"is not valid UTF-8 ({error.reason} at byte {error.start}).", hint, path=self.path)
        if isinstance(error, csv.Error):
            raise DatasetError(f"is no table that can be read ({error}).", path=self.path)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    _need("pyarrow", "Reading Parquet")
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's errors share no base class
        raise DatasetError(f"is not a Parquet file ({error}).", path=path) from None
    number = 0
    for batch in file.iter_batches(batch_size=4096):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _open_hugging_face(path: Path, skip_malformed: bool) -> RetrievalDataset:
    _need("datasets", "Reading a Hugging Face dataset")
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever the library meets in a broken folder
        raise DatasetError(f"cannot be read as a Hugging Face dataset ({error}).", path=path) from None
    table = Table(path)
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    named = _splits_of([str(name) for name in splits], path)
    for split, (name, rows) in zip(named, splits.items(), strict=True):
        table.add(enumerate(rows, start=1), split, f"row of '{name}'")
    return table.dataset(skip_malformed)


def _need(package: str, purpose: str) -> None:
    if find_spec(package) is None:
        raise MissingExtraError(package, "data", purpose)


# Query logs


def read_queries(path: str | Path) -> list[Query]:
    """A query log: a text file with one query a line, or a table with a column of queries.

    Repeats are dropped, also those in another case, with other blanks or another end (two splits may not ask the same).

    Raises:
        DatasetError: the file is missing or holds no query, or rows are malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file.")
    if path.suffix.lower() in TABLES:
        table = Table(path)
        texts = [str(_query_cell(row, path)).strip() for _, row in _rows(path, table)]
        table.check("Correct or remove these lines, or give a text file with one query a line.")
    else:
        with _utf8(path):
            texts = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    kept: dict[str, str] = {}
    for text in texts:
        kept.setdefault(wording(text), text)
    found = [Query(text, "log") for words, text in kept.items() if words]
    if not found:
        raise DatasetError("holds no query.", path=path)
    return found


def _query_cell(row: Row, path: Path) -> Any:
    folded = {name.strip().lower(): value for name, value in row.items()}
    for name in (*SYNONYMS["query"], "text"):
        if name in folded:
            return folded[name] or ""
    raise DatasetError(f"has the columns {', '.join(map(repr, row))}, and none looks like the queries.", path=path)


# Writing


def export_dataset(dataset: RetrievalDataset, path: str | Path, format: Format | str = "beir") -> None:
    """Write a dataset for a neighbour; the file or folder appears whole or not at all.

    Args:
        dataset: all its splits are written.
        path: a folder for ``beir``, ``llama-index`` and ``hf``; a file for the tables.
        format: ``beir``; ``llama-index``: one JSON a split; ``csv``, ``tsv``, ``jsonl``, ``parquet``: a row for each
            pair; ``hf``: a DatasetDict of pairs (``anchor``, ``positive``) for sentence-transformers.

    Raises:
        UsageError: an unknown format.
        MissingExtraError: Parquet or Hugging Face data without their packages.
    """
    if format not in get_args(Format):
        raise UsageError(f"'{format}' is not a format; known are {', '.join(get_args(Format))}.")
    path = Path(path)
    if format == "beir":
        dataset.write(path)
        return
    with writing(path) as beside:
        _WRITERS[format](dataset, beside)


def _pairs(dataset: RetrievalDataset) -> Iterator[Json]:
    for split in SPLITS:
        for key, judged in dataset.qrels.get(split, {}).items():
            for chunk_id, grade in judged.items():
                chunk = dataset.corpus[chunk_id]
                yield {
                    "query": dataset.queries[key].text, "positive": chunk.text, "title": chunk.title, "score": grade,
                    "split": split, "query_id": key, "chunk_id": chunk_id, "source": chunk.source or chunk.document_id,
                    "query_writer": dataset.queries[key].writer,
                }  # fmt: skip


def _write_llama_index(dataset: RetrievalDataset, folder: Path) -> None:
    """A corpus in each file: the chunks of the documents that hold the split's positives."""
    folder.mkdir()
    for split in (split for split in SPLITS if dataset.qrels.get(split)):
        documents = dataset.documents_of(split)
        content = {
            "queries": {key: dataset.queries[key].text for key in dataset.qrels[split]},
            "corpus": {c.id: c.content for c in dataset.corpus.values() if c.document_id in documents},
            "relevant_docs": {key: list(judged) for key, judged in dataset.qrels[split].items()},
            "mode": "text",
        }
        name = {"train": "train", "dev": "dev", "test": "val"}[split]
        (folder / f"{name}_dataset.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _write_table(separator: str) -> Callable[[RetrievalDataset, Path], None]:
    def write(dataset: RetrievalDataset, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = list(_pairs(dataset))
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["query", "positive"], delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)

    return write


def _write_jsonl(dataset: RetrievalDataset, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _pairs(dataset))


def _write_parquet(dataset: RetrievalDataset, path: Path) -> None:
    _need("pyarrow", "Writing Parquet")
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(_pairs(dataset))), path)


def _write_hugging_face(dataset: RetrievalDataset, path: Path) -> None:
    _need("datasets", "Writing a Hugging Face dataset")
    import datasets

    found: dict[str, list[Json]] = {}
    for row in _pairs(dataset):
        content = f"{row['title']} {row['positive']}" if row["title"] else row["positive"]
        found.setdefault(row["split"], []).append({"anchor": row["query"], "positive": content})
    splits = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in found.items()})
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # they would be drawn into a pipe, too
    try:
        splits.save_to_disk(str(path))
    finally:
        if shown:
            datasets.enable_progress_bars()


_WRITERS: dict[str, Callable[[RetrievalDataset, Path], None]] = {
    "llama-index": _write_llama_index,
    "csv": _write_table(","),
    "tsv": _write_table("\t"),
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "hf": _write_hugging_face,
}
