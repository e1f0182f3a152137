"""The forms in which servers answer."""

from __future__ import annotations

from typing import Any

import pytest

from vectune.queries.completion import Unreadable, read_completion


def completion(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}], **more}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a b", "a b"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}], "a b"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}, {"type": "text", "text": "a b"}], "a b"),
        ([], ""),
    ],
)
def test_texts(content: Any, text: str) -> None:
    assert read_completion(completion(content)).text == text


def test_counts() -> None:
    told = read_completion(completion("a b", usage={"prompt_tokens": 7, "completion_tokens": 9}), tokens_in=5)
    guessed = read_completion(completion("a b", usage=None), tokens_in=5)
    assert (told.tokens_in, told.tokens_out, guessed.tokens_in, guessed.tokens_out) == (7, 9, 5, 2)


@pytest.mark.parametrize(
    "body",
    [
        None, "<html>", [], {}, {"choices": []}, {"choices": [{"message": None}]}, completion(7), completion(["a"]),
        completion([{"type": "text"}]), completion("a", usage={"prompt_tokens": float("inf")}),
        completion("a", usage=[1]),
    ],
)  # fmt: skip
def test_no_text(body: Any) -> None:
    with pytest.raises(Unreadable):
        read_completion(body)


def test_what_the_server_says_in_its_place_is_told() -> None:
    with pytest.raises(Unreadable, match="The model crashed"):
        read_completion({"error": {"message": "The model crashed."}})
