"""A dataset's queries as a CSV that a person edits (keep, drop, reword), and back."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.records import Query
from vectune.runs import Json, writing

COLUMNS = ("query_id", "split", "action", "query", "style", "chunks", "document", "title", "text")
_NEEDED = ("query_id", "split", "action", "query")
_ACTIONS = {"": "keep", "keep": "keep", "k": "keep", "drop": "drop", "d": "drop", "reword": "keep"}
_SHOWN = 600  # characters of a chunk in the CSV
_NUMBER = re.compile(r"[\d.,:/eE+\s-]*\d[\d.,:/eE+\s-]*")  # an id such as 12345678e9012345 becomes Infinity in Excel
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets run a cell that begins with one of these


@dataclass(frozen=True)
class Changes:
    """What a review changed; ``unseen`` queries were not in the CSV and stay as they are."""

    kept: int
    dropped: int
    reworded: int
    unseen: int


def export_csv(dataset: RetrievalDataset, path: Path, split: str | None = None, sample: int | None = None) -> int:
    """Write queries with a look at their first chunk; returns how many.

    Args:
        dataset: where the queries are.
        path: the file; whole or absent.
        split: only this one; None for all.
        sample: this many, drawn; None for all.

    Raises:
        DatasetError: there is no such split.
    """
    rows = list(_rows(dataset, split))
    if sample is not None and sample < len(rows):
        rows = random.Random(0).sample(rows, sample)
    # With a byte order mark, without which Excel shows UTF-8 as gibberish.
    with writing(path) as beside, beside.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([_guarded(cell) for cell in row] for row in rows)
    return len(rows)


def import_csv(dataset: RetrievalDataset, path: Path) -> tuple[RetrievalDataset, Changes]:
    """The dataset with the edits of a CSV. Commas and semicolons are both understood; further columns are ignored.

    ``action`` is ``keep`` (or empty) or ``drop``; a changed ``query`` is a rewording. Queries not in the CSV stay.

    Raises:
        DatasetError: a missing column, an unknown query, split or action, an empty or doubled query; with the line.
    """
    edits = _read_edits(dataset, path)
    queries: dict[str, Query] = {}
    splits: dict[str, Qrels] = {}
    counts = {"kept": 0, "dropped": 0, "reworded": 0, "unseen": 0}
    for split, qrels in dataset.qrels.items():
        splits[split] = {}
        for query_id, judged in qrels.items():
            query = dataset.queries[query_id]
            edit = edits.get((split, query_id))
            kind = _kind(edit, query)
            counts[kind] += 1
            if kind == "dropped":
                continue
            if kind == "reworded" and edit is not None:
                query = Query(edit, query.style, query.writer)
            queries.setdefault(query.id, query)
            known = splits[split].setdefault(query.id, {})
            for chunk, grade in judged.items():
                known[chunk] = max(grade, known.get(chunk, 0))
    if not any(splits.values()):
        raise DatasetError("drops every query of the dataset.", path=path)
    changes = Changes(**counts)
    info: Json = {**dataset.info, "review": asdict(changes)}
    return replace(dataset, queries=queries, qrels=splits, info=info), changes


def _rows(dataset: RetrievalDataset, split: str | None) -> Iterator[list[str]]:
    for name in dataset.qrels if split is None else [split]:
        for query_id, judged in dataset.split(name).items() if dataset.qrels.get(name) or split else ():
            query = dataset.queries[query_id]
            chunk = dataset.corpus[next(iter(judged))]
            shown = chunk.text if len(chunk.text) <= _SHOWN else chunk.text[:_SHOWN] + " …"
            place = [chunk.source or chunk.document_id, chunk.title, shown]
            yield [query_id, name, "keep", query.text, query.style, " ".join(judged), *place]


def _kind(edit: str | None, query: Query) -> str:
    if edit is None:
        return "unseen"
    if not edit:
        return "dropped"
    return "kept" if edit == query.text else "reworded"


def _read_edits(dataset: RetrievalDataset, path: Path) -> dict[tuple[str, str], str]:
    """(split, query id) → the query's text after the edit; empty for a dropped one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror}).", path=path) from None
    except UnicodeDecodeError as error:
        hint = "Save it as 'CSV UTF-8' in the spreadsheet."
        raise DatasetError(f"is not UTF-8 ({error.reason} at byte {error.start}).", hint, path=path) from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = _numbered_rows(text, delimiter, path)
    places = _columns(next(rows, (1, []))[1], path)
    edits: dict[tuple[str, str], str] = {}
    for line, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        key, after = _edit(dataset, row, places, path, line)
        if key in edits:
            raise DatasetError(f"names the query '{key[1]}' a second time.", path=path, line=line)
        edits[key] = after
    return edits


def _numbered_rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their last line; strict, since a quote that stays open would swallow the rows below."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = 0
    try:
        for row in reader:
            before = reader.line_num
            yield before, row
    except csv.Error as error:
        hint = 'A cell with quotes stands in quotes, and each of its own is doubled: "the ""exact"" words".'
        raise DatasetError(f"is no row of a CSV ({error}).", hint, path=path, line=before + 1) from None


def _columns(header: list[str], path: Path) -> dict[str, int]:
    places = {name.strip().lower(): index for index, name in enumerate(header)}
    missing = [name for name in _NEEDED if name not in places]
    if missing:
        hint = f"Keep the columns that the export wrote: {', '.join(COLUMNS)}."
        raise DatasetError(f"has no column '{missing[0]}' (it has: {', '.join(header)}).", hint, path=path, line=1)
    return places


def _edit(
    dataset: RetrievalDataset, row: list[str], places: dict[str, int], path: Path, line: int
) -> tuple[tuple[str, str], str]:
    """One row: which query, and its text afterwards (empty when dropped)."""
    if len(row) <= max(places[name] for name in _NEEDED):
        raise DatasetError(f"has {len(row)} cells, the header has {len(places)}.", path=path, line=line)
    query_id, split, action, text = (_unguarded(row[places[name]]) for name in _NEEDED)
    query_id, split, action = query_id.strip(), split.strip(), action.strip().lower()
    if query_id not in dataset.qrels.get(split, {}):
        raise DatasetError(
            f"names the query '{query_id}', which is not in the split '{split}'.",
            "Was this CSV taken back before? What it dropped or reworded is no longer there: export anew.",
            path=path,
            line=line,
        )
    if action not in _ACTIONS:
        raise DatasetError(f"the action '{action}' is none of keep, drop, reword.", path=path, line=line)
    if _ACTIONS[action] == "drop":
        return (split, query_id), ""
    text = " ".join(text.split()) if text != dataset.queries[query_id].text else text
    if not text.strip():
        raise DatasetError("the query is empty; to leave it out, write drop under action.", path=path, line=line)
    return (split, query_id), text


def _guarded(cell: str) -> str:
    """A cell that a spreadsheet leaves as it is: no formula, no number, no date."""
    return "'" + cell if cell.startswith(_FORMULA) or cell.startswith("'") or _NUMBER.fullmatch(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _guarded(cell[1:]) == cell else cell
