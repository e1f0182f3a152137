"""Write the sample corpus: one Markdown file for each public module of Python's standard library, from its docstrings.

python demo/stdlib_docs.py OUTPUT_FOLDER
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# Importing these opens a browser or a window, prints, or starts something.
NOT_IMPORTED = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3", "test"}


def public_modules() -> Iterator[tuple[str, ModuleType]]:
    """Every importable public module of the standard library that has a docstring."""
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in NOT_IMPORTED:
            continue
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                module = importlib.import_module(name)
        except ImportError:  # not on this platform
            continue
        if inspect.getdoc(module):
            yield name, module


def public_members(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The functions and classes that the module offers, in the order of their names."""
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    for name in sorted(set(names)):
        member = getattr(module, name, None)
        if (inspect.isclass(member) or inspect.isroutine(member)) and inspect.getdoc(member):
            yield name, member


def signature(member: object) -> str:
    """The call signature, or empty parentheses where Python does not know it."""
    try:
        return str(inspect.signature(member))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"


def markdown(name: str, module: ModuleType) -> str:
    """The module's page: its docstring, then a section for each member and each method of a class."""
    parts = [f"# {name}", inspect.getdoc(module) or ""]
    for member_name, member in public_members(module):
        parts += [f"## {name}.{member_name}", f"`{member_name}{signature(member)}`", inspect.getdoc(member) or ""]
        if not inspect.isclass(member):
            continue
        for method_name, method in inspect.getmembers(member, inspect.isroutine):
            if not method_name.startswith("_") and method_name in vars(member) and inspect.getdoc(method):
                parts += [f"### {member_name}.{method_name}", inspect.getdoc(method) or ""]
    return re.sub(r" at 0x[0-9a-f]+", "", "\n\n".join(parts)) + "\n"  # addresses differ from run to run


def main(output: Path) -> int:
    """Write all pages and return how many there are."""
    output.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, module in public_modules():
        page, text = output / f"{name}.md", markdown(name, module)
        if not page.exists() or page.read_text(encoding="utf-8") != text:  # a file left alone keeps the run finished
            page.write_text(text, encoding="utf-8")
        count += 1
    return count


if __name__ == "__main__":
    print(f"{main(Path(sys.argv[1]))} documents in {sys.argv[1]}")
