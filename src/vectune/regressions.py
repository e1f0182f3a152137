"""The regression guard: which queries got worse, in which groups, with both rankings of the worst ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vectune.board import Board, Row
from vectune.dataset import RetrievalDataset
from vectune.lexical import Analyzer
from vectune.metrics import mean
from vectune.runs import Json
from vectune.statistics import holm, randomization_test

SMALLEST_GROUP = 10  # queries; of smaller groups nothing can be said
MOST_GROUPS = 12  # of one grouping, the worst first
LENGTHS = ((3, "1 to 3 words"), (6, "4 to 6 words"), (10, "7 to 10 words"), (20, "11 to 20 words"))
OVERLAPS = ((0.25, "under a quarter"), (0.5, "a quarter to a half"), (0.75, "a half to three quarters"))


@dataclass(frozen=True)
class Group:
    """Queries that have something in common.

    Attributes:
        by: ``document``, ``style``, ``length`` or ``words shared with the chunk``.
        name: what they have in common.
        queries, worse, better: counts.
        base, candidate: mean of the measure.
        p: chance of such a difference if there were none, corrected over all groups (Holm).
        hurt: the candidate is worse here, and that is not luck.
    """

    by: str
    name: str
    queries: int
    worse: int
    better: int
    base: float
    candidate: float
    p: float
    hurt: bool


@dataclass(frozen=True)
class Regressions:
    """What got worse.

    Attributes:
        better, worse, same: how many queries.
        groups: of at least ten queries, the largest loss first within each grouping.
        worst: the queries that lost most: ``query``, ``text``, ``gain``, ``right`` (ids of the chunks that answer),
            and for ``base`` and ``candidate`` the ``rank`` of the first right chunk (0: not found) and the ``ranking``
            ([chunk id, score], best first).
    """

    better: int
    worse: int
    same: int
    groups: tuple[Group, ...]
    worst: tuple[Json, ...]


def find_regressions(
    board: Board, dataset: RetrievalDataset, base: Row, candidate: Row, measure: str, *, most: int = 20, seed: int = 0
) -> Regressions:
    """Compare two rows query by query.

    Args:
        board: holds both rows.
        dataset: what the board was made from; its texts and documents name the groups.
        base, candidate: rows of the board.
        measure: one of the board's measures.
        most: how many of the worst queries are listed.
        seed: of the tests.
    """
    before, after = base.values(measure), candidate.values(measure)
    gains = {query: after[query] - before[query] for query in before}
    losers = sorted((query for query in gains if gains[query] < 0), key=lambda query: (gains[query], query))
    return Regressions(
        better=sum(gain > 0 for gain in gains.values()),
        worse=len(losers),
        same=sum(gain == 0 for gain in gains.values()),
        groups=_groups(board, dataset, before, after, seed),
        worst=tuple(_side_by_side(board, dataset, base, candidate, query, gains[query]) for query in losers[:most]),
    )


def _groups(
    board: Board, dataset: RetrievalDataset, before: dict[str, float], after: dict[str, float], seed: int
) -> tuple[Group, ...]:
    members: dict[tuple[str, str], list[str]] = {}
    for by, name_of in _groupings(dataset, board.split).items():
        for query in before:
            if name := name_of(query):
                members.setdefault((by, name), []).append(query)
    members = {key: queries for key, queries in members.items() if len(queries) >= SMALLEST_GROUP}
    tested = {
        "\x1f".join(key): randomization_test(
            [after[query] - before[query] for query in queries],
            [board.clusters.get(query, query) for query in queries] if key[0] != "document" else None,
            draws=2000,
            seed=seed,
        )
        for key, queries in members.items()
    }
    corrected = holm(tested)
    groups = [_group(key, queries, before, after, corrected["\x1f".join(key)]) for key, queries in members.items()]
    found: list[Group] = []
    for by in dict.fromkeys(group.by for group in groups):
        own = sorted((group for group in groups if group.by == by), key=lambda group: group.candidate - group.base)
        found.extend(own[:MOST_GROUPS])
    return tuple(found)


def _group(
    key: tuple[str, str], queries: list[str], before: dict[str, float], after: dict[str, float], p: float
) -> Group:
    base, candidate = mean({q: before[q] for q in queries}), mean({q: after[q] for q in queries})
    worse = sum(after[query] < before[query] for query in queries)
    better = sum(after[query] > before[query] for query in queries)
    return Group(*key, len(queries), worse, better, base, candidate, p, candidate < base and p <= 0.05)


def _groupings(dataset: RetrievalDataset, split: str) -> dict[str, Callable[[str], str]]:
    """Grouping → from a query's id to the name of its group; an empty name is no group."""
    qrels, analyzer = dataset.split(split), Analyzer("en")

    def document(query: str) -> str:
        chunk = dataset.corpus[next(iter(qrels[query]))]
        return chunk.source or chunk.document_id

    def shared(query: str) -> str:
        words = set(analyzer.stems(dataset.queries[query].text))
        if not words:
            return ""
        chunks = [set(analyzer.stems(dataset.corpus[chunk].content)) for chunk in qrels[query]]
        return _bucket(max(len(words & chunk) / len(words) for chunk in chunks), OVERLAPS, "over three quarters")

    return {
        "document": document,
        "style": lambda query: dataset.queries[query].style,
        "length": lambda query: _bucket(len(dataset.queries[query].text.split()), LENGTHS, "over 20 words"),
        "words shared with the chunk": shared,
    }


def _bucket(value: float, steps: tuple[tuple[float, str], ...], rest: str) -> str:
    return next((name for most, name in steps if value <= most), rest)


def _side_by_side(board: Board, dataset: RetrievalDataset, base: Row, candidate: Row, query: str, gain: float) -> Json:
    def side(row: Row) -> Json:
        return {"rank": row.ranks.get(query, 0), "ranking": [list(hit) for hit in row.rankings.get(query, ())]}

    right = list(dataset.split(board.split)[query])
    text = dataset.queries[query].text
    return {
        "query": query,
        "text": text,
        "gain": gain,
        "right": right,
        "base": side(base),
        "candidate": side(candidate),
    }
