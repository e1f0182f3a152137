"""Queries out of whatever a model answered: JSON, cut-off JSON, numbered lists, bullets, preambles, reasoning.

Servers without structured output wrap their answer in code fences, announce it ("Here are two questions:"), think
aloud, or stop in the middle of a string. A query that was cut off is never returned.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vectune.characters import whole

_LONGEST_REPAIR = 50_000  # characters of cut-off JSON that are looked at
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}"]', re.DOTALL)
_COMMA_TOO_MANY = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)  # group 1: strings, which stay
_JSON_START = re.compile(r"[\[{](?=\s*[\"'\[\]{}])")
_DEEPEST = 20  # nested brackets; an answer has three or four
_MOST_STARTS = 20  # brackets tried in vain as the start of JSON; more of them is a text full of brackets
LONGEST_QUERY = 600  # characters; what is longer is prose, not a query
_TEXT_KEYS = ("text", "query", "question", "q", "content")
_STYLE_KEYS = ("question", "keywords", "problem", "claim")
_LIST_KEYS = ("queries", "questions", "items", "results", "data")
_THINKING = re.compile(r"<(think|thinking|reasoning|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPEN_THINKING = re.compile(r"<(think|thinking|reasoning|thought)>", re.IGNORECASE)
_CLOSE_THINKING = re.compile(r"</(think|thinking|reasoning|thought)>", re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without a blank after a number
_NUMBER = rf"[(（]?(\d{{1,2}})(?:\s*[.):\]](?:\*\*|__)?(?:\s+|(?=[{_CJK}]))|）\s*|[、．](?!\d))"
_MARKER = re.compile(
    r"^\s*(?:#{1,6}\s+)?(?:\*\*|__)?\s*"
    rf"(?:{_NUMBER}|\d{{1,2}}\s+[-–]\s+|[-*+•–‣◦]\s+|[①-⑳]\s*"
    r"|Q\d{0,2}\s*[:：.)]\s*|(?:query|question)\s*#?\d{0,2}\s*(?:[:：.)]|\s-\s)\s*"
    r"|(?:问题|問題|查询|查詢|質問|질문)\s*[\d一二三四五六七八九十]{0,2}\s*[:：.、]\s*)(?:\*\*|__)?\s*",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"^\s*(?:\*\*)?(?:A\d{0,2}|answer\s*\d{0,2})\s*:", re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:\*\*|__)?(?:quer(?:y|ies) #?\d{1,2} (?=[(\[]))?\[?\(?(?:style\s*[:=]\s*)?"
    r"(question|keywords?|problem(?: statement)?|claim|statement|query|text)\)?"
    r"(?:\](?:\*\*)?\s|\]?\s*(?:\*\*|__)?\s*(?:[:：]|\s[–-]\s))\s*(?:\*\*|__)?\s*",
    re.IGNORECASE,
)
_TAGGED = re.compile(r"<(query|question|q|text)\b[^>]*>(.*)</\1>", re.IGNORECASE)
_CHATTER = re.compile(
    r"^(?:here (?:are|is)|below (?:are|is)|sure[,.! ]|certainly|of course|okay|ok[,.!]|i hope|let me know"
    r"|these (?:queries|questions)|(?:the )?(?:queries|questions|answer|output|json|note)\b[^?]{0,60}:\s*$"
    r"|i am sorry|i'm sorry|i cannot (?:write|generate|help)|as an ai|hier sind|voici|aquí (?:hay|tienes|están)|ecco)",
    re.IGNORECASE,
)
_NAMES_QUERIES = re.compile(r"^(?:[\w ]+ )?(?:quer(?:y|ies)|questions?)(?: text)?$|^text$")  # a column's header
_RULE = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?")  # between a table's header and its rows
_BAR = re.compile(r"(?<!\\)\|")
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "`": "`", "‘": "’", "「": "」"}


@dataclass(frozen=True)
class ParsedQuery:
    """A query's text and the style the model named for it, if any."""

    text: str
    style: str = ""


def parse_queries(answer: str, limit: int | None = None, truncated: bool = False) -> list[ParsedQuery]:
    """The queries in an answer, in its order, each text once; an empty list when there is none.

    Args:
        answer: the model's text.
        limit: at most this many; None returns all.
        truncated: the model was cut off (``finish_reason`` is ``length``), so a last line without an end is dropped.
    """
    text = _without_thinking(answer)
    found = _from_json(text)
    if found is None:
        found = list(_from_lines(_inside_fence(text), truncated))
    unique: dict[str, ParsedQuery] = {}
    for position, query in enumerate(found, start=1):
        if len(query.text) > 4 * LONGEST_QUERY:
            continue
        cleaned = clean(query.text, position)
        if is_query(cleaned):
            unique.setdefault(cleaned.casefold(), ParsedQuery(cleaned, query.style.strip().casefold()))
    return list(unique.values())[:limit]


def clean(text: str, position: int = 0) -> str:
    """One line without list markers, labels, mark-up and the quotes around it.

    Args:
        text: what the model gave.
        position: 1-based place in the answer; only this number is taken for a marker ("2. Weltkrieg" keeps its 2.).
    """
    line = " ".join(whole(text).split())  # the answer's own JSON may escape half a surrogate pair
    if tagged := _TAGGED.fullmatch(line):
        line = tagged.group(2).strip()
    previous = None
    while line != previous:
        previous = line
        number = re.match(_NUMBER, line)
        if number is None or int(number.group(1)) == position:
            line = _MARKER.sub("", line, count=1)
        line = _LABEL.sub("", line, count=1).strip()
        for mark in ("**", "__", "*"):
            if line.startswith(mark) and line.endswith(mark) and len(line) > 2 * len(mark):
                line = line[len(mark) : -len(mark)].strip()
        if len(line) > 1 and _QUOTES.get(line[0]) == line[-1] and line[0] not in line[1:-1]:
            line = line[1:-1].strip()
    return line


def is_query(text: str) -> bool:
    """True for something that could be typed into a search box: letters or digits, not endless, no chatter."""
    has_word = any(character.isalnum() for character in text)
    if text.casefold() in ("null", "none", "true", "false", "n/a", *_STYLE_KEYS):
        return False
    return has_word and 2 <= len(text) <= LONGEST_QUERY and not _CHATTER.match(text)


def _without_thinking(text: str) -> str:
    text = _THINKING.sub("", text)
    # Some servers swallow the opening tag; others stop before the closing one, and then there is no answer.
    closed = list(_CLOSE_THINKING.finditer(text))
    if closed:
        text = text[closed[-1].end() :]
    opened = _OPEN_THINKING.search(text)
    return text[: opened.start()] if opened else text


def _inside_fence(text: str) -> str:
    fenced: list[str] = _FENCE.findall(text)
    return "\n".join(fenced) if fenced else text


# JSON


def _from_json(text: str) -> list[ParsedQuery] | None:
    """Queries of all JSON values that hold some (there may be one a line); None when the text holds no such value."""
    found: dict[str, list[ParsedQuery]] = {}
    at = misses = 0
    while misses < _MOST_STARTS and (start := _JSON_START.search(text, at)) is not None:
        value, end = _decoded(text, start.start())
        here = list(_walk(value))
        if here:
            found.setdefault(_shape(value), []).extend(here)
        misses += not here
        at = end if here else start.end()
    return found.get("queries") or next(iter(found.values()), None) or _from_python(text)


def _shape(value: Any) -> str:
    """Which values of an answer belong together: what it quotes from the chunk has another shape than its queries."""
    if isinstance(value, list):
        return "list"
    keys = {str(key).casefold() for key in value}
    return "queries" if keys & {"queries", "questions"} else next((key for key in _TEXT_KEYS if key in keys), "others")


def _from_python(text: str) -> list[ParsedQuery] | None:
    """The same for a Python literal, which is what models write that forget JSON's double quotes."""
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end or end - start > 100_000:
        return None
    try:
        return list(_walk(ast.literal_eval(text[start : end + 1]))) or None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that starts there and where it ends; commas too many are left out, one cut off gives its whole."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        rest = text[start : start + _LONGEST_REPAIR]
        length = next((end for end, closing in _value_ends(rest) if not closing), 0)
        if not length:
            return _repaired(rest), len(text)
        return _repaired(_COMMA_TOO_MANY.sub(r"\1", rest[:length])), start + length


def _repaired(text: str) -> Any:
    """Close a JSON text after its last complete value; None where that gives nothing either."""
    try:
        ends = list(_value_ends(text))
        for end, closing in reversed(ends[-8:]):  # an object cut off has few strings after its last whole entry
            try:
                return json.loads(text[:end] + closing, strict=False)
            except ValueError:
                continue
    except RecursionError:
        pass
    return None


def _value_ends(text: str) -> Iterator[tuple[int, str]]:
    """Each place where a string, object or list ends, and the brackets that would close the text there."""
    open_brackets: list[str] = []
    for found in _JSON_TOKEN.finditer(text):
        token = found.group()
        if token == '"':  # a string that never ends
            return
        if token in "[{":
            open_brackets.append("]" if token == "[" else "}")
            if len(open_brackets) > _DEEPEST:
                return
            continue
        if token in "]}" and (not open_brackets or open_brackets.pop() != token):
            return
        yield found.end(), "".join(reversed(open_brackets))


def _walk(value: Any) -> Iterator[ParsedQuery]:
    """Queries in a decoded value: strings of a list, objects with a text, and lists under the usual names."""
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, str):
                yield ParsedQuery(entry)
            else:
                yield from _walk(entry)
    elif isinstance(value, dict):
        named = {str(key).casefold(): entry for key, entry in value.items()}
        styled = sum(key in named for key in _STYLE_KEYS) > 1  # styles as keys, of which "question" is one
        text = None if styled else next((named[key] for key in _TEXT_KEYS if isinstance(named.get(key), str)), None)
        nested = [entry for key, entry in named.items() if key in _LIST_KEYS and isinstance(entry, list | dict)]
        if text is not None:
            style = named.get("style") or named.get("type") or ""
            yield ParsedQuery(text, style if isinstance(style, str) else "")
        elif nested:
            for entry in nested:
                yield from _walk(entry)
        else:
            yield from _walk_values(named)


def _walk_values(named: dict[str, Any]) -> Iterator[ParsedQuery]:
    """``{"question": [...], "1": "...", "query_2": "..."}``: styles or numbers as keys."""
    for key, entry in named.items():
        if isinstance(entry, str) and re.fullmatch(r"(?:query|question|q)?[ _-]?\d+", key):
            yield ParsedQuery(entry)
        elif isinstance(entry, str | list) and key in _STYLE_KEYS:
            yield from (
                ParsedQuery(text, key)
                for text in ([entry] if isinstance(entry, str) else entry)
                if isinstance(text, str)
            )
        elif isinstance(entry, list | dict):
            yield from _walk(entry)


# Lists in plain text


def _from_lines(text: str, truncated: bool) -> Iterator[ParsedQuery]:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]  # marks are slow on many blanks
    if truncated and lines and not text.endswith("\n") and not lines[-1].endswith(tuple('?.!"？。！')):
        lines.pop()
    bare = any(_RULE.fullmatch(line) for line in lines)  # a table's rows need no bar at the edge
    rows = [line for line in lines if line.startswith("|") or (bare and "|" in line)]
    if table := list(_from_table(rows)):
        yield from table
        return
    lines = [line for line in lines if not line.startswith("|")]
    marked = [line for line in lines if _MARKER.match(line) or _LABEL.match(line)]
    if marked:
        lines = marked
    elif len(lines) > 1:  # no markers: a preamble ends with a colon
        lines = [line for line in lines if not line.rstrip("*_").endswith((":", "："))]
    for line in lines:
        if _looks_like_json(line) or _ANSWER.match(line):
            continue
        label = _LABEL.match(_MARKER.sub("", line, count=1)) or _LABEL.match(line)
        yield ParsedQuery(_MARKER.sub("", line, count=1), _style_name(label.group(1)) if label else "")


def _from_table(rows: list[str]) -> Iterator[ParsedQuery]:
    """The column of a Markdown table that its header calls queries, questions or texts; nothing where none is."""
    cells = [[cell.replace("\\|", "|").strip(" *_`") for cell in _BAR.split(row.strip("|"))] for row in rows]
    header = [cell.casefold() for cell in cells[0]] if cells else []
    column = next((at for at, name in enumerate(header) if _NAMES_QUERIES.search(name)), None)
    if column is None:
        return
    style = next((at for at, name in enumerate(header) if name in ("style", "type")), len(header))
    for row in cells[1:]:
        if len(row) == len(header):  # not a row whose text holds a bar itself
            yield ParsedQuery(row[column], _style_name(row[style]) if row[style:] and row[style] else "")


def _looks_like_json(line: str) -> bool:
    return line.lstrip()[:1] in "{}[]" or bool(re.match(r'^\s*"\w+"\s*:', line))


def _style_name(label: str) -> str:
    first = label.casefold().split()[0]
    return {"keyword": "keywords", "statement": "claim", "query": "", "text": ""}.get(first, first)
