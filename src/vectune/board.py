"""The board: models × measures on one split, with per-query values, rankings and what each row costs.

``board.json`` (and ``vectune evaluate --json``) is::

    {"dataset": "emanual", "split": "test", "corpus": 699, "queries": 247,
     "rows": [{"name": "bm25",
               "measures": {"nDCG@10": 0.62, "RR@10": 0.57, "hit@1": 0.5, ...},
               "per_query": {QUERY_ID: {"nDCG@10": 1.0, "RR@10": 1.0, ...}, ...},
               "kind": "bm25" | "dense" | "hybrid",
               "rankings": {QUERY_ID: [[CHUNK_ID, score], ...], ...},   the first 10, best first
               "ranks": {QUERY_ID: 1-based rank of the first right chunk, 0 when it is not among `depth`},
               "unanswered": 3,                                  queries for which nothing was found; they score 0
               "costs": {"dim": 384, "index_bytes": 1073664, "documents_per_second": 140.2 | null,
                         "query_ms": {"median": 9.1, "p95": 12.0} | null, "api_tokens": 0, "money": null,
                         "truncated": 12 | null},
               "details": {...}}],                               hybrid: weight, curve and where it was chosen
     "title": "emanual, test split, generated queries", "generated": true, "depth": 100,
     "measures": ["nDCG@10", ...], "notes": ["..."],
     "clusters": {QUERY_ID: DOCUMENT_ID, ...}, "clustered_by": "document" | "chunk"}

The order of queries is the same everywhere. Equal scores are ordered by chunk id, descending, in every row.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vectune.errors import InputError, UsageError
from vectune.metrics import mean
from vectune.runs import Json, write_json


@dataclass(frozen=True)
class Costs:
    """What a row takes beside its quality; None where it is not known.

    Attributes:
        dim: dimensions of a stored vector.
        index_bytes: size of this corpus's index in memory: vectors as stored, or BM25's lists, or both.
        documents_per_second: chunks embedded a second on this machine, uncached.
        query_ms: ``median`` and ``p95`` of one query at a time, embedding and exact search, in milliseconds.
        api_tokens: tokens of the corpus as an API would bill them, estimated; 0 for a local model.
        money: their price in US dollars.
        truncated: chunks longer than what the model reads.
    """

    dim: int | None = None
    index_bytes: int | None = None
    documents_per_second: float | None = None
    query_ms: dict[str, float] | None = None
    api_tokens: int | None = None
    money: float | None = None
    truncated: int | None = None


@dataclass(frozen=True)
class Row:
    """One model on the board; see the module's docstring for the meaning of each field."""

    name: str
    kind: str
    per_query: dict[str, dict[str, float]]
    rankings: dict[str, list[tuple[str, float]]] = field(default_factory=dict, repr=False)
    ranks: dict[str, int] = field(default_factory=dict, repr=False)
    unanswered: int = 0
    costs: Costs = field(default_factory=Costs)
    details: Json = field(default_factory=dict)

    @property
    def measures(self) -> dict[str, float]:
        """Measure → mean over all queries of the split."""
        names = next(iter(self.per_query.values()), {})
        return {name: mean(self.values(name)) for name in names}

    def values(self, measure: str) -> dict[str, float]:
        """Query id → value of one measure.

        Raises:
            UsageError: the board was made without this measure.
        """
        try:
            return {query: values[measure] for query, values in self.per_query.items()}
        except KeyError:
            have = ", ".join(next(iter(self.per_query.values()), {}))
            raise UsageError(f"the board has no measure '{measure}' (it has: {have}).") from None


@dataclass(frozen=True)
class Board:
    """All rows of one evaluation.

    Attributes:
        dataset: the dataset's name.
        corpus, queries: counts.
        generated: the queries were written by a machine; the title says so.
        asked: a hash of the split's queries and judgments and of the corpus: what is equal can be compared.
        depth: how many chunks of each ranking were scored.
        clusters: query id → the document of its right chunk; queries of one document are resampled together.
        clustered_by: ``document``, or ``chunk`` where there are too few documents to resample.
        notes: what a reader must know, one sentence each.
    """

    dataset: str
    split: str
    corpus: int
    queries: int
    rows: tuple[Row, ...]
    measures: tuple[str, ...]
    generated: bool = False
    asked: str = ""
    depth: int = 0
    clusters: dict[str, str] = field(default_factory=dict, repr=False)
    clustered_by: str = "document"
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Says what was scored, and ``generated queries`` where a machine wrote them."""
        return f"{self.dataset}, {self.split} split, " + ("generated queries" if self.generated else "given queries")

    def row(self, name: str) -> Row:
        """The row of this name.

        Raises:
            UsageError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise UsageError(f"the board has no row '{name}' (it has: {', '.join(row.name for row in self.rows)}).")

    def to_json(self) -> Json:
        """The board as plain values; the format is in the module's docstring."""
        head = {"dataset": self.dataset, "split": self.split, "corpus": self.corpus, "queries": self.queries}
        rows = [_row_json(row) for row in self.rows]
        rest = {"title": self.title, "generated": self.generated, "depth": self.depth, "measures": list(self.measures)}
        return {
            **head,
            "rows": rows,
            **rest,
            "asked": self.asked,
            "clusters": self.clusters,
            "clustered_by": self.clustered_by,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Json) -> Board:
        """What ``to_json`` gave.

        Raises:
            ValueError: it lacks rows, or rows lack queries that others have; other errors tell of other damage.
        """
        board = cls(
            rows=tuple(_row_from(row) for row in value["rows"]),
            measures=tuple(value["measures"]),
            notes=tuple(value["notes"]),
            **{name: value[name] for name in _PLAIN},
            asked=value.get("asked", ""),  # boards of earlier versions have none
        )
        _check(board)
        return board

    def write(self, path: Path) -> None:
        """Write ``board.json``, whole or not at all; compact: indented, the rankings are thrice as long."""
        write_json(path, self.to_json(), indent=None)

    @classmethod
    def read(cls, path: str | Path) -> Board:
        """Read what ``write`` wrote.

        Raises:
            InputError: the file is missing or is not a board.
        """
        file = Path(path)
        try:
            return cls.from_json(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(
                f"{file}: no board can be read ({error.strerror}).", "vectune evaluate makes one."
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"is not a board ({type(error).__name__}: {error}).", path=file) from None

    def to_csv(self) -> str:
        """One line for each row: measures at full precision, then costs."""
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["model", *self.measures, *COST_COLUMNS])
        for row in self.rows:
            table.writerow([row.name, *row.measures.values(), *cost_cells(row, COST_COLUMNS)])
        return out.getvalue()

    def to_markdown(self) -> str:
        """A table for a pull request; the best value of each measure is bold."""
        lines = [f"**{_escaped(self.title)}**: {self.queries:,} queries, {self.corpus:,} chunks", ""]
        lines += table_markdown(["model", *self.measures, *self.shown_costs], self.cells(bold="**{}**"))
        return "\n".join([*lines, *(f"\n> {_escaped(remark)}" for remark in self.remarks)]) + "\n"

    @property
    def shown_costs(self) -> tuple[str, ...]:
        """Titles of the costs that ``cells`` shows: tokens and money only where an API is among the rows."""
        return SHOWN_COSTS + (API_COSTS if any(row.costs.api_tokens for row in self.rows) else ())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the table has to know: cut chunks, unanswered queries, and the notes."""
        cut: dict[int, list[str]] = {}
        for row in self.rows:
            if row.costs.truncated:
                cut.setdefault(row.costs.truncated, []).append(row.name)
        found = [f"{count:,} of {self.corpus:,} chunks are longer than the model reads, and cut: {', '.join(names)}."
                 for count, names in cut.items()]  # fmt: skip
        found += [f"{row.name}: {row.unanswered:,} of {self.queries:,} queries found nothing and score 0."
                  for row in self.rows if row.unanswered]  # fmt: skip
        return (*found, *self.notes)

    def cells(self, bold: str = "{}") -> list[list[str]]:
        """The board as text: name, measures with three digits (the best in ``bold``), costs as people read them."""
        means = [row.measures for row in self.rows]
        best = {name: max(round(values[name], 3) for values in means) for name in self.measures}
        return [
            [row.name]
            + [(bold if round(values[m], 3) == best[m] else "{}").format(figure(values[m])) for m in self.measures]
            + readable_costs(row)[: len(self.shown_costs)]
            for row, values in zip(self.rows, means, strict=True)
        ]


_PLAIN = ("dataset", "split", "corpus", "queries", "generated", "depth", "clusters", "clustered_by")
COST_COLUMNS = ("dim", "index_bytes", "documents_per_second", "query_ms_median", "query_ms_p95", "api_tokens",
                "money", "truncated")  # fmt: skip
SHOWN_COSTS = ("dim", "index", "query ms (p95)", "docs/s")
API_COSTS = ("API tokens", "US$")


def figure(value: float, sign: bool = False) -> str:
    """A measure or a difference of measures with three digits: ``.624``, ``+.031``, ``-.002``, ``1.000``."""
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def counted(number: int, one: str, many: str) -> str:
    """A number of things: ``1 query``, ``1,024 queries``."""
    return f"{number:,} {one if number == 1 else many}"


def cost_cells(row: Row, columns: Sequence[str]) -> list[Any]:
    """A row's costs as numbers; empty where unknown."""
    costs = asdict(row.costs)
    timing = costs.pop("query_ms") or {}
    costs |= {"query_ms_median": timing.get("median"), "query_ms_p95": timing.get("p95")}
    return ["" if costs[column] is None else costs[column] for column in columns]


def readable_costs(row: Row) -> list[str]:
    """What ``SHOWN_COSTS`` and ``API_COSTS`` name, for people."""
    costs, timing = row.costs, row.costs.query_ms
    return [
        "" if costs.dim is None else str(costs.dim),
        "" if costs.index_bytes is None else size_text(costs.index_bytes),
        "" if timing is None else f"{milliseconds(timing['median'])} ({milliseconds(timing['p95'])})",
        "" if costs.documents_per_second is None else f"{costs.documents_per_second:,.0f}",
        f"{costs.api_tokens:,}" if costs.api_tokens else "",
        "" if not costs.api_tokens else "unknown" if costs.money is None else f"{costs.money:.4g}",
    ]


def milliseconds(value: float) -> str:
    """For people: ``9.1``, ``0.04``."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def size_text(size: float) -> str:
    """Bytes for people: ``1.1 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def table_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return lines + ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]


def renamed(row: str, model: str, name: str) -> str:
    """A row's name with the model in it called otherwise: alone, in a hybrid or with its vectors cut."""
    return re.sub(rf"(?<![^:]){re.escape(model)}(?=@|$)", lambda _: name, row)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _row_json(row: Row) -> Json:
    return {
        "name": row.name,
        "measures": row.measures,
        "per_query": row.per_query,
        "kind": row.kind,
        "rankings": {query: [list(hit) for hit in hits] for query, hits in row.rankings.items()},
        "ranks": row.ranks,
        "unanswered": row.unanswered,
        "costs": asdict(row.costs),
        "details": row.details,
    }


def _check(board: Board) -> None:
    if not board.rows or not isinstance(board.clusters, dict):
        raise ValueError("no rows" if not board.rows else "no clusters")
    for row in board.rows:
        if row.per_query.keys() != board.rows[0].per_query.keys():
            raise ValueError(f"row '{row.name}' has other queries than the first")
        for query, values in row.per_query.items():
            if not all(isinstance(values[measure], (int, float)) for measure in board.measures):
                raise ValueError(f"row '{row.name}' has a measure of the query '{query}' that is no number")


def _row_from(value: Json) -> Row:
    known = {name: value[name] for name in ("name", "kind", "per_query", "ranks", "unanswered", "details")}
    rankings = {query: [(chunk, score) for chunk, score in hits] for query, hits in value["rankings"].items()}
    return Row(rankings=rankings, costs=Costs(**value["costs"]), **known)
