"""Which characters a text may hold, and which make a word."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_ASCII_WORD = re.compile(r"\w+")


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no file, database or tokenizer takes."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def wording(text: str) -> str:
    """The text without what makes no other question of it: case, blanks and final punctuation."""
    return " ".join(text.casefold().split()).rstrip(" ?!.")


def words_in(text: str) -> list[str]:
    """Runs of letters, digits and underscores with the marks that belong to them (vowel signs, accents), composed."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return _word().findall(unicodedata.normalize("NFC", text))


@cache
def _word() -> re.Pattern[str]:
    r"""``\w`` has no combining marks, and so cuts the words of most scripts of India apart.

    Made when it is needed: it takes 10 ms. Marks above U+FFFF are of scripts of the past, and would make it slow; the
    selectors at U+FE00 choose a picture, not a word.
    """
    marks = (chr(code) for code in range(0x300, 0x10000) if not 0xFE00 <= code < 0xFE10)
    return re.compile(rf"[\w{''.join(mark for mark in marks if unicodedata.category(mark) in ('Mn', 'Mc'))}]+")


def printable(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 are escaped and not replaced, so that two such names stay two."""
    return name.encode("utf-8", "backslashreplace").decode()
