"""What a measured job was measured with: date, commit, the tool's code, versions, machine, and who else was on it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from vectune.runs import processor_name

HERE = Path(__file__).parent
SOURCES = HERE.parent / "src" / "vectune"
REQUIREMENTS = HERE / "peers" / "requirements.txt"
PACKAGES = ("vectune", "torch", "sentence-transformers", "transformers", "numpy")
# What a figure hangs on, of all that a training imports: reading files and talking to servers is left out.
WEIGHTY = (
    "training", "negatives", "splits", "adapters", "blend", "words", "tail", "lexical", "metrics", "evaluation",
    "rankers", "retrieval", "hybrid", "encoding", "embedders.local", "embedders.fast", "embedders.encoding",
    "embedders.tokenizing",
)  # fmt: skip


def measured_with(files: Iterable[Path], interpreter: Path) -> dict[str, Any]:
    """What stands beside a job's figures; ``interpreter`` ran the training."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "code": digest(files),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": installed(interpreter, PACKAGES if interpreter == Path(sys.executable) else pinned()),
    }


def pinned() -> tuple[str, ...]:
    """The packages of the peers' environment."""
    return tuple(line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line)


def installed(interpreter: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of packages in some environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([str(interpreter), "-c", code, *packages], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def commit() -> str:
    """The commit that the sources stand at, with a plus where they differ from it; empty outside git."""
    try:
        at = _git("rev-parse", "--short=7", "HEAD")
        return at + ("+" if _git("status", "--porcelain", "--", "src", "benchmarks/*.py", "benchmarks/peers") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=HERE.parent)
    return done.stdout.strip()


def digest(files: Iterable[Path]) -> str:
    """Eight digits of what the files do: comments, docstrings and layout do not count."""
    found = hashlib.sha256()
    for file in files:
        text = file.read_text(encoding="utf-8")
        found.update(f"{file.name}\n{meaning(text) if file.suffix == '.py' else text}\n".encode())
    return found.hexdigest()[:8]


@cache
def meaning(source: str) -> str:
    """Python without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def sources(root: str) -> list[Path]:
    """The files of vectune that ``root`` (a dotted module in it) is made of, of those that a figure hangs on."""
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        file = SOURCES.joinpath(*name.split(".")).with_suffix(".py")
        if file in seen or not file.exists() or not any(f"{name}.".startswith(f"{part}.") for part in WEIGHTY):
            continue
        seen.add(file)
        waiting += _imports(file)
    return sorted(seen)


@cache
def _imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vectune"):
            module = (node.module or "").removeprefix("vectune").lstrip(".")
            found += [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
    return found


class Company:
    """Who else was on the machine while something ran."""

    def __init__(self) -> None:
        self.load = _load()
        self.used = _used()

    def kept(self, wall: float, cpu: float) -> dict[str, Any]:
        """Threads, one-minute load averages before and after, and the share of the machine that others took.

        Args:
            wall: seconds that it ran.
            cpu: CPU seconds that it used itself.
        """
        found: dict[str, Any] = {"threads": threads(), "load": [self.load, _load()]}
        if self.used is not None and (after := _used()) is not None:
            others = after - self.used - cpu
            found["others"] = round(max(0.0, others) / (wall * (os.cpu_count() or 1)), 2)
        return found


def threads() -> int | None:
    """Threads that a training may take: OMP_NUM_THREADS, which all the tools heed, or one for each core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else os.cpu_count()


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _used() -> float | None:
    """CPU seconds that the machine has used since it started, where the system tells: not idle, not waiting."""
    try:
        numbers = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = numbers
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
