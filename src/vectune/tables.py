"""Tables of pairs, triplets and judged lists → RetrievalDataset. Columns are recognised by the names that people use.

A row holds a query and one or more texts: positives, negatives, or texts with a score. Negatives and texts with the
score 0 join the corpus, where mining finds them; a negative that is another row's positive is that chunk, and no second
one. Rows may come from CSV, JSONL, Parquet or a Hugging Face dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.judgments import grade_of
from vectune.lines import checked_id
from vectune.records import Chunk, Query, content_id

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "question", "anchor", "query_text", "search_query", "sentence1", "prompt", "q"),
    "query_id": ("query_id", "qid", "question_id", "query-id"),
    "positive": (
        "positive", "positives", "pos", "positive_passages", "positive_text", "passage", "chunk", "context", "answer",
        "document_text", "doc_text", "text", "content", "sentence2", "relevant_text", "document", "doc", "passages",
        "documents", "docs", "texts",
    ),
    "chunk_id": ("chunk_id", "corpus_id", "corpus-id", "passage_id", "pid", "doc_id", "docid", "document_id"),
    "negative": ("negative", "negatives", "neg", "negative_passages", "hard_negative", "hard_negatives"),
    "grade": ("score", "label", "relevance", "grade", "rating", "judgment", "judgement", "scores", "labels", "grades"),
    "title": ("title", "chunk_title", "heading", "document_title"),
    "source": ("source", "file", "filename", "url", "document_name", "source_document"),
    "split": ("split", "fold", "subset"),
    "writer": ("query_writer",),  # a column `writer` is more often the author of a text
}  # fmt: skip
SPLIT_NAMES = {
    "train": "train", "training": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev",
    "eval": "dev", "test": "test", "testing": "test",
}  # fmt: skip
MAX_SHOWN = 20

Row = Mapping[str, Any]


@dataclass
class Table:
    """Rows become a dataset here, one after another.

    Attributes:
        path: for messages.
        negatives: chunk id → chunk; only when all rows are known is it clear which of them are positives elsewhere.
        problems: one message for each malformed row.
    """

    path: Path
    corpus: dict[str, Chunk] = field(default_factory=dict)
    negatives: dict[str, Chunk] = field(default_factory=dict)
    queries: dict[str, Query] = field(default_factory=dict)
    qrels: dict[str, Qrels] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[tuple[int, Row]], split: str = "train", unit: str = "line") -> None:
        """Add numbered rows; a column ``split`` overrides the split given.

        Raises:
            DatasetError: there is no column for the query or for its text.
        """
        known: dict[tuple[str, ...], dict[str, str]] = {}
        for number, row in rows:
            names = tuple(row)
            if names not in known:  # rows of a JSONL file need not have the same keys
                known[names] = match_columns(names) if known else guess_columns(names, self.path)
            columns = known[names]
            try:
                self._add_row({name: row.get(column) for name, column in columns.items()}, row, split)
            except ValueError as problem:
                self.problems.append(f"{self.path}, {unit} {number}: {problem}")

    def dataset(self, skip_malformed: bool = False) -> RetrievalDataset:
        """What was added.

        Raises:
            DatasetError: rows are malformed and are not to be skipped, or no row holds a positive.
        """
        if not skip_malformed:
            self.check(
                "Correct them, or leave them out: vectune queries DATA --skip-malformed --export NEW --format beir."
            )
        if not any(self.qrels.values()):
            raise DatasetError("no row holds a query with a relevant text.", path=self.path)
        said = {text for chunk in self.corpus.values() for text in (chunk.text, chunk.content)}
        new = {key: one for key, one in self.negatives.items() if key not in self.corpus and one.content not in said}
        info = {"name": self.path.stem, "imported": str(self.path.name), "skipped": self.problems}
        return RetrievalDataset({**self.corpus, **new}, self.queries, self.qrels, info)

    def check(self, hint: str) -> None:
        """Refuse malformed rows.

        Raises:
            DatasetError: there are some; lists the first ones.
        """
        if self.problems:
            shown = "\n".join(f"  - {problem}" for problem in self.problems[:MAX_SHOWN])
            more = len(self.problems) - MAX_SHOWN
            raise DatasetError(
                f"{len(self.problems)} malformed row(s):\n{shown}" + (f"\n  … and {more} more" if more > 0 else ""),
                hint,
                path=self.path,
            )

    def _add_row(self, values: dict[str, Any], row: Row, split: str) -> None:
        text = _text(values.get("query"), "query")
        named = values.get("split")
        if named not in (None, ""):
            split = SPLIT_NAMES.get(str(named).strip().lower(), "")
            if not split:
                raise ValueError(f"the split '{named}' is none of train, dev, test.")
        entries = _entries(values.get("positive"), "text")
        if not entries:
            raise ValueError("the text is empty.")
        grades = _grades(values.get("grade"), entries)
        judgments = [(self._chunk(entry, values), grade) for entry, grade in zip(entries, grades, strict=True)]
        negatives = [self._chunk(entry, {}) for entry in _negatives(row, values)]
        query = self._query(text, values.get("query_id"), str(values.get("writer") or "").strip())
        for chunk, _ in judgments:
            self.corpus.setdefault(chunk.id, chunk)
        for chunk in negatives:
            self.negatives.setdefault(chunk.id, chunk)
        self.queries.setdefault(query.id, query)
        for chunk, grade in judgments:
            if grade >= 1:
                judged = self.qrels.setdefault(split, {}).setdefault(query.id, {})
                judged[chunk.id] = max(grade, judged.get(chunk.id, 0))

    def _query(self, text: str, key: Any, writer: str) -> Query:
        query = Query(text, writer=writer, id=checked_id(str(key)) if key not in (None, "") else "")
        known = self.queries.get(query.id)
        if known is not None and known.text != text:
            raise ValueError(f"the query id '{query.id}' already stands for another text.")
        return query

    def _chunk(self, entry: Any, values: dict[str, Any]) -> Chunk:
        title, key, source = values.get("title"), values.get("chunk_id"), values.get("source")
        if isinstance(entry, Mapping):
            title = entry.get("title") or title
            key = next((entry[name] for name in ("_id", "id", *SYNONYMS["chunk_id"]) if entry.get(name)), key)
            entry = next((entry[name] for name in ("text", "content", "contents") if entry.get(name)), "")
        text, title = _text(entry, "text"), str(title or "").strip()
        source = str(source or "").strip()
        document = content_id(source) if source else ""
        own = checked_id(str(key)) if key not in (None, "") else content_id(title, text)
        chunk = Chunk(text, title, document, source, id=own)
        known = self.corpus.get(chunk.id) or self.negatives.get(chunk.id)
        if known is not None and known.text != text:
            raise ValueError(f"the chunk id '{chunk.id}' already stands for another text.")
        return chunk


def match_columns(names: Sequence[str]) -> dict[str, str]:
    """What each known thing is called here; things without a column are absent."""
    folded = {name.strip().lower().replace(" ", "_"): name for name in reversed(names) if isinstance(name, str)}
    found = {}
    for thing, synonyms in SYNONYMS.items():
        match = next((folded[name] for name in synonyms if name in folded), None)
        if match is not None:
            found[thing] = match
    return found


def guess_columns(names: Sequence[str], path: Path) -> dict[str, str]:
    """``match_columns``, for a table.

    Raises:
        DatasetError: no column looks like the query, or none like its text.
    """
    found = match_columns(names)
    for thing, words in (("query", "queries"), ("positive", "relevant texts")):
        if thing not in found:
            raise DatasetError(
                f"has the columns {', '.join(map(repr, names)) or '(none)'}, and none looks like the {words}.",
                f"Name it one of: {', '.join(SYNONYMS[thing][:8])}.",
                path=path,
            )
    return found


def _entries(value: Any, what: str) -> list[Any]:
    """A cell as a list of texts or of records with a text."""
    if value is None or value == "":
        return []
    if isinstance(value, str | Mapping):
        return [value]
    if isinstance(value, Iterable):
        return list(value)
    raise ValueError(f"the {what} is {_shown(value)}, not a text.")


def _negatives(row: Row, values: dict[str, Any]) -> Iterator[Any]:
    yield from _entries(values.get("negative"), "negative")
    for name, value in row.items():  # negative_1, negative_2, … as sentence-transformers writes them
        if isinstance(name, str) and name.lower().startswith("negative_") and name.rsplit("_", 1)[-1].isdigit():
            yield from _entries(value, "negative")


def _text(value: Any, what: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"the {what} is empty.")
    if not isinstance(value, str):
        raise ValueError(f"the {what} is {_shown(value)}, not a text.")
    return value.strip()


def _grades(value: Any, entries: list[Any]) -> list[int]:
    """A grade for each text: the row's for all, one of a list for each, or the one that stands in its record."""
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    given = list(value) if listed else [value] * len(entries)
    if len(given) != len(entries):
        raise ValueError(f"has {len(given)} scores for {len(entries)} texts.")
    records = [entry if isinstance(entry, Mapping) else {} for entry in entries]
    own = [next((record[name] for name in SYNONYMS["grade"] if name in record), None) for record in records]
    return [_grade(grade if mine is None else mine) for mine, grade in zip(own, given, strict=True)]


def _shown(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."


def _grade(value: Any) -> int:
    return 1 if value is None or value == "" else grade_of(value)
