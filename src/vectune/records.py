"""The records that flow through vectune: Document, Chunk, Query and Pair.

All are frozen, and their ids are hashes of their content: the same input gives the same ids in every run, so a stage
can be repeated, resumed or cached without bookkeeping.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


def content_id(*parts: str) -> str:
    """A stable id: the first 16 hex digits of the SHA-256 of the parts, separated so that ("ab", "c") ≠ ("a", "bc")."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a document's text.

    Attributes:
        start: offset of its line's first character in the document's text.
        level: 1 for a title, 2 for a section, and so on.
        text: the heading without its mark-up.
    """

    start: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text with its structure.

    Attributes:
        text: the whole text; all offsets in vectune count its characters.
        source: the path as a person would name it (relative to the folder that was given).
        title: a title found in the file or derived from its name; may be empty.
        pages: offset of each page's first character; page 1 is ``pages[0]``. Empty where a format has no pages.
        headings: in order of ``start``.
    """

    text: str
    source: str
    title: str = ""
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.source, self.text))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: the unit that is embedded, indexed and retrieved.

    Attributes:
        text: equals ``document.text[start:end]``.
        title: the document's title, with the heading path where that was asked for; may be empty.
        document_id: the document it was cut from; a chunk without a known document is its own document.
        source: the document's path, for people.
        start, end: offsets into the document's text, in characters; -1 where unknown.
        page: 1-based page of its first character; 0 where unknown.
        headings: the heading path from the outermost to the innermost.
    """

    text: str
    title: str = ""
    document_id: str = ""
    source: str = ""
    start: int = -1
    end: int = -1
    page: int = 0
    headings: tuple[str, ...] = ()
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.document_id, str(self.start), self.title, self.text))
        if not self.document_id:
            object.__setattr__(self, "document_id", self.id)

    @property
    def content(self) -> str:
        """What is embedded and indexed: the title, a space and the text."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody would type to find a chunk.

    Attributes:
        text: as typed.
        style: ``question``, ``keywords``, ``title``, ``sentence`` …; empty where unknown.
        writer: who wrote it: ``extractive``, ``llm:NAME``, or empty for queries that came with the data.
    """

    text: str
    style: str = ""
    writer: str = ""
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.text))


@dataclass(frozen=True, slots=True)
class Pair:
    """A judgment: the chunk answers the query. ``grade`` is at least 1; higher is better."""

    query_id: str
    chunk_id: str
    grade: int = 1


@dataclass(frozen=True, slots=True)
class WrittenQuery:
    """A query together with the chunks it was written for; the first is the main one."""

    query: Query
    chunk_ids: tuple[str, ...]
