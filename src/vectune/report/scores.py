"""The board as the report needs it: which two rows are compared, on which measure, and how each query fared in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vectune.board import Board, Row, renamed
from vectune.dataset import Qrels
from vectune.report.material import Material

HEADLINES = ("nDCG@10", "RR@10", "AP", "hit@10", "R@10")


@dataclass(frozen=True)
class Scores:
    """What the charts of single queries are drawn from.

    Attributes:
        board: all rows.
        headline: the measure that the report is about.
        base, tuned: the two rows that are compared; None where the board has no such row.
        qrels: query id → chunk id → grade of the board's split; empty without a dataset.
    """

    board: Board
    headline: str
    base: Row | None
    tuned: Row | None
    qrels: Qrels

    def role(self, row: Row) -> str:
        """``base``, ``tuned`` or empty."""
        if self.base is not None and row.name == self.base.name:
            return "base"
        return "tuned" if self.tuned is not None and row.name == self.tuned.name else ""

    @property
    def artifact(self) -> str | None:
        """The name of the row that is the run's own artifact: a folder called ``model``."""
        dense = (row.name for row in self.board.rows if row.kind == "dense" and row is not self.base)
        return next((name for name in dense if Path(name).name == "model"), None)

    def display_name(self, row: Row) -> str:
        """A row as the page calls it: the run's own artifacts without their path, also within a hybrid's name."""
        if self.artifact is None:
            return row.name
        if row.name == str(Path(self.artifact).with_name("blend")):
            return "blend of base and BM25"
        return renamed(row.name, self.artifact, "tuned model")

    @property
    def candidate(self) -> str:
        """What the page calls the row that is compared with the base."""
        if self.tuned is None or self.tuned.name == self.artifact:
            return "tuned"
        return self.tuned.kind if self.tuned.kind != "dense" else "candidate"

    @property
    def measures(self) -> list[str]:
        """The board's measures, the headline first."""
        return sorted(self.board.measures, key=lambda name: name != self.headline)


def read_scores(material: Material) -> Scores | None:
    """The board with the two rows that are compared; None without a board."""
    board = material.board
    if board is None or not board.rows:
        return None
    base, tuned = _compared(material, board)
    qrels = {} if material.dataset is None else material.dataset.qrels.get(board.split, {})
    return Scores(board, _headline(material, board), base, tuned, qrels)


def _headline(material: Material, board: Board) -> str:
    """The measure that the verdict is about, else the first usual one that the board has."""
    wanted = ((material.verdict or {}).get("measure"), *HEADLINES, *board.measures)
    return next(str(name) for name in wanted if name in board.measures)


def _compared(material: Material, board: Board) -> tuple[Row | None, Row | None]:
    """The base and the tuned row.

    The verdict knows them; without one, the artifact names its base, and the tuned row is the run's artifact folder.
    """
    verdict, artifact = material.verdict or {}, material.artifact or {}
    config = material.run.get("config") or {}
    base = _first(board, [verdict.get("base"), artifact.get("base"), config.get("model")], None)
    folders = [row.name for row in board.rows if row.kind == "dense" and Path(row.name).name == "model"]
    tuned = _first(board, [verdict.get("candidate"), str(material.folder / "model"), *folders], base)
    return base, tuned


def _first(board: Board, names: Sequence[object], other_than: Row | None) -> Row | None:
    rows = {row.name: row for row in board.rows if row is not other_than}
    return next((rows[name] for name in names if isinstance(name, str) and name in rows), None)
