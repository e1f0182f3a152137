"""Which characters a text may hold."""

from __future__ import annotations


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no file, database or tokenizer takes."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
