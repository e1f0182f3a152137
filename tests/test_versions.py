"""The lowest versions that are promised are those that ``make test-oldest`` installs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


def test_the_oldest_constraints_are_the_floors() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = (re.match(r"([\w-]+)>=([\d.]+)(?:,<\d+)?$", line) for line in project["dependencies"])
    floors = {found[1]: found[2] for found in promised if found}
    assert len(floors) == len(project["dependencies"]) - 1  # but for tomli, which newer Pythons do not need
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()[1:]
    installed = dict(line.split("==") for line in lines)
    assert {name: _numbers(version) for name, version in floors.items()} == {
        name: _numbers(version) for name, version in installed.items()
    }


def _numbers(version: str) -> list[int]:
    """``1.4`` is the same as ``1.4.0``."""
    numbers = [int(part) for part in version.split(".")]
    return numbers + [0] * (4 - len(numbers))
