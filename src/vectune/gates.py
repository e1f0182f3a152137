"""Gates: conditions on a board that a pipeline may depend on, such as ``nDCG@10:+0.02``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vectune.board import Board, figure
from vectune.errors import GateError, UsageError
from vectune.metrics import mean, measure_name

_GATE = re.compile(r"^(?P<measure>[^:]+):(?P<bound>[+-]?(?:\d+\.?\d*|\.\d+))$")

_ROUNDING = 1e-12  # .62 - .6 is a little less than .02 in floating point, and the mean of ten .1 than .1


@dataclass(frozen=True)
class Gate:
    """A condition on one measure of the candidate.

    Attributes:
        text: as it was given.
        measure: the measure's name.
        bound: the least value, or the least difference to the base.
        relative: ``bound`` is a difference: it was given with a sign.
    """

    text: str
    measure: str
    bound: float
    relative: bool


def parse_gate(text: str) -> Gate:
    """``nDCG@10:+0.02``: .02 or more above the base; ``nDCG@10:-0.01``: .01 below at most; ``nDCG@10:0.6``: .6 or more.

    Raises:
        UsageError: anything else.
    """
    found = _GATE.match(text.strip())
    if found is None:
        raise UsageError(
            f"'{text}' is not a gate.", "Write MEASURE:+GAIN, for example nDCG@10:+0.02, or MEASURE:VALUE."
        )
    return Gate(text, measure_name(found["measure"]), float(found["bound"]), found["bound"][0] in "+-")


def check_gates(board: Board, base: str, candidate: str, gates: Sequence[Gate]) -> list[str]:
    """One line for each gate, when all of them hold.

    Raises:
        GateError: one or more do not hold; the message tells of each.
        UsageError: a row or a measure is not on the board.
    """
    lines = [_checked(board, base, candidate, gate) for gate in gates]
    failed = [line for holds, line in lines if not holds]
    if failed:
        raise GateError("; ".join(failed) + ".", "")
    return [line for _, line in lines]


def _checked(board: Board, base: str, candidate: str, gate: Gate) -> tuple[bool, str]:
    value, asked = mean(board.row(candidate).values(gate.measure)), gate.text.rpartition(":")[2].strip()
    if not gate.relative:
        holds = value >= gate.bound - _ROUNDING
        found = f"{gate.measure} of {candidate} is {_beside(value, gate.bound)}, asked {asked}"
    else:
        difference = value - mean(board.row(base).values(gate.measure))
        holds = difference >= gate.bound - _ROUNDING
        found = (
            f"{gate.measure} of {candidate} is {_beside(difference, gate.bound, sign=True)} against {base}, "
            f"asked {asked}"
        )
    return holds, f"gate {gate.text} {'holds' if holds else 'does not hold'}: {found}"


def _beside(value: float, bound: float, sign: bool = False) -> str:
    """The value as it is shown beside a bound: with more digits where three would make it look the same."""
    shown = figure(value, sign)
    return shown if shown != figure(bound, sign) else f"{value:{'+' if sign else ''}.6f}".rstrip("0")
