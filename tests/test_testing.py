"""The fake server itself: each fault looks as it says, seen through the real client."""

from __future__ import annotations

import math
from collections.abc import Iterator

import openai
import pytest

from vectune.testing import Fault, OpenAIServer, hashed_embedding


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dim=8) as running:
        yield running


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0, timeout=1) as one:
        yield one


def embed(client: openai.OpenAI, *texts: str) -> list[tuple[int, list[float]]]:
    answer = client.embeddings.create(model="m", input=list(texts))
    return [(one.index, list(one.embedding)) for one in answer.data]


def test_base64_and_floats_are_the_same(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="m", input="a pump", encoding_format="float").data[0].embedding
    assert floats == pytest.approx(hashed_embedding("a pump", 8)) == embed(client, "a pump")[0][1]


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("quota", 429), ("500", 500), ("503", 503), ("html", 502)])
def test_error_statuses(server: OpenAIServer, client: openai.OpenAI, fault: str, status: int) -> None:
    server.fail(fault, retry_after=2)
    with pytest.raises(openai.APIStatusError) as caught:
        embed(client, "a")
    assert caught.value.status_code == status
    assert (caught.value.response.headers.get("retry-after") == "2") == (fault in ("429", "500", "503"))
    assert embed(client, "a")  # once only


def test_hangs_and_disconnects(server: OpenAIServer, client: openai.OpenAI) -> None:
    server.fail("disconnect").fail("hung")
    with pytest.raises(openai.APIConnectionError):
        embed(client, "a")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).embeddings.create(model="m", input="a")


def test_spoiled_vectors(server: OpenAIServer, client: openai.OpenAI) -> None:
    right = embed(client, "a", "b")
    for fault in ("reversed", "missing", "doubled", "dimension", "nan", "zero"):
        server.fail(fault)
    assert embed(client, "a", "b") == right[::-1]
    assert embed(client, "a", "b") == right[:1]
    assert [index for index, _ in embed(client, "a", "b")] == [0, 0]
    assert [len(vector) for _, vector in embed(client, "a", "b")] == [9, 9]
    assert math.isnan(embed(client, "a", "b")[0][1][0])
    assert set(embed(client, "a", "b")[0][1]) == {0.0}


def test_limits(server: OpenAIServer, client: openai.OpenAI) -> None:
    server.max_inputs, server.max_input_characters = 2, 40
    for texts in (["a", "b", "c"], ["a" * 41], [""]):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="m", input=texts)
    server.models = frozenset({"x"})
    with pytest.raises(openai.NotFoundError):
        embed(client, "a")


def test_rates_are_drawn(server: OpenAIServer, client: openai.OpenAI) -> None:
    server.rates = {"500": 0.5}
    failed = 0
    for _ in range(40):
        try:
            embed(client, "a")
        except openai.InternalServerError:
            failed += 1
    assert 5 < failed < 35
    assert (server.count("/v1/embeddings"), server.answered["/v1/embeddings"]) == (40, 40 - failed)


def test_unknown_fault() -> None:
    with pytest.raises(ValueError, match="Unknown fault 'flood'"):
        Fault("flood")
