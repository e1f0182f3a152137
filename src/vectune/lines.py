"""Lines of a dataset's files: numbered for error messages, with the byte where each begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vectune.characters import whole
from vectune.errors import DatasetError
from vectune.runs import Json


def numbered_lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Number from 1, first byte, and text of each line; whatever keeps the file from being read is a DatasetError."""
    start = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, start, line.decode("utf-8-sig" if number == 1 else "utf-8")
                start += len(line)
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: the file is missing.", "A dataset folder holds corpus.jsonl, queries.jsonl and qrels/."
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"is not valid UTF-8 ({error.reason} at byte {start + error.start}).", path=path) from None
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror}).", path=path) from None


def whole_json(text: str) -> Any:
    """What JSON says, with U+FFFD for each half of a surrogate pair: it may be escaped there, and no file takes it.

    Raises:
        ValueError, RecursionError: it is no JSON, or too deep.
    """
    found = json.loads(text)
    halves = "\\ud" in text or "\\uD" in text
    return json.loads(whole(json.dumps(found, ensure_ascii=False))) if halves else found


def checked_id(key: str) -> str:
    """An id that a line of qrels can hold.

    Raises:
        ValueError: it cannot.
    """
    if any(character in key for character in "\t\n\r"):
        raise ValueError(f"the id {key[:60]!r} holds a tab or a line break, which qrels cannot.")
    return key


def json_lines(path: Path) -> Iterator[tuple[int, int, Json]]:
    """Number, first byte and object of each line that is not empty.

    Raises:
        DatasetError: a line is no JSON object.
    """
    for number, start, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            record = whole_json(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"is not valid JSON ({error}).", path=path, line=number) from None
        if not isinstance(record, dict):
            raise DatasetError("is not a JSON object.", path=path, line=number)
        yield number, start, record


def json_texts(path: Path) -> Iterator[tuple[int, int, Json]]:
    """Number, first byte and object of each line, checked: a string ``_id`` and a string ``text``."""
    for number, start, record in json_lines(path):
        key, text = record.get("_id"), record.get("text")
        if not isinstance(key, str | int) or key == "":
            raise DatasetError("has no '_id'.", path=path, line=number)
        if not isinstance(text, str):
            raise DatasetError(f"'text' of '{key}' is not a string.", path=path, line=number)
        record["_id"] = str(key)
        yield number, start, record


def json_records(path: Path) -> Iterator[Json]:
    """The objects of a JSONL file, each with a unique string ``_id`` and a string ``text``."""
    seen: dict[str, int] = {}
    for number, _, record in json_texts(path):
        key = record["_id"]
        if key in seen:
            raise DatasetError(
                f"the id '{key}' is already on line {seen[key]}; ids must be unique.", path=path, line=number
            )
        seen[key] = number
        yield record


def tsv_rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Rows with at least this many columns, the header among them."""
    for number, _, line in numbered_lines(path):
        row = line.rstrip("\r\n").split("\t")
        if row == [""]:
            continue
        if len(row) < columns:
            raise DatasetError(f"has {len(row)} columns, expected {columns}.", path=path, line=number)
        yield number, row
