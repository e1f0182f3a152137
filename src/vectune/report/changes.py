"""How each query fared before and after: changes, ranks, the worst regressions, and what the browser is given."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from vectune.board import Row
from vectune.records import Chunk, Query, content_id
from vectune.report.scores import Scores
from vectune.runs import Json

SHOWN_RANKS = 10  # ranks from here on are drawn in ranges
EXCERPTS = ((3000, 600), (3000, 300), (3000, 160), (2000, 100), (1000, 100), (400, 100), (100, 100), (40, 60))
PAYLOAD_BYTES = 1_900_000


@dataclass(frozen=True)
class Change:
    """One query in the two rows that are compared.

    Attributes:
        query: its id.
        text: as typed; the id where the dataset is not at hand.
        before, after: the headline measure.
        rank_before, rank_after: 1-based rank of the first right chunk; 0 when it was not found.
    """

    query: str
    text: str
    style: str
    before: float
    after: float
    rank_before: int
    rank_after: int

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def direction(self) -> str:
        """``up``, ``down`` or ``same``."""
        return "same" if abs(self.gain) < 1e-9 else "up" if self.gain > 0 else "down"


def read_changes(scores: Scores, queries: Mapping[str, Query]) -> list[Change]:
    """All queries in the board's order; empty where the board does not hold both rows."""
    if scores.base is None or scores.tuned is None:
        return []
    before, after = scores.base.values(scores.headline), scores.tuned.values(scores.headline)
    ranks_before, ranks_after = scores.base.ranks, scores.tuned.ranks
    found = []
    for query in before:
        known = queries.get(query)
        text, style = (known.text, known.style) if known else (query, "")
        ranks = ranks_before.get(query, 0), ranks_after.get(query, 0)
        found.append(Change(query, text, style, before[query], after.get(query, 0.0), *ranks))
    return found


def worst(changes: Sequence[Change], most: int = 12) -> list[Change]:
    """The queries that lost most; equal losses by how far the right chunk fell."""
    lost = [change for change in changes if change.direction == "down"]
    return sorted(lost, key=lambda change: (change.gain, -(change.rank_after or 10**6), change.query))[:most]


# Categories of ranks


def rank_labels(depth: int) -> list[str]:
    """Categories from worst to best: not found, ranges, single ranks."""
    edges = [edge for edge in (10, 20, 100, 1000) if edge < depth]
    ranges = [f"{low + 1}–{high}" for low, high in pairwise([*edges, depth])]
    return [f">{depth}", *reversed(ranges), *(str(rank) for rank in range(min(SHOWN_RANKS, depth), 0, -1))]


def rank_label(rank: int, depth: int) -> str:
    """The category of a rank; 0 is one that was not found."""
    if rank == 0 or rank > depth:
        return f">{depth}"
    if rank <= SHOWN_RANKS:
        return str(rank)
    return next(label for label in rank_labels(depth) if "–" in label and rank <= int(label.split("–")[1]) and
                rank >= int(label.split("–")[0]))  # fmt: skip


def rank_table(changes: Sequence[Change], depth: int) -> list[Json]:
    """Category → how many queries before and after, best first."""
    before = Counter(rank_label(change.rank_before, depth) for change in changes)
    after = Counter(rank_label(change.rank_after, depth) for change in changes)
    most = max([*before.values(), *after.values()], default=1)
    return [
        {"label": label, "before": before[label], "after": after[label],
         "before_width": round(100 * before[label] / most, 2), "after_width": round(100 * after[label] / most, 2)}
        for label in reversed(rank_labels(depth))
        if before[label] or after[label]
    ]  # fmt: skip


# What the browser is given


@dataclass(frozen=True)
class Payload:
    """Queries and chunks for the page's script, as JSON that may stand inside a script element.

    Attributes:
        text: the JSON.
        shown: ids of its queries, in its order.
    """

    text: str
    shown: tuple[str, ...]


def payload(scores: Scores, changes: Sequence[Change], corpus: Mapping[str, Chunk]) -> Payload:
    """As many queries as fit: those that changed most first, then a sample that is the same in every report."""
    ordered = _by_interest(changes)
    value: Json = {}
    for most, excerpt in EXCERPTS:
        value = _payload(scores, ordered[:most], corpus, excerpt)
        text = script_json(value)
        if len(text.encode("utf-8", "replace")) <= PAYLOAD_BYTES:
            return Payload(text, tuple(change.query for change in ordered[:most]))
    return Payload(script_json({"queries": [], "chunks": []}), ())


def _by_interest(changes: Sequence[Change]) -> list[Change]:
    """The 200 that changed most, then the others in an order that depends on nothing but their ids."""
    by_change = sorted(changes, key=lambda change: (-abs(change.gain), change.query))
    first = {change.query for change in by_change[:200]}
    rest = (change for change in changes if change.query not in first)
    return by_change[:200] + sorted(rest, key=lambda change: content_id(change.query))


def _payload(scores: Scores, changes: Sequence[Change], corpus: Mapping[str, Chunk], excerpt: int) -> Json:
    places: dict[str, int] = {}

    def indices(ids: Iterable[str]) -> list[int]:
        return [places.setdefault(chunk, len(places)) for chunk in ids]

    queries = []
    for change in changes:
        found = [[chunk for chunk, _ in ranking_of(row, change.query)] for row in _rows(scores)]
        shown = set(chain(*found))  # a hit must be known as one, however many other chunks are right
        judged = sorted(scores.qrels.get(change.query, {}), key=lambda chunk: chunk not in shown)[:50]
        rankings, right = [indices(chunks) for chunks in found], indices(judged)
        figures = [round(change.before, 4), round(change.after, 4), change.rank_before, change.rank_after]
        queries.append([cut(change.text, 1000), *figures, *rankings, right])
    chunks = [shown_chunk(corpus.get(chunk), chunk, excerpt) for chunk in places]
    return {"queries": queries, "chunks": [[chunk["place"], chunk["title"], chunk["text"]] for chunk in chunks]}


def _rows(scores: Scores) -> tuple[Row, Row]:
    if scores.base is None or scores.tuned is None:
        raise ValueError("changes come from two rows")
    return scores.base, scores.tuned


def ranking_of(row: Row, query: str, most: int = 10) -> list[tuple[str, float]]:
    """The first chunks of a row's ranking, best first."""
    return row.rankings.get(query, [])[:most]


def shown_chunk(chunk: Chunk | None, chunk_id: str, excerpt: int) -> Json:
    """Title, place and the first characters of a chunk; its id alone where its text is not at hand."""
    if chunk is None:
        return {"title": "", "place": chunk_id, "text": ""}
    place = chunk.source + (f", page {chunk.page}" if chunk.page else "")
    return {"title": cut(chunk.title, 120), "place": cut(place, 120) or chunk_id, "text": cut(chunk.text, excerpt)}


def cut(text: str, most: int) -> str:
    """The text, or its first characters and how long it is."""
    return text if len(text) <= most else f"{text[:most].rstrip()}… ({len(text):,} characters)"


def script_json(value: Json) -> str:
    """JSON in which nothing can end or open an HTML element, so that it may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
