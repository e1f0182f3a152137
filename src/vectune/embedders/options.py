"""EmbedOptions: how texts become vectors. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal, TypeAlias

from vectune.errors import check_bounds

FieldValue: TypeAlias = str | int | float | bool  # of a field in a request's body
Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class EmbedOptions:
    """What can be chosen about an embedder; the defaults are the model's own.

    Attributes:
        max_length: tokens that a local model reads of a text, with its special tokens; None = what the model says.
        precision: arithmetic of a local model. ``auto`` takes bf16 where this machine is measured to be faster at it.
        device: torch device of a local model, or ``auto`` (a GPU where there is one).
        batch_tokens: tokens in one batch of a local model; None = from the model's size. Not a matter of results.
        trust_remote_code: run Python code that came with a model. Only for models whose code you have read.
        dimensions: leading dimensions to keep (Matryoshka), also asked of an API; None = all.
        query_prompt, document_prompt: put before each text; None = the model's own prompts (none for an API).
        base_url: address of an OpenAI-compatible API up to ``/v1``; None = ``OPENAI_BASE_URL``, or OpenAI's.
        api_key: None = what ``key_variable`` holds. Never written to disk.
        key_variable: environment variable that holds the key.
        query_fields, document_fields: further fields of an API's request body for each role:
            ``{"input_type": "query"}``.
        key_header: an API's header that carries the key, where a bearer token is not what it reads: ``api-key``.
        url_parameters: put behind the address of an API's requests: ``{"api-version": "2024-10-21"}``.
        concurrency: API requests in flight at once.
        batch_texts: texts in one API request at most.
        request_tokens: estimated tokens in one API request at most.
        max_retries: attempts after the first for an API request that may succeed later.
        timeout: seconds until an API request counts as failed.
        encoding: how an API sends vectors: ``base64`` (a quarter of the traffic) or ``float``.
        cache_gib: size limit of the vector cache on disk, in GiB; the least recently used local models'
            vectors go first, and those that may have been paid for stay.
    """

    max_length: int | None = None
    precision: Precision = "auto"
    device: str = "auto"
    batch_tokens: int | None = None
    trust_remote_code: bool = False
    dimensions: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    query_fields: Mapping[str, FieldValue] = field(default_factory=dict)
    document_fields: Mapping[str, FieldValue] = field(default_factory=dict)
    key_header: str | None = None
    url_parameters: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 8
    batch_texts: int = 256
    request_tokens: int = 60_000
    max_retries: int = 6
    timeout: float = 60.0
    encoding: Literal["base64", "float"] = "base64"
    cache_gib: float = 20.0

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("concurrency", "batch_texts", "request_tokens", "batch_tokens"), (1, inf))
        check_bounds("models", self, {**counts, "max_retries": (0, inf), "cache_gib": (0, inf)}, ("timeout",))


DEFAULTS = EmbedOptions()
