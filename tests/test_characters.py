from __future__ import annotations

import pytest

from vectune.characters import whole


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
