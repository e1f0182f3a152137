"""Pages of plain lines (a PDF's) made into one text: running heads go, wrapped lines are joined, headings found.

A PDF knows lines, not paragraphs. What comes out has one line a paragraph, a blank line between paragraphs and two
before a heading, so that a chunker sees the structure; rows of tables stay lines of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from vectune.records import Heading

EDGE_LINES = 3  # how deep running heads and feet are looked for
LONGEST_HEAD = 200  # characters of a head with a page's number
MOST_PAGES = 0.4  # left and right pages may carry different heads, so "most" is less than half
MOST_NUMBERED = 0.7  # of the pages carry their number beside words; fewer are the titles of a series
_NUMBER = re.compile(r"(?<!\d)\d{1,4}(?!\d)")
_BARE = re.compile(r"\W*\d+ ?(?:/|\||of|von|de|sur|di|van) ?\d+\W*", re.IGNORECASE)  # 7 / 12
_PAGE = re.compile(
    r"\b(?:pages?|seite|p[aá]gina|pagină|side|sida|sivu|strona|strana|oldal|sayfa|puslapis|halaman|orrialdea?|"
    r"страница|стр|σελίδα|էջ)\b|पृष्ठ|பக்கம்|صفحة|頁|页|ページ",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+(?:-\w+)*")
_BULLET = re.compile(r"^\s*(?:[•●▪◦‣·\-–—*]\s|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})[.)]\s)")
_NUMBERED = re.compile(
    r"^(?:(?P<word>part|chapter|item|section|article|appendix|annex|schedule|exhibit|note)\s+[\dIVXLA-Z]+\w?\b"
    r"|(?P<number>\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+(?=[A-Z]))",
    re.IGNORECASE,
)
_TABLE = re.compile(r"[$€£%|]|\d[\d,.]{3,}|\s{3,}|\.{4,}|…")
_SMALL_WORDS = frozenset("a an and as at by for from in into of on or our per the to vs with & – — -".split())
_SENTENCE_END = tuple('.!?:;”"')


@dataclass
class PageText:
    """One text made of pages.

    Attributes:
        text: the whole text.
        pages: offset of each page's first character; a blank page has the offset of the next one.
        headings: found by their form; levels from 1.
        bare: no page has a line that is no running head: most likely pictures with a stamp on each.
    """

    text: str = ""
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    bare: bool = False


@dataclass
class _Line:
    text: str
    page: int
    joins_next: bool = False
    heading: int = 0
    ends_heading: bool = False


def join_pages(pages: Sequence[str]) -> PageText:
    """Make one text of the pages' plain lines."""
    lines, bare = _without_running_heads([[line.strip() for line in _broken_at_bullets(page)] for page in pages])
    rows = [_Line(line, number) for number, page in enumerate(lines) for line in page if line]
    if not rows:
        return PageText(pages=(0,) * len(pages))
    width = full_width([row.text for row in rows])
    for row, following in pairwise(rows):
        row.joins_next = continues(row.text, following.text, width)
    _mark_headings(rows, width)
    return replace(_assemble(rows, len(pages)), bare=bare)


def _broken_at_bullets(page: str) -> list[str]:
    return re.sub(r" (?=[•●▪◦‣] )", "\n", page).splitlines()


def full_width(lines: Sequence[str]) -> int:
    """Length of a line that fills its column: the 90th percentile of the lines that hold running text."""
    lengths = sorted(len(line) for line in lines if len(line) > 20)
    return lengths[int(0.9 * (len(lengths) - 1))] if lengths else 80


def continues(line: str, following: str, width: int) -> bool:
    """Whether a line goes on in the next one, that is, was only wrapped."""
    if not following or _BULLET.match(following):
        return False
    if following[0].islower() and not line.endswith((".", "!", "?", ":")):
        return len(line) >= 0.4 * width
    if len(line) < 0.8 * width:
        return False
    return not line.endswith((".", "!", "?", ":")) or len(line) >= 0.9 * width


class _Mark(NamedTuple):
    """What a running head or foot has on all its pages."""

    side: int  # 0 for the top, 1 for the foot
    line: str  # with # in place of the page's number
    offset: int | None = None  # from the page's index to the number in the line; None where there is none
    among_words: bool = False  # the number stands beside other words


def _without_running_heads(pages: list[list[str]]) -> tuple[list[list[str]], bool]:
    """The pages without what most carry, and whether they hold nothing else.

    Heads and feet with the page's number go, of others the first one stays.
    """
    full = [page for page in pages if any(page)]
    seen: Counter[_Mark] = Counter()
    for index, page in enumerate(pages):
        seen.update({mark for side in (0, 1) for line in _edge(page, side) for mark in _marks(line, side, index)})
    repeated = _repeated(seen, len(full))
    if not repeated:
        return pages, False
    said: set[str] = set()
    bare = all(
        any(repeated.intersection(_marks(line, side, index)) for side in (0, 1))
        for index, page in enumerate(pages)
        for line in filter(None, page)
    )
    return [_trimmed(page, index, repeated, said) for index, page in enumerate(pages)], bare


def _repeated(seen: Counter[_Mark], pages: int) -> set[_Mark]:
    """Marks of running heads. Numbers that grow with the pages tell a number of the page from one of a title."""
    found = [mark for mark, count in seen.items() if count >= 3]
    total: Counter[tuple[int, str]] = Counter()
    for mark in found:
        total[mark[:2]] += seen[mark]  # the parts of a document may be numbered each for itself
    found = [mark for mark in found if total[mark[:2]] >= MOST_PAGES * pages]
    among: Counter[int] = Counter()
    for mark in found:
        among[mark.side] += seen[mark] * mark.among_words
    return {mark for mark in found if not mark.among_words or among[mark.side] >= MOST_NUMBERED * pages}


def _marks(line: str, side: int, index: int) -> Iterator[_Mark]:
    yield _Mark(side, line.casefold())
    letters = "".join(filter(str.isalpha, line)).encode()  # in bytes: of Chinese, one is a word
    alone = len(letters) <= 2 or bool(_PAGE.search(line) or _BARE.fullmatch(line))  # F-7, page 7
    for number in _NUMBER.finditer(line) if len(line) <= LONGEST_HEAD else ():
        before, after = line[: number.start()], line[number.end() :]
        if alone or _beside_words(before, after, side):
            yield _Mark(side, f"{before}#{after}".casefold(), int(number[0]) - index, not alone)


def _beside_words(before: str, after: str, side: int) -> bool:
    """Whether a number may be the page's: at an end of the line, and at the top not after one word ("Lesson 7")."""
    if any(map(str.isalnum, before)) and any(map(str.isalnum, after)):
        return False
    return side == 1 or sum(any(map(str.isalpha, word)) for word in (before + after).split()) > 1


def _edge(page: list[str], side: int) -> list[str]:
    lines = [line for line in page if line]
    depth = min(EDGE_LINES, max(1, len(lines) // 4))  # of a slide with five lines, only the first and the last
    return lines[:depth] if side == 0 else lines[-depth:]


def _trimmed(page: list[str], index: int, repeated: set[_Mark], said: set[str]) -> list[str]:
    """The page without running heads; all of it where nothing would be left. ``said``: heads that were kept once."""
    lines = whole = [line for line in page if line]
    for side in (0, 1):
        edge = _edge(lines, side)
        keep = []
        for line in edge:
            marks = repeated.intersection(_marks(line, side, index))
            numbered = any(mark.offset is not None for mark in marks)
            if not marks or not (numbered or line.casefold() in said):
                keep.append(line)
            if marks:
                said.add(line.casefold())
        lines = keep + lines[len(edge) :] if side == 0 else lines[: len(lines) - len(edge)] + keep
    return lines or whole


def _mark_headings(rows: list[_Line], width: int) -> None:
    """Lines that stand alone, or two that are joined, in front of running text or of another heading."""
    index = 0
    while index < len(rows) - 1:
        start = index
        while rows[index].joins_next and index < len(rows) - 1:
            index += 1
        index += 1
        if index - start > 2 or index == len(rows):
            continue
        level = heading_level(" ".join(row.text for row in rows[start:index]))
        if level and (len(rows[index].text) > 0.6 * width or heading_level(rows[index].text)):
            rows[index - 1].ends_heading = True
            if start and rows[start - 1].heading and _is_rest(rows[start - 1].text, rows[start].text, width):
                rows[start - 1].joins_next = True
            else:
                rows[start].heading = level


def _is_rest(heading: str, line: str, width: int) -> bool:
    """Whether a line is the second one of a long heading."""
    return len(heading) > 0.5 * width and not _NUMBERED.match(line) and heading.isupper() == line.isupper()


def heading_level(line: str) -> int:
    """The level a line would have as a heading by its form alone; 0 where it does not look like one."""
    if not 3 <= len(line) <= 160 or _TABLE.search(line) or not line[0].isalnum() or line[0].islower():
        return 0
    numbered = _NUMBERED.match(line)
    if line.endswith((",", ";", ":", "-")) or (line.endswith(".") and not numbered):
        return 0
    words = [word for word in line.split() if word.lower() not in _SMALL_WORDS]
    letters = [word for word in words if any(map(str.isalpha, word))]
    if not letters or len(words) > 18:
        return 0
    if numbered:
        number = numbered["number"]
        return 2 + number.count(".") if number else 1 if numbered["word"].lower() in ("part", "chapter") else 2
    if len(letters) * 2 <= len(words):
        return 0
    capital = sum(1 for word in letters if word.lstrip("“\"'(‘")[:1].isupper())
    if capital < 0.8 * len(letters):
        return 0
    return 2 if line.isupper() else 3


def _assemble(rows: list[_Line], count: int) -> PageText:
    words = {word for row in rows for word in _WORD.findall(row.text)}
    parts: list[str] = []
    length = 0
    headings: list[Heading] = []
    first: dict[int, int] = {}
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        first.setdefault(row.page, length)
        if row.heading:
            rest = f" {following.text}" if row.joins_next and following is not None else ""
            headings.append(Heading(length, row.heading, row.text + rest))
        text, gap = row.text, ""
        if following is not None:
            text, gap = _joint(row, following, words)
        parts += (text, gap)
        length += len(text) + len(gap)
    return PageText("".join(parts), _page_starts(first, count, length), tuple(headings))


def _joint(row: _Line, following: _Line, words: set[str]) -> tuple[str, str]:
    """The row's text as it goes into the result, and what stands between it and the next."""
    if row.joins_next:
        stem, _, tail = row.text.rpartition(" ")
        if tail.endswith(("-", "\xad", "\u2010")) and following.text[:1].islower():
            whole = tail[:-1] + following.text.split(" ", 1)[0].strip(".,;:)")
            hyphen = "-" if tail[-1] == "-" and whole not in words else ""
            return (f"{stem} " if stem else "") + tail[:-1] + hyphen, ""
        return row.text, " "
    if following.heading:
        return row.text, "\n\n\n"
    if row.ends_heading or row.text.endswith(_SENTENCE_END):
        return row.text, "\n\n"
    return row.text, "\n"


def _page_starts(first: dict[int, int], count: int, length: int) -> tuple[int, ...]:
    starts = [0] * count
    following = length
    for page in range(count - 1, -1, -1):
        following = starts[page] = first.get(page, following)
    return tuple(starts)
