from __future__ import annotations

import pytest

from vectune.characters import whole, words_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("\ufeffcafé \U0001f600", "\ufeffcafé \U0001f600"),
        ("cut off \ud83d", "cut off \ufffd"),
        ("\ude00 and \ud83dx", "\ufffd and \ufffdx"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_halves_of_a_pair_are_replaced_and_whole_pairs_joined(text: str, expected: str) -> None:
    assert whole(text) == expected
    whole(text).encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the fox's 2 top_k – “café”", ["the", "fox", "s", "2", "top_k", "café"]),
        ("Straße, Öl und cafe\u0301", ["Straße", "Öl", "und", "café"]),
        ("किताब और काम की जानकारी", ["किताब", "और", "काम", "की", "जानकारी"]),
        ("புத்தகம் பற்றி", ["புத்தகம்", "பற்றி"]),
        ("كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
        ("か\u3099 ❤\ufe0f", ["が"]),
    ],
)
def test_words_keep_their_marks(text: str, words: list[str]) -> None:
    assert words_in(text) == words
