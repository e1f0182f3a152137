"""Chunks, a writer that asks the tests' server about them, and what it wrote."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.records import Chunk, WrittenQuery
from vectune.testing import OpenAIServer


def chunks(count: int, first: int = 0) -> list[Chunk]:
    return [
        Chunk(f"Machine number {n} drains its water through the filter behind door {n}.", document_id=f"d{n // 5}")
        for n in range(first, first + count)
    ]


def writer(server: OpenAIServer, model: str = "gpt-4o-mini", **options: Any) -> LLMWriter:
    given = {"concurrency": 4, "timeout": 5.0, "attempts": 3, **options}
    return LLMWriter(model, LLMOptions(base_url=server.base_url, **given))


def by_chunk(written: list[WrittenQuery]) -> dict[str, int]:
    return dict(Counter(one.chunk_ids[0] for one in written))
