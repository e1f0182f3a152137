"""Documents → Chunks, by tokens of the model that will read them, along the document's own structure.

The splitting is semantic-text-splitter's: the highest level of structure (heading, block, line, sentence, word) whose
pieces fit. Two things are ours: token counts from a table of words, many times faster than tokenizing every candidate
and just as exact, and a copy of the text for the splitter in which wrapped lines are joined, so that it does not take
the end of a line for the end of a thought.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vectune.embedders.models import model_path
from vectune.errors import ModelError, UsageError
from vectune.headings import heading_path
from vectune.pages import continues, full_width
from vectune.records import Chunk, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST_TOKENS = 16  # for the text itself: less is no chunk
MOST_WORDS = 300_000  # in the table of counts: a corpus of numbers must not fill the memory
TITLE_SHARE = 4  # a title may take a quarter of what the model reads
_MARKDOWN = re.compile(r"^[ ]{0,3}(?:\#{1,6}[ \t]|```|~~~|[-*+][ \t]|\d+[.)][ \t]|\||>)", re.MULTILINE)
_WORD = re.compile(r"[^ \t\n\r]+")
_KEEPS_LINE = re.compile(r"[ ]{4}|\t|[ ]{0,3}(?:\#|\||>|```|~~~|=+\s*$|-+\s*$)")
_SPACED_WORD = re.compile(r"\s*\S+|\s+")


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


def load_tokenizer(model: str | Path) -> Tokenizer:
    """The model's tokenizer without torch, and without the truncation and padding that its file may ask for.

    Raises:
        ModelError: there is no such model, or it has no ``tokenizer.json``.
    """
    file = _model_file(str(model), "tokenizer.json")
    if file is None:
        hint = "Chunks are counted in the model's tokens; name a model that has the file."
        raise ModelError(f"{model}: the model has no tokenizer.json.", hint)
    return _tokenizer_file(file)


def model_reads(model: str | Path) -> int:
    """How many tokens of a text the model reads, special tokens included; the rest is cut off silently.

    Raises:
        ModelError: there is no such model.
    """
    for name, keys in (
        ("sentence_bert_config.json", ("max_seq_length",)),
        ("tokenizer_config.json", ("model_max_length",)),
        ("config.json", ("max_position_embeddings", "n_positions")),
    ):
        file = _model_file(str(model), name)
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        for key in keys:
            if isinstance(found.get(key), int) and 0 < found[key] < 10**6:
                return int(found[key])
    return 512


def _model_file(model: str, name: str) -> Path | None:
    where = Path(model_path(model))
    if where.is_dir():
        for folder in (where, where / "0_Transformer"):
            if (folder / name).exists():
                return folder / name
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(where.as_posix(), name))
    except EntryNotFoundError:
        return None
    except Exception as error:  # the hub has many ways to be out of reach
        said = str(error).split("\n")[0]
        raise ModelError(f"{model}: not on this machine, and the hub cannot be asked ({said}).") from error


class TokenCounter:
    """Counts tokens of a text, special tokens left out.

    The tokenizer of most embedding models cuts at white space first, so a text's count is the sum of its words' counts,
    each tokenized once. Others get the white space in front of a word as part of it, which may count a token too many;
    ``exact`` tells.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = int(tokenizer.num_special_tokens_to_add(is_pair=False))
        self.exact = _cuts_at_white_space(tokenizer)
        self._pieces = (_WORD if self.exact else _SPACED_WORD).findall
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        pieces = self._pieces(text)
        try:
            return sum(map(self._known.__getitem__, pieces))
        except KeyError:
            self._learn(pieces)
            return sum(map(self._known.__getitem__, pieces))

    def _learn(self, pieces: list[str]) -> None:
        if len(self._known) > MOST_WORDS:
            self._known.clear()
        new = [piece for piece in set(pieces) if piece not in self._known]
        for piece, encoding in zip(new, self.tokenizer.encode_batch(new, add_special_tokens=False), strict=True):
            self._known[piece] = len(encoding.ids)


def _cuts_at_white_space(tokenizer: Tokenizer) -> bool:
    """Whether words are tokenized apart from each other; tried out on a text with many kinds of space."""

    def pieces(text: str) -> list[str]:
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    if tokenizer.pre_tokenizer is None:
        return False
    trial = "Ab  c,d\n\n e\tf . g"
    return pieces(trial) == [piece for word in trial.split() for piece in pieces(word)]


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
            tokenizer = _tokenizer_file(Path(tokenizer))
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

        Raises:
            ModelError: there is no such model, or it has no ``tokenizer.json``.
        """
        return cls(load_tokenizer(model), model_reads(model), options)

    def split(self, document: Document) -> list[Chunk]:
        """The document's chunks in order; pieces without a letter or digit are left out."""
        limit = self.size // TITLE_SHARE
        starts = [heading.start for heading in document.headings]
        title = self._cut(document.title, limit)
        paths: dict[tuple[str, ...], str] = {(): title}
        if self.options.context == "path":
            for start in starts:
                path = heading_path(document.headings, starts, start)
                paths[path] = self._path_title(document.title, path, limit)
        elif self.options.context == "none":
            title = ""
            paths = {(): title}
        room = self.size - max(map(self.count, paths.values()))
        chunks = []
        for piece in self._pieces(document, room):
            path = heading_path(document.headings, starts, piece.start)
            chunks.append(self._chunk(document, piece, paths.get(path, title), path))
        return chunks

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
        return self._cut(" > ".join([title, *names] if title else names), limit)

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
        pieces = [_Piece(start, start + len(part)) for start, part in split(shadow)]
        pieces = [piece for piece in pieces if any(map(str.isalnum, text[piece.start : piece.end]))]
        if not self.options.overlap:
            pieces = list(self._without_crumbs(pieces, text, room))
        return pieces if self.count.exact else list(self._fitting(pieces, text, room))

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

    def _fitting(self, pieces: list[_Piece], text: str, room: int) -> Iterator[_Piece]:
        """Where the counter may be wrong, count again with the tokenizer, and cut again what is too long."""
        tokenizer = self.count.tokenizer
        texts = [text[piece.start : piece.end] for piece in pieces]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        for piece, part, encoding in zip(pieces, texts, encodings, strict=True):
            if len(encoding.ids) <= room:
                yield piece
                continue
            from semantic_text_splitter import TextSplitter

            for start, cut in TextSplitter.from_huggingface_tokenizer(tokenizer, room).chunk_indices(part):
                yield _Piece(piece.start + start, piece.start + start + len(cut))


def _tokenizer_file(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise ModelError(f"{file}: not a tokenizer ({error}).") from error
    tokenizer.no_truncation()  # or every long text would count as the 128 tokens that all-MiniLM's file cuts at
    tokenizer.no_padding()
    return tokenizer


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
