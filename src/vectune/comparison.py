"""Several boards side by side: what ``vectune compare`` shows, as data, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vectune.board import Board, Row, figure, table_markdown
from vectune.errors import UsageError
from vectune.metrics import mean
from vectune.runs import Json
from vectune.verdict import Comparison, VerdictOptions, compare_rows


@dataclass(frozen=True)
class ComparedRow:
    """One row of one board.

    Attributes:
        run: the run's or the file's name.
        row: the row's name on its board.
        measures: measure → mean, of the measures that all boards have.
        comparison: against the reference, where the same queries were asked over it; else None.
    """

    run: str
    row: str
    measures: dict[str, float]
    comparison: Comparison | None


@dataclass(frozen=True)
class Compared:
    """Boards side by side.

    Attributes:
        measure: what differences and p-values are of.
        measures: what all boards have.
        reference: run and row that the others are compared with.
        rows: all rows of all boards, in their order.
        notes: what a reader must know.
        level: of the intervals.
    """

    measure: str
    measures: tuple[str, ...]
    reference: tuple[str, str]
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]
    level: float = 0.95

    def to_json(self) -> Json:
        """Plain values: ``rows`` hold run, row, measures and the comparison or null."""
        return asdict(self)

    def cells(self) -> list[list[str]]:
        """Run, row, each measure, the difference to the reference with its interval, and p."""
        return [[each.run, each.row, *(figure(each.measures[m]) for m in self.measures), *_difference(each.comparison)]
                for each in self.rows]  # fmt: skip

    @property
    def head(self) -> list[str]:
        """What ``cells`` are."""
        return ["run", "model", *self.measures, f"Δ {self.measure} ({100 * self.level:g} %)", "p"]

    def to_markdown(self) -> str:
        """A table for a pull request."""
        lines = table_markdown(self.head, self.cells())
        against = f"Δ and p (corrected, Holm) against {self.reference[1]} of {self.reference[0]}."
        return "\n".join([*lines, "", *(f"> {note}\n" for note in (against, *self.notes))])


def compare_boards(
    boards: dict[str, Board], base: str | None = None, options: VerdictOptions = VerdictOptions()
) -> Compared:
    """Put boards side by side and test every row against one reference.

    Args:
        boards: name → board.
        base: the row of the first board that the others are compared with; None takes its first embedder.
        options: measure and statistics.

    Raises:
        UsageError: no board, no such row, or not the measure, or none, that all boards have.
    """
    if not boards:
        raise UsageError("there is no board to compare.", "Give two run folders.")
    first, board = next(iter(boards.items()))
    measures = tuple(name for name in board.measures if all(name in each.measures for each in boards.values()))
    if not measures:
        raise UsageError("the boards have no measure in common.")
    if options.measure not in (*measures, VerdictOptions.measure):
        raise UsageError(f"not all boards have '{options.measure}' (they share: {', '.join(measures)}).")
    measure = options.measure if options.measure in measures else measures[0]
    reference = board.row(base) if base else next((row for row in board.rows if row.kind == "dense"), board.rows[0])
    tested = _tested(boards, first, reference, replace(options, measure=measure))
    rows = tuple(
        ComparedRow(name, row.name, {m: mean(row.values(m)) for m in measures}, tested.get((name, row.name)))
        for name, each in boards.items()
        for row in each.rows
    )
    return Compared(measure, measures, (first, reference.name), rows, tuple(_notes(boards, first)), options.level)


def read_boards(paths: Sequence[str | Path]) -> dict[str, Board]:
    """Boards of run folders or JSON files, by the shortest names that tell them apart.

    Raises:
        InputError: a board is missing or broken.
        UsageError: one is named twice.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError("a run is named twice: there is nothing to compare it with.")
    files = [Path(path) / "board.json" if Path(path).is_dir() else Path(path) for path in paths]
    short = [Path(path).resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in names]  # bytes that are not UTF-8
    return {name: Board.read(file) for name, file in zip(shown, files, strict=True)}


def _tested(
    boards: dict[str, Board], first: str, reference: Row, options: VerdictOptions
) -> dict[tuple[str, str], Comparison]:
    """(run, row) → its comparison, for the boards with the reference's queries; corrected over all of them."""
    own = boards[first]
    keys = [
        (name, row.name)
        for name, board in boards.items()
        if _same_queries(board, own)
        for row in board.rows
        if (name, row.name) != (first, reference.name)
    ]
    rows = [replace(boards[name].row(row), name=f"{place}") for place, (name, row) in enumerate(keys)]
    joined = replace(own, rows=(replace(reference, name="reference"), *rows))
    found = compare_rows(joined, "reference", options)
    return {key: replace(each, name=key[1]) for key, each in zip(keys, found, strict=True)}


def _same_queries(one: Board, other: Board) -> bool:
    """The same queries with the same answers among the same chunks: then differences can be paired."""
    return (one.split, one.clusters, one.asked) == (other.split, other.clusters, other.asked)


def _notes(boards: dict[str, Board], first: str) -> list[str]:
    found = [
        f"{name} asks other queries than {first}, or among other chunks: its figures do not compare with the others."
        for name, board in boards.items()
        if not _same_queries(board, boards[first])
    ]
    sizes = {board.corpus for board in boards.values()}
    if len(sizes) > 1:
        found.append(f"The corpora differ in size ({', '.join(f'{size:,}' for size in sorted(sizes))} chunks).")
    return found + [f"{name}: generated queries." for name, board in boards.items() if board.generated]


def _difference(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", ""]
    low, high = (figure(value, sign=True) for value in comparison.interval)
    return [f"{figure(comparison.gain, sign=True)} ({low} to {high})", f"{comparison.p_corrected:.2g}"]
