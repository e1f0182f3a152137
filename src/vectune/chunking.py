"""Documents → Chunks, by tokens of the model that will read them, along the document's own structure.

The splitting is semantic-text-splitter's: the highest level of structure (heading, block, line, sentence, word) whose
pieces fit. Two things are ours: token counts from a table of words, many times faster than tokenizing every candidate
and just as exact, and a copy of the text for the splitter in which wrapped lines are joined, so that it does not take
the end of a line for the end of a thought.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vectune.embedders.models import DEFAULT_MODEL, behind_api
from vectune.errors import UsageError, check_bounds
from vectune.headings import heading_paths
from vectune.pages import continues, full_width
from vectune.records import Chunk, Document
from vectune.tokens import TokenCounter, document_prompt, load_tokenizer, model_reads, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST_TOKENS = 16  # for the text itself: less is no chunk
SEGMENT = 16_384  # characters of an enormous line that are split at a time
WORD_SEGMENT = 1024  # and of an enormous word (base64)
TITLE_SHARE = 4  # a title may take a quarter of what the model reads
_MARKDOWN = re.compile(r"^[ ]{0,3}(?:\#{1,6}[ \t]|```|~~~|\|)", re.MULTILINE)  # numbered clauses do not make it so
_ENORMOUS = re.compile(rf"(?<![^\n])[^\n]{{{2 * SEGMENT},}}|(?<![!-~])[!-~]{{{2 * WORD_SEGMENT},}}")
_KEEPS_LINE = re.compile(r"[ ]{4}|\t|[ ]{0,3}(?:\#|\||>|```|~~~|=+\s*$|-+\s*$)")


@dataclass(frozen=True)
class ChunkOptions:
    """How documents are cut.

    Attributes:
        tokens: size of a chunk with title and special tokens; None means all the model reads.
        overlap: tokens that a chunk repeats of the one before, at most.
        context: what goes in front of the text when it is embedded: nothing, the document's title, or the title and
            the headings above the chunk.
    """

    tokens: int | None = None
    overlap: int = 0
    context: Literal["none", "title", "path"] = "title"

    def __post_init__(self) -> None:
        check_bounds("chunks", self, {"tokens": (1, inf), "overlap": (0, inf)})


@dataclass(frozen=True)
class _Piece:
    start: int
    end: int


class Chunker:
    """Cuts documents into chunks that the model reads whole.

    Args:
        tokenizer: the model's tokenizer, or its ``tokenizer.json``.
        max_tokens: how many tokens the model reads, special tokens included.
        options: see ``ChunkOptions``.

    Raises:
        UsageError: the options leave no room for text.
    """

    def __init__(
        self, tokenizer: Tokenizer | str | Path, max_tokens: int, options: ChunkOptions = ChunkOptions()
    ) -> None:
        if isinstance(tokenizer, (str, Path)):
            tokenizer = read_tokenizer(Path(tokenizer))
        self.options = options
        self.count = TokenCounter(tokenizer)
        self.size = min(options.tokens or max_tokens, max_tokens) - self.count.special_tokens
        if self.size < LEAST_TOKENS or (options.tokens is not None and options.tokens > max_tokens):
            raise UsageError(
                f"chunks of {options.tokens or max_tokens} tokens: the model reads {max_tokens}, and a chunk needs at "
                f"least {LEAST_TOKENS + self.count.special_tokens}."
            )
        if not 0 <= options.overlap <= self.size // 2:
            most = self.size // 2
            raise UsageError(f"an overlap of {options.overlap} tokens: it must be from 0 to half a chunk ({most}).")
        self._splitters: dict[tuple[bool, int], Callable[[str], list[tuple[int, str]]]] = {}

    @classmethod
    def for_model(cls, model: str | Path, options: ChunkOptions = ChunkOptions()) -> Chunker:
        """A chunker that counts with the model's tokenizer and fills what the model reads.

        What a model behind an API reads is not known here: the default model's tokenizer counts, and chunks are as long
        as that one reads, or as the options say. Too long ones are refused by the server, not cut.

        Raises:
            ModelError: there is no such model, or it has no ``tokenizer.json``.
        """
        if behind_api(str(model)):
            return cls(load_tokenizer(DEFAULT_MODEL), options.tokens or model_reads(DEFAULT_MODEL), options)
        tokenizer = load_tokenizer(model)
        prompt = len(tokenizer.encode(document_prompt(model), add_special_tokens=False).ids)
        return cls(tokenizer, model_reads(model) - prompt, options)

    def split(self, document: Document) -> list[Chunk]:
        """The document's chunks in order; pieces without a letter or digit are left out."""
        limit = self.size // TITLE_SHARE
        starts, above = [heading.start for heading in document.headings], heading_paths(document.headings)
        title = self._cut(document.title, limit)
        paths: dict[tuple[str, ...], str] = {(): title}
        if self.options.context == "path":
            paths |= {path: self._path_title(document.title, path, limit) for path in above[1:]}
        elif self.options.context == "none":
            title = ""
            paths = {(): title}
        room = self.size - max(map(self.count, paths.values()))
        chunks = []
        for piece in self._pieces(document, room):
            path = above[bisect_right(starts, piece.start)]
            chunks.append(self._chunk(document, piece, paths.get(path, title), path))
        if not self.count.exact:
            chunks = [part for chunk in chunks for part in self._fitting(document, chunk)]
        return sorted(chunks, key=lambda chunk: chunk.start)

    def _chunk(self, document: Document, piece: _Piece, title: str, path: tuple[str, ...]) -> Chunk:
        return Chunk(
            text=document.text[piece.start : piece.end],
            title=title,
            document_id=document.id,
            source=document.source,
            start=piece.start,
            end=piece.end,
            page=bisect_right(document.pages, piece.start),
            headings=path,
        )

    def _path_title(self, title: str, path: tuple[str, ...], limit: int) -> str:
        names = [name for name in path if name != title]
        for skipped in range(len(names)):  # where all do not fit, the innermost headings say most
            whole = " > ".join([title, *names[skipped:]] if title else names[skipped:])
            if self.count(whole) <= limit:
                return whole
        return self._cut(" > ".join([*names[-1:], title]), limit)

    def _cut(self, title: str, limit: int) -> str:
        """As many words of a title as fit."""
        words = title.split()
        if self.count(title) <= limit:
            return " ".join(words)
        kept = bisect_right(range(1, len(words) + 1), limit, key=lambda n: self.count(" ".join(words[:n])))
        return " ".join(words[:kept])

    def _pieces(self, document: Document, room: int) -> list[_Piece]:
        text = document.text
        markdown = not document.pages and _MARKDOWN.search(text) is not None
        split = self._splitter(markdown, room)
        shadow = text if document.pages else _unwrapped(text)
        pieces = [
            _Piece(begin + start, begin + start + len(part))
            for begin, end in _segments(shadow)
            for start, part in split(shadow[begin:end])
        ]
        pieces = [piece for piece in pieces if any(map(str.isalnum, text[piece.start : piece.end]))]
        if not self.options.overlap:
            pieces = list(self._without_crumbs(pieces, text, room))
        return pieces

    def _splitter(self, markdown: bool, room: int) -> Callable[[str], list[tuple[int, str]]]:
        found = self._splitters.get((markdown, room))
        if found is None:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter

            kind = MarkdownSplitter if markdown else TextSplitter
            overlap = min(self.options.overlap, room - 1)
            found = self._splitters[markdown, room] = kind.from_callback(self.count, room, overlap).chunk_indices
        return found

    def _without_crumbs(self, pieces: list[_Piece], text: str, room: int) -> Iterator[_Piece]:
        """Join a piece that is too small to be found by itself to its neighbour, where both fit together."""
        small = max(4, room // 8)
        held: _Piece | None = None
        for piece in pieces:
            if held is not None:
                crumb = min(self.count(text[held.start : held.end]), self.count(text[piece.start : piece.end])) < small
                if crumb and self.count(text[held.start : piece.end]) <= room:
                    held = _Piece(held.start, piece.end)
                    continue
                yield held
            held = piece
        if held is not None:
            yield held

    def _fitting(self, document: Document, chunk: Chunk) -> Iterator[Chunk]:
        """Where the counter may be wrong, count again with the tokenizer, and cut again what is too long."""
        tokenizer = self.count.tokenizer
        excess = len(tokenizer.encode(chunk.content).ids) - self.count.special_tokens - self.size
        if excess <= 0:
            yield chunk
            return
        from semantic_text_splitter import TextSplitter

        room = max(1, len(tokenizer.encode(chunk.text, add_special_tokens=False).ids) - excess - 1)
        for start, text in TextSplitter.from_huggingface_tokenizer(tokenizer, room).chunk_indices(chunk.text):
            piece = _Piece(chunk.start + start, chunk.start + start + len(text))
            if any(map(str.isalnum, text)):
                yield from self._fitting(document, self._chunk(document, piece, chunk.title, chunk.headings))


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """The whole text, unless it has enormous lines or words: these are cut up, for splitting them is quadratic."""
    begin = 0
    for match in _ENORMOUS.finditer(text):
        while match.end() - begin > SEGMENT or (begin >= match.start() and match.end() - begin > WORD_SEGMENT):
            end = min(max(begin, match.start()) + SEGMENT, match.end())
            cut = max(text.rfind(mark, end - SEGMENT // 4, end) + 1 for mark in (". ", "! ", "? ", "。"))
            cut = cut or text.rfind(" ", max(begin, match.start()), end) + 1
            if not cut or cut <= begin:
                cut = min(max(begin, match.start()) + WORD_SEGMENT, match.end())
            yield begin, cut
            begin = cut
    if begin < len(text):
        yield begin, len(text)


def _unwrapped(text: str) -> str:
    """The text with a space for each line break that only wraps a line: as long, so that offsets stay.

    Code, tables, lists and headings keep their lines; a text whose lines are paragraphs is returned as it is.
    """
    lines = text.split("\n")
    width = full_width(lines[:5000])
    if len(lines) < 3 or not 40 <= width <= 120:
        return text
    joined: list[str] = []
    fenced = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        joins = not fenced and not _KEEPS_LINE.match(line) and not _KEEPS_LINE.match(following)
        joined += (line, " " if joins and continues(line.rstrip(), following.lstrip(), width) else "\n")
    return "".join(joined[:-1])
