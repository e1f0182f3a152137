"""Headings and titles: found in Markdown, and chosen for a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from vectune.records import Heading

LONGEST = 1000  # characters of a heading that count: to find its mark-up may take their square

# One alternation finds fences and headings in a single pass, so that "# x" inside a fence is not taken for a heading.
_MARKDOWN = re.compile(
    r"^[ ]{0,3}(?P<fence>`{3,}|~{3,})[^\n]*$"
    r"|^[ ]{0,3}(?P<marks>\#{1,6})[ \t]+(?P<text>[^\n]*)$"
    r"|^(?P<over>[ ]{0,3}(?![-*+>|\#=`~]|\d+[.)][ \t])[^\s|][^\n|]*?)[ \t\r]*\n[ ]{0,3}(?P<under>=+|-{2,})[ \t\r]*$",
    re.MULTILINE,
)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?P<body>.*?)\r?\n(?:---|\.\.\.)[ \t\r]*$", re.DOTALL | re.MULTILINE)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(?P<title>\S.*?)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
_MARKUP = re.compile(
    r"(?<!`)(?P<ticks>`{1,3})(?!`)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)"
    r"|!?\[(?P<link>[^\]]*)\]\([^)]*\)"
    r"|\*{1,3}(?P<stars>\S(?:.*?\S)??)\*{1,3}"
    r"|(?<!\w)_{1,3}(?P<bars>\S(?:.*?\S)??)_{1,3}(?!\w)"  # within a word, as in max_seq_length, it is a letter
)
_JUNK_TITLE = re.compile(
    r"^(untitled.*|document\d*|microsoft word.*|powerpoint presentation|slide \d+|scan.*\d+|no ?title|title|"
    r".*\.(docx?|xlsx?|pptx?|pdf|indd|tex|dvi|qxd|rtf|txt|html?))$",
    re.IGNORECASE,
)
_JUNK_NAME = re.compile(
    r"^(scan|img|image|document|file|download|untitled|page|doc)?[\W_\d]*$|^[0-9a-f-]{16,}$", re.IGNORECASE
)


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """ATX (``## x``) and underlined headings outside fenced code and front matter, in order."""
    if "#" not in text and "\n==" not in text and "\n--" not in text:
        return ()
    front = _FRONT_MATTER.match(text)
    found: list[Heading] = []
    fence = ""
    for match in _MARKDOWN.finditer(text, front.end() if front else 0):
        mark = match["fence"]
        if mark:
            if not fence:
                fence = mark
            elif mark[0] == fence[0] and len(mark) >= len(fence):
                fence = ""
        elif not fence:
            level = len(match["marks"]) if match["marks"] else 1 if match["under"][0] == "=" else 2
            name = plain_line(match["text"].rstrip().rstrip("#") if match["marks"] else match["over"])
            if name:
                found.append(Heading(match.start(), level, name))
    return tuple(found)


def plain_line(line: str) -> str:
    """A line without Markdown's emphasis and links, with single spaces; of an enormous one the beginning."""
    return " ".join(_MARKUP.sub(_unmarked, line[:LONGEST]).replace("\\", "").split())


def _unmarked(match: re.Match[str]) -> str:
    if match["code"]:  # what looks like mark-up in it is none
        return match["code"]
    return _MARKUP.sub(_unmarked, match["link"] or match["stars"] or match["bars"] or "")


def front_matter_title(text: str) -> str:
    """The ``title:`` of a YAML block at the top of a Markdown file; empty where there is none."""
    front = _FRONT_MATTER.match(text) if text.startswith("---") else None
    title = _FRONT_TITLE.search(front["body"]) if front else None
    return title["title"].strip("\"'") if title else ""


def choose_title(given: str, headings: Sequence[Heading], source: str, *, trust_headings: bool = True) -> str:
    """A title from the file's metadata, else its first top heading, else its name.

    Args:
        given: the metadata's title; numbers, file names and "untitled" are not taken.
        headings: the document's headings.
        source: the document's path.
        trust_headings: False where headings are guessed (PDF): there the file's name comes first, because the first
            big line of many PDFs is the same for a whole series ("FORM 10-K").
    """
    given = " ".join(given.split())
    if given and not _JUNK_TITLE.match(given) and sum(map(str.isalpha, given)) * 2 > len(given):
        return given
    stem = PurePath(source).stem
    name = " ".join(re.sub(r"[_\-.+%]+", " ", stem).split())
    top = min(headings, key=lambda heading: heading.level).text if headings else ""
    if top and (trust_headings or _JUNK_NAME.match(stem)):
        return top
    return name or top


def heading_paths(headings: Iterable[Heading]) -> list[tuple[str, ...]]:
    """For what is above all headings, and below each of them in order, the headings that it is under, outermost first.

    The path of an offset is ``paths[bisect_right(starts, offset)]``.
    """
    paths: list[tuple[str, ...]] = [()]
    above: list[Heading] = []
    for heading in headings:
        while above and above[-1].level >= heading.level:
            above.pop()
        above.append(heading)
        paths.append(tuple(one.text for one in above))
    return paths
