"""The Batch API: resumable by its id, failed lines sent again, half the price."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vectune.errors import EndpointError, UsageError
from vectune.queries.answers import Answers
from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.queries.pricing import price_table
from vectune.records import Chunk
from vectune.testing import OpenAIServer

CHUNKS = [Chunk(f"Machine number {n} drains its water through the filter behind door {n}.") for n in range(12)]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def writer(server: OpenAIServer, **options: Any) -> LLMWriter:
    return LLMWriter("gpt-4o-mini", LLMOptions(base_url=server.base_url, batch=True, batch_poll=0.02, **options))


def written(one: LLMWriter) -> dict[str, int]:
    return dict(Counter(query.chunk_ids[0] for query in one.write(CHUNKS)))


ALL = {chunk.id: 2 for chunk in CHUNKS}


def test_all_in_one_batch_at_half_the_price(server: OpenAIServer) -> None:
    server.batch_seconds = 0.1
    one = writer(server)
    estimate = one.estimate(CHUNKS)
    dearer = LLMWriter("gpt-4o-mini", LLMOptions(base_url=server.base_url)).estimate(CHUNKS)
    assert estimate.money is not None and dearer.money == pytest.approx(2 * estimate.money)
    assert written(one) == ALL
    assert server.count() == 0 and sum(ask.path == "/v1/batches" and bool(ask.body) for ask in server.asked) == 1
    assert one.usage.answers == 12 and one.usage.money == pytest.approx(estimate.money, rel=0.5)


def test_failed_lines_go_again(server: OpenAIServer) -> None:
    server.rates = {"500": 0.3, "nonsense": 0.1}
    one = writer(server)
    found = written(one)
    assert len(found) + len(one.failures) == 12
    server.rates = {}
    again = writer(server)
    assert written(again) == ALL
    assert again.usage.answers == len(one.failures)


def test_answers_in_parts_are_answers(server: OpenAIServer) -> None:
    server.rates = {"parts": 1.0}
    assert written(writer(server)) == ALL
    assert len(server._batches) == 1


class Killed(BaseException):
    pass


def kill_while_waiting(one: LLMWriter) -> None:
    waits = iter(range(2))

    def stop(_: float) -> None:
        if next(waits, None) is None:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vectune.queries.batch.time.sleep", stop)
        with pytest.raises(Killed):
            written(one)


@pytest.mark.parametrize("field", ["max_tokens", "response_format"])
def test_what_the_model_refuses_is_left_out_of_the_next_batch(server: OpenAIServer, field: str) -> None:
    words = {"max_tokens": "Use 'max_completion_tokens' instead.", "response_format": "Unknown parameter."}
    server.refuses = lambda body: (400, words[field]) if field in body else None
    one = writer(server, max_tokens=2000)
    assert written(one) == ALL and not one.failures


def test_killed_run_finds_its_batch(server: OpenAIServer, own_cache: Path) -> None:
    server.batch_seconds = 1e9
    kill_while_waiting(writer(server))
    for batch in server._batches.values():
        batch["ready"] = 0.0
    again = writer(server)
    assert written(again) == ALL
    assert len(server._batches) == 1 and again.usage.requests == 0


def damage(lines: list[bytes]) -> list[bytes]:
    """Two lines cut in the middle, one before and one after the name of its request; one without a text; one more."""
    odd = json.loads(lines[2])
    odd["response"]["body"]["choices"][0]["message"]["content"] = 7
    return [lines[0][:12], lines[1][:120], json.dumps(odd).encode(), *lines[3:], b"[1]"]


@pytest.mark.parametrize("batch", [True, False])
def test_lines_that_cannot_be_read_are_paid_for_and_asked_again(server: OpenAIServer, batch: bool) -> None:
    server.batch_seconds = 1e9
    kill_while_waiting(writer(server))
    server._run_batch(server._batches["batch_1"])
    output = server._batches["batch_1"]["output_file_id"]
    server._files[output] = b"\n".join(damage(server._files[output].splitlines()))
    server.batch_seconds = 0.0
    one = writer(server) if batch else LLMWriter("gpt-4o-mini", LLMOptions(base_url=server.base_url))
    assert written(one) == ALL
    assert (one.usage.requests, one.usage.answers) == (3, 12)
    price = price_table().of("gpt-4o-mini", batch)
    assert price is not None and one.usage.money is not None
    if batch:
        assert one.usage.money > price.of(one.usage.tokens_in, one.usage.tokens_out)
    assert written(one) == ALL and one.cached == 12


def test_damaged_lines_alone_are_failures_that_are_named() -> None:
    class Damaging(OpenAIServer):
        def _run_batch(self, batch: dict[str, Any]) -> None:
            super()._run_batch(batch)
            lines = self._files[batch["output_file_id"]].splitlines()
            self._files[batch["output_file_id"]] = b"\n".join(line[:120] for line in lines)

    with Damaging() as broken, pytest.raises(EndpointError, match=r"all 12 requests failed.*no answer in the answer"):
        written(writer(broken))


def test_asking_directly_collects_an_open_batch_and_never_asks_again_what_it_holds(server: OpenAIServer) -> None:
    server.batch_seconds = 1e9
    kill_while_waiting(writer(server))
    direct = LLMWriter("gpt-4o-mini", LLMOptions(base_url=server.base_url))
    with pytest.raises(UsageError, match="12 of these requests are still under way in the batch batch_1"):
        written(direct)
    assert server.count() == 0
    for batch in server._batches.values():
        batch["ready"] = 0.0
    assert written(direct) == ALL
    assert server.count() == 0 and direct.usage.answers == 12
    halves = writer(server).estimate([Chunk("Another machine, with another filter and a door.")]).money
    assert halves is not None and direct.usage.money == pytest.approx(12 * halves, rel=0.5)


def test_asking_directly_goes_on_where_a_batch_left_something(server: OpenAIServer) -> None:
    server.batch_seconds = 1e9
    kill_while_waiting(writer(server))
    server.fail("500", times=4)
    server._run_batch(server._batches["batch_1"])
    assert written(LLMWriter("gpt-4o-mini", LLMOptions(base_url=server.base_url))) == ALL
    assert server.count() == 4


@pytest.mark.parametrize("ended", [False, True])
def test_batch_whose_id_was_lost_is_recognized(server: OpenAIServer, own_cache: Path, ended: bool) -> None:
    server.batch_seconds = 0.2
    with Answers() as answers:
        path = answers.path
    first = writer(server)
    generator = first.write(CHUNKS)
    lost: list[str] = []

    def forget(self: Answers, batch: str, *rest: object) -> None:
        lost.append(batch)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answers, "add_batch", forget)
        with pytest.raises(KeyboardInterrupt):
            next(generator)
    assert path.exists() and len(lost) == 1
    if ended:
        server._run_batch(server._batches[lost[0]])
    assert written(writer(server)) == ALL
    assert len(server._batches) == 1


def test_batch_whose_output_is_deleted_is_sent_again(server: OpenAIServer) -> None:
    server.batch_seconds = 1e9
    kill_while_waiting(writer(server))
    server._run_batch(server._batches["batch_1"])
    del server._files[server._batches["batch_1"]["output_file_id"]]
    server.batch_seconds = 0.0
    assert written(writer(server)) == ALL


def test_forgotten_batch_is_sent_again(server: OpenAIServer) -> None:
    with Answers() as answers:
        answers.add_batch("batch_gone", server.base_url, "gpt-4o-mini", ["a"])
    assert written(writer(server)) == ALL


def test_budget(server: OpenAIServer) -> None:
    whole = writer(server).estimate(CHUNKS).money
    assert whole is not None
    one = writer(server, budget=whole)
    found = written(one)
    assert 3 <= len(found) < 12 and "budget" in one.stopped
    assert one.usage.money is not None and one.usage.money <= whole


def test_answers_without_a_query_are_asked_again_within_the_budget_only(server: OpenAIServer) -> None:
    server.chat = lambda body: "I am sorry. " * 300
    whole = writer(server).estimate(CHUNKS).money
    assert whole is not None
    one = writer(server, budget=3 * whole)
    assert not written(one)
    assert len(server._batches) == 1 and "budget" in one.stopped
    assert len(one.failures) == 12 and "holds no query" in one.failures[0].reason


def test_server_without_batches(server: OpenAIServer) -> None:
    server.key = "other"
    with pytest.raises(EndpointError, match="the batch failed"):
        written(writer(server))
