"""What a server answered to a chat request, in the forms that servers give it, for single requests and batches."""

from __future__ import annotations

from typing import Any

from vectune.queries.answers import Answer
from vectune.queries.pricing import count_tokens


class Unreadable(ValueError):
    """There is no text where the answer should have one."""


def refused_field(message: str) -> str:
    """The field that a 400 refuses: ``max_tokens``, ``response_format``, or empty where it names neither."""
    if "max_completion_tokens" in message:
        return "max_tokens"
    return "response_format" if "schema" in message.lower() or "response_format" in message else ""


def read_completion(completion: Any, tokens_in: int = 0) -> Answer:
    """The model's answer.

    Args:
        completion: the decoded body.
        tokens_in: of the message, where the server counts none.

    Raises:
        Unreadable: says what the server said in its place.
    """
    try:
        choice = completion["choices"][0]
        text = _text(choice["message"].get("content"))
        usage = completion.get("usage") or {}
        counted = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        cut_off = choice.get("finish_reason") == "length"
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise Unreadable(f"no answer in the answer: {_said(completion)}") from None
    return Answer(text, counted[0] or tokens_in, counted[1] or count_tokens(text), truncated=cut_off)


def _text(content: Any) -> str:
    """Models that think may give a list of parts, of which those of type ``text`` are the answer (Mistral's do)."""
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content if part.get("type") in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError(content)
    return content or ""


def _said(completion: Any) -> str:
    error = completion.get("error") if isinstance(completion, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or completion)[:200]
