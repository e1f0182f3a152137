"""Bytes of a text file → text: UTF-8, or what the file says it is, or what it cannot but be; else an error.

Nothing is guessed from the frequencies of letters: a Czech page would be read as a French one, and nobody would see it.
"""

from __future__ import annotations

import codecs
import re

HEAD = 4096  # characters in which a declaration is looked for
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED = re.compile(
    r"(?P<before><meta\b[^>]*\bcharset\s*=\s*[\"']?\s*"  # HTML, both forms
    r"|\A\s*<\?xml\b[^>]*\bencoding\s*=\s*[\"']"
    r"|\\usepackage\[(?=\w+\]\{inputenc\}))(?P<name>[\w.:-]+)",  # LaTeX
    re.IGNORECASE,
)
_MEANT = {  # Python's name → what browsers read instead, because files hold more than the name allows
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "shift_jis": "cp932", "euc_kr": "cp949",
    "gb2312": "gb18030", "gbk": "gb18030",
}  # fmt: skip
_ALIKE = ("cp1252", "cp1250", "cp1254")  # of the west, the middle and Turkey
_AMIDST = re.compile(  # a sign of theirs within a word: a letter of DOS or of an old Mac
    rb"[A-Za-z\xc0-\xff][\x80-\x84\x86-\x91\x93-\x95\x98-\x9f][A-Za-z\xc0-\xff]"  # not … ’ – —
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_RUN = re.compile(r"[^\x00-\x7f]{4,}")  # with a letter in it, this is no word of these languages
_FEW = 0.05  # of the characters beyond ASCII


def decode(data: bytes) -> str:
    """The text of a file.

    UTF-8 and what has a byte order mark; else what the file declares; else windows-1252 where its neighbours read the
    bytes in the same way (English, German), with no sign within a word, as a letter of DOS's would be; else UTF-8
    with U+FFFD for a few broken characters among many good ones.

    Raises:
        ValueError: it is none of these; the message says what to do.
    """
    for mark, name in (*_MARKS, (b"", "utf-8")):
        if data.startswith(mark):
            text = _read(data, name)
            if text is not None:
                return text
    for found in (_as_declared(data), _as_alike(data), _as_broken(data)):
        if found is not None:
            return found
    if _CONTROL.search(data):
        raise ValueError("not text: most likely binary data")
    raise ValueError("not UTF-8, and it declares no other encoding that fits: save it as UTF-8, if it is text")


def as_utf8(data: bytes) -> bytes:
    """The text of a file in UTF-8, whose declaration says so; unchanged where it is UTF-8 already.

    Raises:
        ValueError: see ``decode``.
    """
    if _read(data, "utf-8") is not None:
        return data
    text = decode(data)
    return (_DECLARED.sub(r"\g<before>utf-8", text[:HEAD]) + text[HEAD:]).encode()


def _read(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except (LookupError, ValueError):  # no such encoding; not in it
        return None


def _as_declared(data: bytes) -> str | None:
    said = _DECLARED.search(data[:HEAD].decode("latin-1"))
    if said is None:
        return None
    try:
        name = codecs.lookup(said["name"].lower().removeprefix("x-")).name
    except LookupError:
        return None
    return None if name.startswith("utf") else _read(data, _MEANT.get(name, name))


def _as_alike(data: bytes) -> str | None:
    readings = {_read(data, name) for name in _ALIKE}
    text = readings.pop()
    if text is None or readings or _CONTROL.search(data) or _AMIDST.search(data):
        return None
    return None if any(any(map(str.isalpha, run)) for run in _RUN.findall(text)) else text


def _as_broken(data: bytes) -> str | None:
    text = data.decode("utf-8", "replace")
    beyond = sum(not character.isascii() for character in text)
    return text if text.count("\ufffd") <= _FEW * beyond else None
