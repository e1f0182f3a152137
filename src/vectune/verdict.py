"""The verdict: ship, do not ship, or too few queries to tell; and what speaks for it.

``verdict.json`` in a run is ``Verdict.to_json()``::

    {"outcome": "ship" | "do not ship" | "too few queries to tell",
     "sentence": "Ship: ...",                      one sentence a person can act on
     "reasons": ["...", ...],                      what it rests on, most important first
     "measure": "nDCG@10", "base": NAME, "candidate": NAME,
     "gain": 0.083, "interval": [0.051, 0.114], "level": 0.95, "p": 0.0001, "p_corrected": 0.0002,
     "queries": 247, "clusters": 98, "clustered_by": "document",
     "detectable": null | 0.031,                   smallest true difference these queries show four times in five
     "queries_needed": null | 620,                 with the outcome "too few queries to tell"
     "comparisons": [{"name": NAME, "gain": ..., "interval": [low, high], "p": ..., "p_corrected": ...,
                      "detectable": ..., "significant": true}, ...],      every other row against the base
     "cost": {"chunks": 699, "minutes": 0.1 | null, "money": null | 0.0}, what shipping takes; 0 chunks for an adapter
     "best": NAME,                                 the row with the highest measure, which may be neither
     "general": null | {"base": ..., "candidate": ..., "gain": ..., "interval": [low, high], "queries": n,
                        "allowed_loss": 0.02, "holds": true},
     "regressions": {"better": n, "worse": n, "same": n,
                     "groups": [{"by", "name", "queries", "worse", "better", "base", "candidate", "p", "hurt"}, ...],
                     "worst": [{"query", "text", "gain", "right": [CHUNK_ID, ...],
                                "base": {"rank": 1, "ranking": [[CHUNK_ID, score], ...]}, "candidate": {...}}, ...]}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Literal

from vectune.board import Board, Row, counted, figure
from vectune.dataset import RetrievalDataset
from vectune.embedders.models import ARTIFACT_FILE, DEFAULT_MODEL, DEFAULT_NAMES, behind_api
from vectune.errors import UsageError, check_bounds
from vectune.metrics import mean
from vectune.rankers import RowName, parse_name
from vectune.regressions import Regressions, find_regressions
from vectune.runs import Json
from vectune.statistics import (
    bootstrap_interval,
    detectable_difference,
    holm,
    least_p,
    queries_needed,
    randomization_test,
    standard_error,
)

Outcome = Literal["ship", "do not ship", "too few queries to tell"]
KEEPS_DOCUMENTS = ("adapter", "query", "words")  # kinds of artifact that leave documents' vectors as they are
LEAST_GAIN = 0.01  # a smaller gain is not worth asking for more queries
ENOUGH_QUERIES, ENOUGH_CLUSTERS = 30, 10  # with fewer, intervals are too narrow to rule anything out by

CUT_QUERIES = "The queries are the documents' own words: they show that tuning worked, not what people's queries gain."
REAL_QUERIES = 100  # judged queries of people that a first decision should rest on


@dataclass(frozen=True)
class VerdictOptions:
    """What a verdict asks for.

    Attributes:
        measure: what is compared; it is on the board whether evaluation was asked for it or not.
        level: of the intervals; 1 minus it is the chance of a false alarm.
        power: the chance to find a difference of the size called detectable.
        worth: the smallest gain for which re-embedding the corpus pays; a change that re-embeds nothing needs none.
        allowed_loss: what the candidate may lose on the general set.
        draws: random flips and resamples.
        examples: how many of the worst queries are kept.
        seed: of everything drawn.
    """

    measure: str = "nDCG@10"
    level: float = 0.95
    power: float = 0.8
    worth: float = 0.01
    allowed_loss: float = 0.02
    draws: int = 10_000
    examples: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no statistics can be made of.

        Raises:
            UsageError: a share that is none, or a number out of bounds.
        """
        for name in ("level", "power"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} of the verdict is {getattr(self, name)}.", "It lies between 0 and 1: 0.95.")
        least = {"worth": 0, "allowed_loss": 0, "draws": 100, "examples": 0, "seed": 0}
        check_bounds("verdict", self, {name: (value, inf) for name, value in least.items()})


@dataclass(frozen=True)
class Comparison:
    """One row against the base, paired over queries; see ``statistics.py``."""

    name: str
    gain: float
    interval: tuple[float, float]
    p: float
    p_corrected: float
    detectable: float | None
    significant: bool


@dataclass(frozen=True)
class Cost:
    """What shipping takes: chunks to embed again, minutes of that on this machine, US dollars; None where unknown."""

    chunks: int
    minutes: float | None = None
    money: float | None = None


@dataclass(frozen=True)
class General:
    """How base and candidate do on the general set."""

    base: float
    candidate: float
    gain: float
    interval: tuple[float, float]
    queries: int
    allowed_loss: float
    holds: bool


@dataclass(frozen=True)
class Verdict:
    """See the module's docstring for the meaning of each field."""

    outcome: Outcome
    sentence: str
    reasons: tuple[str, ...]
    measure: str
    base: str
    candidate: str
    gain: float
    interval: tuple[float, float]
    level: float
    p: float
    p_corrected: float
    queries: int
    clusters: int
    clustered_by: str
    detectable: float | None
    queries_needed: int | None
    comparisons: tuple[Comparison, ...]
    cost: Cost
    best: str
    general: General | None
    regressions: Regressions

    def to_json(self) -> Json:
        """Plain values, as verdict.json keeps them."""
        value: Json = json.loads(json.dumps(asdict(self)))
        return value


def verdict(
    board: Board,
    dataset: RetrievalDataset,
    base: str,
    candidate: str,
    options: VerdictOptions = VerdictOptions(),
    *,
    general: Board | None = None,
) -> Verdict:
    """Judge whether the candidate should replace the base.

    Args:
        board: holds both rows; every other row is compared with the base too, and the p-values are corrected for it.
        dataset: what the board was made from.
        base, candidate: names of rows.
        options: what is asked for.
        general: a board over the general set with both rows.

    Raises:
        UsageError: a row or the measure is not on the board, or base and candidate are one.
    """
    if base == candidate:
        raise UsageError(f"base and candidate are both '{base}': there is nothing to compare.")
    base_row, row = board.row(base), board.row(candidate)
    comparisons = compare_rows(board, base, options)
    chosen = next(each for each in comparisons if each.name == candidate)
    cost = shipping_cost(board, base, row)
    guard = None if general is None else general_guard(general, base, candidate, options)
    regressions = find_regressions(
        board, dataset, base_row, row, options.measure, most=options.examples, seed=options.seed
    )
    cut, needed = cut_from_documents(board, dataset), None
    outcome, why = _outcome(board, chosen, cost, guard, options, cut)
    if outcome == "too few queries to tell":
        needed = REAL_QUERIES if cut else _needed(board, base_row, row, comparisons, guard, options)
    best = max(board.rows, key=lambda each: mean(each.values(options.measure)))
    return Verdict(
        outcome=outcome,
        sentence=_sentence(outcome, chosen, cost, needed, options, cut, guard),
        reasons=(why, *_further(board, chosen, row, best, cost, guard, regressions, options)),
        measure=options.measure,
        base=base,
        candidate=candidate,
        gain=chosen.gain,
        interval=chosen.interval,
        level=options.level,
        p=chosen.p,
        p_corrected=chosen.p_corrected,
        queries=board.queries,
        clusters=len(set(board.clusters.values())),
        clustered_by=board.clustered_by,
        detectable=chosen.detectable,
        queries_needed=needed,
        comparisons=comparisons,
        cost=cost,
        best=best.name,
        general=guard,
        regressions=regressions,
    )


def cut_from_documents(board: Board, dataset: RetrievalDataset) -> bool:
    """Whether all queries of the board are the documents' own words: nobody asked them, and no LLM thought of them."""
    asked = [dataset.queries[query] for query in board.clusters if query in dataset.queries]
    return bool(asked) and all(query.writer == "extractive" for query in asked)


def compare_rows(board: Board, base: str, options: VerdictOptions = VerdictOptions()) -> tuple[Comparison, ...]:
    """Every other row against the base, with p-values corrected over them (Holm).

    Raises:
        UsageError: no such row or measure.
    """
    others = [row for row in board.rows if row.name != base]
    reference = board.row(base)
    p_values = {
        row.name: randomization_test(*_paired(board, reference, row, options.measure), draws=options.draws,
                                     seed=options.seed)
        for row in others
    }  # fmt: skip
    corrected = holm(p_values)
    return tuple(_comparison(board, reference, row, p_values, corrected[row.name], options) for row in others)


def _comparison(
    board: Board, base: Row, row: Row, p_values: Mapping[str, float], p_corrected: float, options: VerdictOptions
) -> Comparison:
    differences, clusters = _paired(board, base, row, options.measure)
    interval = bootstrap_interval(differences, clusters, level=options.level, draws=options.draws, seed=options.seed)
    error = standard_error(differences, clusters)
    level, count = _first_level(options.level, len(p_values)), len(set(clusters))
    known = 0 < error < inf and least_p(count) <= 1 - level
    return Comparison(
        name=row.name,
        gain=sum(differences) / max(1, len(differences)),
        interval=(interval.low, interval.high),
        p=p_values[row.name],
        p_corrected=p_corrected,
        detectable=detectable_difference(error, level=level, power=options.power, clusters=count) if known else None,
        significant=p_corrected <= 1 - options.level + 1e-12,
    )


def _paired(board: Board, base: Row, row: Row, measure: str) -> tuple[list[float], list[str]]:
    """Candidate minus base for each query, and each query's cluster."""
    before, after = base.values(measure), row.values(measure)
    return [after[query] - before[query] for query in before], [board.clusters.get(query, query) for query in before]


def shipping_cost(board: Board, base: str, row: Row) -> Cost:
    """What it takes to put a row in the base's place.

    BM25, a hybrid over the base, an adapter and a tuned query encoder over it leave the stored vectors as they are.
    """
    name, old = _parsed(row.name), _parsed(base)
    if not name.model or embeds_documents(name.model) == embeds_documents(old.model):
        return Cost(0, 0.0, 0.0)
    speed = row.costs.documents_per_second
    minutes = round(board.corpus / speed / 60, 2) if speed else None
    return Cost(board.corpus, minutes, row.costs.money if behind_api(name.model) else 0.0)


def _parsed(row: str) -> RowName:
    """A row's name taken apart; whole where an embedder of the caller's own is called like something else."""
    try:
        return parse_name(row)
    except UsageError:
        return RowName(row, row)


def embeds_documents(name: str) -> str:
    """The model that embeds a row's documents: an adapter's or a query encoder's base, a bridge's old model."""
    folder = Path(name).expanduser()
    try:
        marker = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))
        kept = marker["document_base" if marker["kind"] == "bridge" else "base"]
        if marker["kind"] in (*KEEPS_DOCUMENTS, "bridge") and kept != name:
            return embeds_documents(str(kept))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no artifact
    return str(folder.resolve()) if name and folder.is_dir() else DEFAULT_MODEL if name in DEFAULT_NAMES else name


def general_guard(general: Board, base: str, candidate: str, options: VerdictOptions = VerdictOptions()) -> General:
    """Whether the candidate holds on the general set.

    Raises:
        UsageError: a row or the measure is not on its board.
    """
    before, after = general.row(base), general.row(candidate)
    differences, clusters = _paired(general, before, after, options.measure)
    interval = bootstrap_interval(differences, clusters, level=options.level, draws=options.draws, seed=options.seed)
    gain = sum(differences) / max(1, len(differences))
    return General(
        base=mean(before.values(options.measure)),
        candidate=mean(after.values(options.measure)),
        gain=gain,
        interval=(interval.low, interval.high),
        queries=general.queries,
        allowed_loss=options.allowed_loss,
        holds=gain >= -options.allowed_loss,
    )


def _outcome(
    board: Board, chosen: Comparison, cost: Cost, general: General | None, options: VerdictOptions, cut: bool
) -> tuple[Outcome, str]:
    """The outcome and the reason for it; the first rule that applies decides."""
    asked = options.worth if cost.chunks else 0.0
    wanted = max(asked, LEAST_GAIN)
    if chosen.significant and chosen.gain < 0:
        return "do not ship", "The loss is not luck."
    if general is not None and not general.holds:
        lost = f"It loses {figure(-general.gain)} on the general set; {figure(general.allowed_loss)} is allowed"
        if general.interval[1] < 0:
            return "do not ship", f"{lost}."
        over = counted(general.queries, "query", "queries")
        return "too few queries to tell", f"{lost}, but over {over} luck alone could make such a loss."
    if chosen.significant and chosen.gain >= asked:
        return ("too few queries to tell", CUT_QUERIES) if cut else ("ship", "The gain is not luck.")
    if chosen.significant:
        return "do not ship", f"The gain is real, but below the {figure(asked)} that makes re-embedding pay."
    if chosen.interval[1] < wanted:
        documents = len(set(board.clusters.values())) if board.clustered_by == "document" else 0
        if board.queries >= ENOUGH_QUERIES and documents >= ENOUGH_CLUSTERS:
            return "do not ship", f"These queries rule out a gain of {figure(wanted)}."
        return "too few queries to tell", f"So few queries cannot rule out a gain of {figure(wanted)}."
    return "too few queries to tell", "Luck alone could make such a difference."


def _needed(
    board: Board,
    base: Row,
    row: Row,
    comparisons: tuple[Comparison, ...],
    general: General | None,
    options: VerdictOptions,
) -> int | None:
    """Queries that would show the gain seen, or the least gain worth having where that is more.

    None where it is the general set that has too few.
    """
    if general is not None and not general.holds:
        return None
    differences, clusters = _paired(board, base, row, options.measure)
    error = standard_error(differences, clusters)
    gain = max(sum(differences) / max(1, len(differences)), LEAST_GAIN)
    level = _first_level(options.level, len(comparisons))
    needed = queries_needed(gain, error, board.queries, level=level, power=options.power)
    return max(needed, board.queries + 1, ENOUGH_QUERIES) if needed else None


def _first_level(level: float, comparisons: int) -> float:
    """The level of Holm's first step, where all rows count."""
    return 1 - (1 - level) / max(1, comparisons)


def _sentence(
    outcome: Outcome,
    chosen: Comparison,
    cost: Cost,
    needed: int | None,
    options: VerdictOptions,
    cut: bool,
    general: General | None,
) -> str:
    low, high = (figure(value, sign=True) for value in chosen.interval)
    found = f"{options.measure} {figure(chosen.gain, sign=True)} ({100 * options.level:g}% interval {low} to {high})"
    if cut:
        found += " on queries cut from the documents"
        if needed == REAL_QUERIES:
            return f"Too few queries to tell: {found}; start with about {needed} of people's own."
    if outcome == "too few queries to tell":
        rest = f"; about {needed:,} queries would." if needed else "."
        if general is not None and not general.holds:
            over = counted(general.queries, "query", "queries")
            rest = f", but the general set's {over} leave open what it loses there."
        return f"Too few queries to tell: {found}{rest}"
    if outcome == "do not ship":
        return f"Do not ship: {found}."
    return f"Ship: {found}, and {_cost_text(cost)}."


def _cost_text(cost: Cost) -> str:
    if not cost.chunks:
        return "no document needs embedding again"
    takes = "" if cost.minutes is None else f" in about {max(cost.minutes, 0.1):,.1f} minutes"
    return f"{cost.chunks:,} chunks need embedding again{takes}" + (f" for ${cost.money:,.2f}" if cost.money else "")


def _further(
    board: Board, chosen: Comparison, row: Row, best: Row, cost: Cost, general: General | None,
    regressions: Regressions, options: VerdictOptions,
) -> list[str]:  # fmt: skip
    """What else a person deciding should know, most important first."""
    queries, clusters = board.queries, len(set(board.clusters.values()))
    tested = f"p = {chosen.p_corrected:.2g} after correction, over {counted(queries, 'query', 'queries')} in "
    tested += counted(clusters, board.clustered_by, f"{board.clustered_by}s")
    if chosen.detectable is not None:
        tested += f"; they show a true difference of {figure(chosen.detectable)} in {100 * options.power:g}% of cases"
    found = [f"{tested}."]
    if best.name != row.name:
        value, own = mean(best.values(options.measure)), mean(row.values(options.measure))
        if figure(value) != figure(own):
            found.append(f"{best.name} scored higher here: {options.measure} {figure(value)} against {figure(own)}.")
    better = counted(regressions.better, "query", "queries")
    found.append(f"{better} got better, {regressions.worse:,} worse, {regressions.same:,} stayed.")
    hurt = [group for group in regressions.groups if group.hurt]
    found += [
        f"Worse, and not by luck, where {group.by} is '{group.name}' ({group.queries} queries)." for group in hurt
    ]
    if general is not None and general.holds:
        found.append(f"General set: {figure(general.gain, sign=True)} over {general.queries:,} queries.")
    if board.generated:
        found.append("The queries are generated: real ones may differ.")
    return found
