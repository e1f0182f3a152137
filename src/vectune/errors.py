"""Every error vectune raises on purpose, in one tree.

::

    VectuneError                 exit code 1: the work failed
    ├── EndpointError            an LLM or embedding server refused, failed or answered nonsense
    ├── TrainingError            the loss diverged, memory ran out
    ├── StorageError             the disk is full or cannot be written
    ├── GateError                an evaluation gate does not hold
    └── UsageError               exit code 2: wrong usage or input
        ├── InputError           a file or line that cannot be read as what it should be
        │   ├── DocumentError    one document; skipped and listed unless strict
        │   ├── DatasetError     a dataset folder, one of its lines, or its contents
        │   └── ContaminationError  train, dev and test share what they must not share
        ├── ModelError           a model name, folder or weights file
        │   └── FingerprintError an artifact meets another base than it was made for
        ├── OutputError          the output path holds something else
        └── MissingExtraError    an optional package is not installed

The command line catches ``VectuneError`` once, prints the message and the hint, and exits with the class's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, ulp
from pathlib import Path


class VectuneError(Exception):
    """The root. ``hint`` says what to do about it; a class may carry a default one."""

    exit_code = 1
    hint = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class EndpointError(VectuneError):
    """An LLM or embedding server refused, failed or answered nonsense."""

    hint = "What was answered so far is kept; run the same command again to go on."


class TrainingError(VectuneError):
    """Training cannot go on; the best state so far is kept where there is one."""


class StorageError(VectuneError):
    """The disk is full or refuses a write."""

    hint = "Free some space or choose another --out, then run the same command again: finished work is kept."


class GateError(VectuneError):
    """An evaluation gate does not hold."""


class UsageError(VectuneError):
    """Wrong usage or input."""

    exit_code = 2


class InputError(UsageError):
    """A file, or one line of it, that cannot be read as what it should be."""

    def __init__(
        self, message: str, hint: str | None = None, *, path: str | Path | None = None, line: int | None = None
    ) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(place + message, hint)
        self.path = path
        self.line = line


class DocumentError(InputError):
    """One document that cannot be read."""


class DatasetError(InputError):
    """A dataset folder, one of its lines, or what it holds."""


class ContaminationError(InputError):
    """Train, dev and test share documents, near-duplicate chunks or queries."""

    hint = (
        "Cut its judgments by document (in Python: vectune.splits.split_by_document) and leave out of train what is "
        "asked in dev or test as well, or pass --allow-contamination to go on with a warning that the report repeats."
    )


class ModelError(UsageError):
    """A model name, a model folder or its weights."""


class FingerprintError(ModelError):
    """An artifact meets another base model than the one it was made for."""


class OutputError(UsageError):
    """The output path holds something that vectune did not write, or cannot be created."""

    hint = "Choose another place, or remove what is there yourself."


class MissingExtraError(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.", f"pip install 'vectune[{extra}]'"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean OTHER?`` behind a name that is nearly a known one; empty where none is near."""
    from difflib import get_close_matches  # not at every start

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_bounds(
    table: str, options: object, bounds: Mapping[str, tuple[float, float]], above_nothing: Iterable[str] = ()
) -> None:
    """Refuse numbers that make no sense where options are made, before anything is read or paid; None is no number.

    Args:
        table: the options' name in a configuration; empty for those on top.
        options: whose attributes are checked.
        bounds: attribute → least and largest value.
        above_nothing: attributes that are more than 0.

    Raises:
        UsageError: a number out of bounds, with what is allowed.
    """
    for name, (least, most) in bounds.items():
        allowed = f"at least {least:,.12g}" if most == inf else f"from {least:,.12g} to {most:,.12g}"
        _check(f"{table}.{name}", getattr(options, name), least, most, allowed)
    for name in above_nothing:
        _check(f"{table}.{name}", getattr(options, name), ulp(0.0), inf, "more than 0")


def _check(name: str, value: float | None, least: float, most: float, allowed: str) -> None:
    if value is None or (least <= value <= most and value < inf):
        return
    allowed += ", and not without end" if value == most == inf else ""
    raise UsageError(f"{name}: {value:,.12g}: expected {allowed}.".removeprefix("."))
