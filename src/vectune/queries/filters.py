"""Which written queries are worth training on; what is dropped is counted, with examples for the report.

Each filter is a function of the written queries (and the corpus) that returns what it keeps and what it drops. The
order in ``filter_queries`` goes from cheap to dear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from vectune.characters import words_in
from vectune.errors import check_bounds
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder
from vectune.queries import language
from vectune.queries.consistency import ConsistencyOptions, consistent
from vectune.queries.residue import has_residue
from vectune.queries.subject import names_subject
from vectune.records import Chunk, WrittenQuery
from vectune.runs import Json

EXAMPLES = 5  # kept of each reason, for the report


@dataclass(frozen=True)
class FilterOptions:
    """Which filters run, and how strict they are.

    Attributes:
        residue: drop "according to the provided context" and its kin.
        subject: drop queries that name no subject ("What does it say?").
        copied: drop a query when this share of its four-word runs stands in the chunk; above 1 drops none.
        duplicates: the same query of several chunks becomes one query with several positives.
        further: most positives that a query may gain beyond its own chunks; with more it goes.
        language: ``document`` drops queries in another language than their chunk's, ``any`` drops none, a code such as
            ``de`` wants that one.
        consistency: keep a query only if the hybrid of BM25 and the base model finds its chunk among the ``first``.
        first: see ``consistency``.
    """

    residue: bool = True
    subject: bool = True
    copied: float = 0.7
    duplicates: bool = True
    further: int = 3
    language: str = "document"
    consistency: bool = True
    first: int = 20

    def __post_init__(self) -> None:
        check_bounds("filters", self, {"further": (0, inf), "first": (1, inf)}, ("copied",))


@dataclass(frozen=True)
class Dropped:
    """A query that a filter dropped, and why."""

    query: WrittenQuery
    reason: str


@dataclass
class Filtered:
    """What a filter kept and dropped; ``widened`` counts kept queries that gained a positive."""

    kept: list[WrittenQuery] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    widened: int = 0


@dataclass
class FilterReport:
    """Counts and examples, for the report.

    Attributes:
        written: queries that came in.
        kept: queries that went out.
        dropped: reason → how many.
        examples: reason → some of their texts.
        widened: kept queries that gained a further positive.
    """

    written: int
    kept: int
    dropped: dict[str, int]
    examples: dict[str, list[str]]
    widened: int

    def to_json(self) -> Json:
        """For ``dataset.json``."""
        return {**self.__dict__}

    def describe(self) -> str:
        """One line for people."""
        dropped = "".join(f"; {count:,} dropped: {reason}" for reason, count in self.dropped.items())
        widened = f"; {self.widened:,} gained a further positive" if self.widened else ""
        return f"{self.written:,} queries written, {self.kept:,} kept{widened}{dropped}"


def filter_queries(
    written: Sequence[WrittenQuery],
    corpus: Mapping[str, Chunk],
    options: FilterOptions | None = None,
    embedder: Embedder | None = None,
    progress: Progress = SILENT,
) -> tuple[list[WrittenQuery], FilterReport]:
    """All filters that the options switch on.

    Args:
        written: queries with the chunks they were written for.
        corpus: all chunks, by id.
        options: see there.
        embedder: the base model, for consistency; without it BM25 judges alone.
        progress: where to report.
    """
    options = options or FilterOptions()
    kept, dropped, widened = list(written), list[Dropped](), 0
    for filtered in _filters(written, corpus, options, embedder, progress):
        kept = filtered.kept
        dropped += filtered.dropped
        widened += filtered.widened
    examples: dict[str, list[str]] = {}
    for one in dropped:
        shown, text = examples.setdefault(one.reason, []), one.query.query.text
        if len(shown) < EXAMPLES and text not in shown:
            shown.append(text)
    counts = dict(Counter(one.reason for one in dropped).most_common())
    return kept, FilterReport(len(written), len(kept), counts, examples, widened)


def _filters(
    written: Sequence[WrittenQuery],
    corpus: Mapping[str, Chunk],
    options: FilterOptions,
    embedder: Embedder | None,
    progress: Progress,
) -> Iterator[Filtered]:
    """The filters' results, each fed with what the one before kept."""
    current = Filtered(list(written))
    if options.residue:
        yield (current := drop_residue(current.kept))
    if options.subject:
        yield (current := drop_without_subject(current.kept))
    if options.copied <= 1:
        yield (current := drop_copies(current.kept, corpus, options.copied))
    if options.language != "any":
        yield (current := drop_wrong_language(current.kept, corpus, options.language))
    if options.duplicates:
        yield (current := merge_duplicates(current.kept, options.further))
    if options.consistency and current.kept:
        yield drop_inconsistent(current.kept, corpus, options, embedder, progress)


def drop_residue(written: Iterable[WrittenQuery]) -> Filtered:
    """Queries that point at a text in front of the writer: "according to the context", "in this passage"."""
    return _split(written, lambda one: "residue of the prompt" if has_residue(one.query.text) else "")


def drop_without_subject(written: Iterable[WrittenQuery]) -> Filtered:
    """Queries that nobody could answer without the text in hand, because they do not say what they are about."""
    return _split(written, lambda one: "" if names_subject(one.query.text) else "names no subject")


def drop_copies(written: Iterable[WrittenQuery], corpus: Mapping[str, Chunk], share: float) -> Filtered:
    """Queries of seven words and more with at least this share of their four-word runs in one of their chunks."""

    def reason(one: WrittenQuery) -> str:
        runs = _runs(one.query.text)
        if len(runs) < 4:  # short queries are made of the chunk's terms by nature
            return ""
        texts = (set(_runs(corpus[chunk].content)) for chunk in one.chunk_ids if chunk in corpus)
        copied = any(sum(run in known for run in runs) >= share * len(runs) for known in texts)
        return "copied from the chunk" if copied else ""

    return _split(written, reason)


def drop_wrong_language(written: Iterable[WrittenQuery], corpus: Mapping[str, Chunk], wanted: str) -> Filtered:
    """Queries that are clearly in another language than their chunk (or than ``wanted``, a code)."""
    known: dict[str, str] = {}

    def reason(one: WrittenQuery) -> str:
        expected = wanted
        if wanted == "document":
            first = one.chunk_ids[0]
            if first not in known:
                known[first] = language.detect(corpus[first].text) if first in corpus else ""
            expected = known[first]
        found = language.detect(one.query.text)
        foreign = (found and found != expected) or language.other_script(one.query.text, expected)
        return "wrong language" if expected and foreign else ""

    return _split(written, reason)


def merge_duplicates(written: Iterable[WrittenQuery], further: int) -> Filtered:
    """One query for each wording. The chunks of all its copies are its positives; with too many of them it goes."""
    groups: dict[tuple[str, ...], list[WrittenQuery]] = {}
    for one in written:
        groups.setdefault(_wording(one.query.text), []).append(one)
    filtered = Filtered()
    for group in groups.values():
        first, *others = group
        chunks = tuple(dict.fromkeys(chunk for one in group for chunk in one.chunk_ids))
        if len(chunks) > len(first.chunk_ids) + further:
            filtered.dropped += [Dropped(one, "the same for many chunks") for one in group]
            continue
        filtered.kept.append(replace(first, chunk_ids=chunks))
        filtered.widened += len(chunks) > len(first.chunk_ids)
        filtered.dropped += [Dropped(one, "duplicate") for one in others]
    return filtered


def drop_inconsistent(
    written: Sequence[WrittenQuery],
    corpus: Mapping[str, Chunk],
    options: FilterOptions,
    embedder: Embedder | None = None,
    progress: Progress = SILENT,
) -> Filtered:
    """Round-trip consistency (Alberti et al., "Synthetic QA Corpora Generation with Roundtrip Consistency", ACL 2019).

    A query stays if BM25 and the base model together find one of its chunks among the first. Chunks that say the same
    as its own and answer as well become further positives; where there are too many of them, it goes.
    """
    judged = consistent(written, corpus, embedder, ConsistencyOptions(options.first, options.further), progress)
    filtered = Filtered()
    for one, judgment in zip(written, judged, strict=True):
        if judgment.reason:
            filtered.dropped.append(Dropped(one, judgment.reason))
        else:
            filtered.kept.append(replace(one, chunk_ids=(*one.chunk_ids, *judgment.further)))
            filtered.widened += bool(judgment.further)
    return filtered


# Wordings


def _split(written: Iterable[WrittenQuery], reason: Callable[[WrittenQuery], str]) -> Filtered:
    filtered = Filtered()
    for one in written:
        if why := reason(one):
            filtered.dropped.append(Dropped(one, why))
        else:
            filtered.kept.append(one)
    return filtered


def _words(text: str) -> list[str]:
    return words_in(text.casefold())


def _runs(text: str) -> list[tuple[str, ...]]:
    words = _words(text)
    return [tuple(words[start : start + 4]) for start in range(len(words) - 3)]


def _wording(text: str) -> tuple[str, ...]:
    return tuple(_words(text)) or (text.casefold(),)
