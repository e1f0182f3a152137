"""Prompts: Markdown files with ``{placeholders}``, shipped as data, that a user can print, copy and change.

A prompt file is the message for the model, followed by the sections ``## Styles`` and ``## Difficulty``: bullets
``- name: description`` that fill ``{queries}`` and ``{difficulty}`` and are not sent themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vectune.errors import InputError, UsageError

SHIPPED = ("chunk", "two_chunks")
PLACEHOLDERS = (
    "count", "queries", "persona", "examples", "difficulty", "language", "title", "text", "title_2", "text_2",
)  # fmt: skip
_SECTION = re.compile(r"^## (Styles|Difficulty)[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^[-*]\s+(\w[\w-]*)\s*:\s*(.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_][a-z_0-9]*)\}")


@dataclass(frozen=True)
class Prompt:
    """A prompt file taken apart.

    Attributes:
        source: where it was read, for messages.
        template: what is sent once its placeholders are filled.
        styles: name of a style → how to describe it to the model.
        difficulties: name of a difficulty → the line that asks for it.
    """

    source: str
    template: str
    styles: Mapping[str, str]
    difficulties: Mapping[str, str]

    def fill(self, values: Mapping[str, str]) -> str:
        """The message; values are put in once, so a document that says ``{persona}`` keeps saying so."""
        return _PLACEHOLDER.sub(lambda found: values.get(found.group(1), found.group(0)), self.template)


def prompt_text(name: str) -> str:
    """A shipped prompt file as it is, to print or copy.

    Raises:
        UsageError: no prompt has this name.
    """
    if name not in SHIPPED:
        raise UsageError(f"There is no prompt '{name}'; there are: {', '.join(SHIPPED)}.")
    return (files("vectune.queries") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def load_prompt(name_or_path: str) -> Prompt:
    """A shipped prompt by its name, or a user's file by its path.

    Raises:
        InputError: the file is missing, lacks ``{text}``, or has a placeholder that nothing fills.
    """
    if name_or_path in SHIPPED:
        return _parse(prompt_text(name_or_path), f"prompt '{name_or_path}'")
    path = Path(name_or_path).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not valid UTF-8"
        hint = "Write the shipped one to a file with: vectune queries --print-prompt chunk > my-prompt.md"
        raise InputError(f"the prompt cannot be read ({reason}).", hint, path=path) from None
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Prompt:
    template, *sections = _SECTION.split(text)
    bullets = {
        heading: dict(_BULLET.findall(body)) for heading, body in zip(sections[::2], sections[1::2], strict=True)
    }
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            line = template[: template.index("{" + name + "}")].count("\n") + 1
            hint = "Known placeholders: " + ", ".join("{" + known + "}" for known in PLACEHOLDERS)
            raise InputError(f"nothing fills the placeholder '{{{name}}}'.", hint, path=source, line=line)
    if "{text}" not in template:
        raise InputError("the prompt has no {text}, so the model would not see the chunk.", path=source)
    shipped = {} if source == "prompt 'chunk'" else load_prompt("chunk").__dict__
    styles = bullets.get("Styles") or shipped.get("styles", {})
    return Prompt(source, template.strip() + "\n", styles, bullets.get("Difficulty") or shipped.get("difficulties", {}))
