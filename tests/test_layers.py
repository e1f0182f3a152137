"""The layout of the house: imports go downwards only, there is no cycle, and the doors open fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "vectune"

# Level by first part of the module's name; a module that is missing here fails the test.
LEVELS = {
    0: {"errors", "records", "protocols", "progress", "locks", "runs"},
    1: {
        "dataset", "documents", "extraction", "headings", "pages", "workers", "tokens", "chunking", "bands",
        "duplicates", "queries", "tables", "formats", "splits", "negatives", "embedders", "adapters", "blend", "tail",
        "lexical", "metrics", "statistics", "testing", "corpus", "lines", "ids", "stored", "judgments", "bulk", "words",
        "carded", "characters", "charsets",
    },
    2: {
        "training", "bridge", "products", "ranks", "retrieval", "encoding", "rankers", "hybrid", "board", "evaluation",
        "gates", "regressions", "verdict", "comparison", "retriever", "report", "modelcard", "curve", "general",
    },
    3: {"config", "preparation", "pipeline"},
    4: {"cli", "integrations", "__main__"},
}  # fmt: skip
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
        if path != ROOT / "__init__.py"
    }


def own_imports(path: Path, at_top: bool) -> set[str]:
    """Modules of vectune that a file imports: at its top level only, or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if not is_type_checking(node)] if at_top else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vectune":
            base = (node.module or "").removeprefix("vectune").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in modules() else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("vectune.") for alias in node.names if alias.name.startswith("vectune.")}
    return found - {""}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("name", modules())
def test_imports_go_downwards_only(name: str) -> None:
    assert name.split(".")[0] in LEVEL_OF, f"{name} has no level: add it to LEVELS"
    for imported in own_imports(modules()[name], at_top=False):
        assert LEVEL_OF[imported.split(".")[0]] <= LEVEL_OF[name.split(".")[0]], f"{name} imports {imported} above it"


def test_there_is_no_import_cycle() -> None:
    graph = {name: own_imports(path, at_top=True) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "cycle: " + " → ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for imported in graph.get(name, ()):
            visit(imported, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", modules())
def test_files_and_functions_stay_small(name: str) -> None:
    source = modules()[name].read_text(encoding="utf-8")
    assert source.count("\n") <= 600, f"{name} is longer than 600 lines: split it"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 60, f"{name}.{node.name} has {lines} lines: split it"


@pytest.mark.parametrize("command", ["import vectune", "import vectune.cli.app", "import vectune.pipeline"])
def test_doors_load_nothing_heavy(command: str) -> None:
    heavy = ["torch", "transformers", "sentence_transformers", "openai", "kreuzberg", "scipy", "pandas", "ir_measures"]
    check = f"{command}; import sys; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
