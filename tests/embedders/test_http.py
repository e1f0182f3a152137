"""HTTPEmbedder against a real server on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vectune.embedders.cached import CachedEmbedder
from vectune.embedders.factory import open_embedder
from vectune.embedders.http import HTTPEmbedder
from vectune.embedders.options import EmbedOptions
from vectune.errors import EndpointError, InputError, ModelError, UsageError
from vectune.testing import OpenAIServer, hashed_embedding

TEXTS = [f"the {word} of the river number {number}" for number in range(20) for word in ("bank", "sea", "fish")]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def options(server: OpenAIServer, **fields: Any) -> EmbedOptions:
    return EmbedOptions(base_url=server.base_url, api_key="key", **{"batch_texts": 16, "max_retries": 3, **fields})


@pytest.fixture
def embedder(server: OpenAIServer) -> Iterator[HTTPEmbedder]:
    opened = HTTPEmbedder("small", options(server))
    yield opened
    opened.close()


def expected(texts: list[str], dim: int = 32) -> np.ndarray:
    return np.array([hashed_embedding(text, dim) for text in texts], dtype=np.float32)


def bodies(server: OpenAIServer) -> list[dict[str, Any]]:
    return [asked.body for asked in server.asked if asked.path == "/v1/embeddings"]


def test_vectors_are_the_servers_in_the_order_of_the_texts(embedder: HTTPEmbedder, server: OpenAIServer) -> None:
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert max(len(body["input"]) for body in bodies(server)) == 16
    assert embedder.usage.texts == len(TEXTS)
    assert embedder.usage.tokens > 0


def test_vectors_come_as_base64_and_as_numbers_alike(server: OpenAIServer) -> None:
    packed, plain = (HTTPEmbedder("small", options(server, encoding=kind)) for kind in ("base64", "float"))
    np.testing.assert_array_equal(packed.embed_queries(TEXTS[:3]), plain.embed_queries(TEXTS[:3]))
    assert [body["encoding_format"] for body in bodies(server)] == ["base64", "float"]
    packed.close()
    plain.close()


def test_a_server_that_ignores_base64_is_understood(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    server.base64 = False
    np.testing.assert_allclose(embedder.embed_queries(TEXTS[:3]), expected(TEXTS[:3]), atol=1e-6)


def test_a_server_that_refuses_base64_is_asked_for_numbers(server: OpenAIServer) -> None:
    """Requests that are in flight when the first one is refused are sent again, too, and none counts as failed."""
    server.refuses_base64, server.delay = True, 0.2
    embedder = HTTPEmbedder("small", options(server, concurrency=4, max_retries=0))
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    asked = [body["encoding_format"] for body in bodies(server)]
    assert asked.count("float") == 4
    embedder.embed_documents(TEXTS[:1])
    assert bodies(server)[-1]["encoding_format"] == "float"
    embedder.close()


@pytest.mark.parametrize(
    "fault", ["429", "500", "503", "html", "malformed", "error200", "disconnect", "reversed", "missing", "nan", "zero"]
)
def test_one_fault_is_mended(server: OpenAIServer, embedder: HTTPEmbedder, fault: str) -> None:
    server.fail(fault)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("error200", "The model crashed"),
        ("nan", "NaN"),
        ("zero", "zero vector"),
        ("missing", "15 vectors for 16 texts"),
        ("doubled", "indices"),
        ("html", "502"),
    ],
)
def test_a_lasting_fault_is_told(server: OpenAIServer, fault: str, told: str) -> None:
    server.fail(fault, times=100)
    embedder = HTTPEmbedder("small", options(server, max_retries=1, concurrency=1))
    with pytest.raises(EndpointError, match=told):
        embedder.embed_documents(TEXTS)
    embedder.close()


def test_a_hung_request_is_repeated(server: OpenAIServer) -> None:
    server.fail("hung")
    embedder = HTTPEmbedder("small", options(server, timeout=0.3))
    assert embedder.embed_queries(["one"]).shape == (1, 32)
    embedder.close()


def test_retry_after_is_heeded_by_all_requests(server: OpenAIServer) -> None:
    server.fail("429", retry_after=0.5)
    embedder = HTTPEmbedder("small", options(server, concurrency=1))
    embedder.embed_documents(TEXTS[:17])
    first, second = [asked.time for asked in server.asked][:2]
    assert second - first >= 0.5
    embedder.close()


def test_a_server_that_names_no_time_to_wait_is_asked_ever_more_slowly(server: OpenAIServer) -> None:
    server.fail("429", times=2, retry_after=0.0)
    embedder = HTTPEmbedder("small", options(server, concurrency=1))
    embedder.embed_documents(TEXTS[:2])
    first, second, third = [asked.time for asked in server.asked]
    assert min(second - first, third - second) >= 0.25  # half of the first backoff, half a second, at least
    embedder.close()


def test_requests_in_flight_are_bounded(server: OpenAIServer) -> None:
    server.delay = 0.05
    embedder = HTTPEmbedder("small", options(server, concurrency=3, batch_texts=2))
    embedder.embed_documents(TEXTS[:24])
    times = sorted(asked.time for asked in server.asked)
    assert all(later - earlier > 0.03 for earlier, later in zip(times, times[3:], strict=False))
    embedder.close()


def test_batches_are_bounded_by_tokens(server: OpenAIServer) -> None:
    embedder = HTTPEmbedder("small", options(server, request_tokens=100))
    embedder.embed_documents(["long words " * 20, "short", "long words " * 20, "short"])
    assert [len(body["input"]) for body in bodies(server)] == [2, 2]
    embedder.close()


def test_dimensions_and_role_fields_and_prompts_are_sent(server: OpenAIServer) -> None:
    asked = options(
        server,
        dimensions=8,
        query_fields={"input_type": "query"},
        document_fields={"input_type": "passage", "truncate": "NONE"},
        query_prompt="find: ",
    )
    embedder = HTTPEmbedder("small", asked)
    assert embedder.embed_queries(["a river"]).shape == (1, 8)
    embedder.embed_documents(["a river"])
    query, document = bodies(server)
    assert (query["input_type"], query["dimensions"], query["input"]) == ("query", 8, ["find: a river"])
    assert (document["input_type"], document["truncate"], document["input"]) == ("passage", "NONE", ["a river"])
    embedder.close()


def test_azure_is_asked_at_the_address_of_a_deployment_with_its_own_key_header() -> None:
    with OpenAIServer(key="azure-key") as server:
        address = server.base_url.removesuffix("/v1") + "/openai/deployments/mine"
        azure: dict[str, Any] = {
            "base_url": address,
            "key_header": "api-key",
            "url_parameters": {"api-version": "2024-10-21"},
        }
        embedder = HTTPEmbedder("small", EmbedOptions(api_key="azure-key", **azure))
        np.testing.assert_allclose(embedder.embed_documents(TEXTS[:3]), expected(TEXTS[:3]), atol=1e-6)
        assert (server.asked[-1].query, server.asked[-1].headers["api-key"]) == ("api-version=2024-10-21", "azure-key")
        embedder.close()
        refused = HTTPEmbedder("small", EmbedOptions(api_key="another", **azure))
        with pytest.raises(EndpointError, match="refused the key"):
            refused.embed_documents(TEXTS[:1])
        refused.close()


def test_a_server_with_small_batches_is_learnt(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    server.max_inputs = 5
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    before = len(server.asked)
    embedder.embed_documents(TEXTS)
    assert len(server.asked) - before == len(TEXTS) / 4  # 16 → 8 → 4, and 4 from now on


def test_a_text_that_is_too_long_is_named_and_the_others_are_kept(server: OpenAIServer) -> None:
    server.max_input_characters = 400
    cached = CachedEmbedder(HTTPEmbedder("small", options(server)))
    texts = [*TEXTS, "too long " * 100, *(f"after {text}" for text in TEXTS)]
    with pytest.raises(EndpointError, match=f"text {len(TEXTS) + 1} of {len(texts)}.*too long.*maximum context length"):
        cached.embed_documents(texts)
    assert len(cached.cache) >= len(TEXTS)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_text_without_a_vector_is_named_and_its_neighbours_are_bought_once(
    server: OpenAIServer, value: float
) -> None:
    server.embed = lambda text: [value] * 32 if text == "odd" else hashed_embedding(text, 32)
    cached = CachedEmbedder(HTTPEmbedder("small", options(server, concurrency=1, max_retries=5)))
    texts = [*TEXTS[:20], "odd", *TEXTS[20:32]]
    with pytest.raises(EndpointError, match=r"no vector for text 21 of 33.*'odd'.*gave"):
        cached.embed_documents(texts)
    assert len(cached.cache) == 31  # two whole batches but for the odd one; the third was not begun
    assert sum(text == "odd" for body in bodies(server) for text in body["input"]) == 4
    assert max(sum(body["input"].count(text) for body in bodies(server)) for text in TEXTS[:16]) == 1
    server.embed = None
    np.testing.assert_allclose(cached.embed_documents(texts), expected(texts), atol=1e-6)


def test_an_empty_text_is_refused_before_anything_is_sent(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    with pytest.raises(InputError, match="text 2 of 2 is empty"):
        embedder.embed_documents(["full", ""])
    assert not server.asked


def test_what_was_paid_for_before_the_account_was_empty_is_kept(server: OpenAIServer) -> None:
    def answered() -> int:
        return sum(len(asked.body["input"]) for asked in server.asked if not asked.fault)

    server.delay = 0.02
    server.fail("slow", times=3, slow_seconds=0.0)  # the dimension is asked for first, then two batches are served
    server.fail("quota", times=50)
    asked = options(server, concurrency=1, batch_texts=10)
    with pytest.raises(EndpointError, match="account is empty"):
        open_embedder("openai:small", asked).embed_documents(TEXTS)
    server._queued.clear()
    again = open_embedder("openai:small", asked)
    np.testing.assert_allclose(again.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert answered() == len(TEXTS) - 20
    requests = len(server.asked)
    again.embed_documents(TEXTS)
    open_embedder("openai:small", asked).embed_documents(TEXTS)
    assert len(server.asked) == requests  # neither another epoch nor another run asks again, not even for the dimension


def test_another_dimension_is_refused(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    embedder.embed_documents(TEXTS[:1])
    server.fail("dimension", times=20)
    with pytest.raises(EndpointError, match="33 dimensions, 32 before"):
        embedder.embed_documents(TEXTS[1:2])


def test_another_dimension_in_another_run_is_refused(server: OpenAIServer) -> None:
    open_embedder("openai:small", options(server)).embed_documents(TEXTS[:1])
    server.dim = 16
    with pytest.raises(ModelError, match="16 dimensions, 32"):
        open_embedder("openai:small", options(server)).embed_documents(TEXTS[1:2])


def test_dimensions_that_the_server_ignores_are_told(server: OpenAIServer) -> None:
    server.embed = lambda text: hashed_embedding(text, 32)
    embedder = HTTPEmbedder("small", options(server, dimensions=8))
    with pytest.raises(EndpointError, match="32 dimensions, 8 were asked for"):
        embedder.embed_queries(["a"])
    embedder.close()


def test_a_key_that_is_refused(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    server.key = "another"
    with pytest.raises(EndpointError, match="refused the key"):
        embedder.embed_queries(["a"])
    assert len(server.asked) == 1


def test_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        open_embedder("openai:small", EmbedOptions(base_url="https://api.example.com/v1"))


def test_a_model_that_the_server_does_not_know(server: OpenAIServer, embedder: HTTPEmbedder) -> None:
    server.models = frozenset({"large"})
    with pytest.raises(EndpointError, match="does not know the model 'small'"):
        embedder.embed_queries(["a"])


def test_nothing_at_the_address() -> None:
    embedder = HTTPEmbedder("small", EmbedOptions(base_url="http://127.0.0.1:9/v1", max_retries=1))
    with pytest.raises(EndpointError, match="cannot be reached"):
        embedder.embed_queries(["a"])
    embedder.close()


def test_the_fingerprint_holds_all_that_vectors_depend_on(server: OpenAIServer) -> None:
    kinds = [
        HTTPEmbedder("small", options(server)),
        HTTPEmbedder("large", options(server)),
        HTTPEmbedder("small", options(server, dimensions=8)),
        HTTPEmbedder("small", options(server, query_prompt="find: ")),
        HTTPEmbedder("small", options(server, query_fields={"input_type": "query"})),
    ]
    assert len({kind.fingerprint for kind in kinds}) == len(kinds)
    assert kinds[0].fingerprint == HTTPEmbedder("small", options(server, concurrency=1, timeout=9.0)).fingerprint
    elsewhere = HTTPEmbedder("small", EmbedOptions(base_url="http://localhost:1/v1"))
    assert elsewhere.fingerprint == kinds[0].fingerprint
    assert elsewhere.cache_key != kinds[0].cache_key


def test_it_works_inside_a_running_loop(embedder: HTTPEmbedder) -> None:
    import asyncio

    async def notebook() -> np.ndarray:
        return embedder.embed_queries(["a river"])

    np.testing.assert_allclose(asyncio.run(notebook()), expected(["a river"]), atol=1e-6)
