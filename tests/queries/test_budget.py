"""Money: what is set aside, spent, lost on the way, and foretold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asked import by_chunk, chunks, writer
from vectune.errors import EndpointError, UsageError
from vectune.progress import Progress
from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.testing import OpenAIServer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def test_budget_is_a_limit_and_the_rest_comes_later(server: OpenAIServer) -> None:
    whole = writer(server).estimate(chunks(60))
    assert whole.money is not None
    one = writer(server, budget=whole.money / 2)
    written = list(one.write(chunks(60)))
    assert one.usage.money is not None and 0 < one.usage.money <= whole.money / 2
    assert "budget" in one.stopped and not one.failures
    asked = server.count()
    assert 10 <= asked < 60 and len(by_chunk(written)) == asked
    assert len(by_chunk(list(writer(server).write(chunks(60))))) == 60
    assert server.count() == 60


def test_budget_holds_for_a_model_that_thinks(server: OpenAIServer) -> None:
    server.thinking, server.delay = 1500, 0.05
    one = writer(server, "gpt-5", budget=0.25, concurrency=16)  # an answer costs $0.0155
    written = list(one.write(chunks(60)))
    assert one.usage.money is not None and 0.2 < one.usage.money <= 0.25
    assert "budget" in one.stopped and not one.failures
    assert len(by_chunk(written)) == one.usage.answers == server.count()
    assert server.most_in_flight > 4


def test_repetitions_are_within_the_budget(server: OpenAIServer) -> None:
    server.chat = lambda body: "I am sorry. " * 300
    one = writer(server, "gpt-5", budget=0.012, concurrency=1)  # an answer costs $0.0094, twice its limit $0.0188
    assert not list(one.write(chunks(60)))
    assert server.count() == 1 and "budget" in one.stopped
    assert len(one.failures) == 1 and "holds no query" in one.failures[0].reason


@pytest.mark.parametrize("fault", ["hung", "malformed", "cut", "disconnect", "error200", "504"])
def test_what_is_lost_on_the_way_is_paid_for(server: OpenAIServer, fault: str) -> None:
    list(writer(server).write(chunks(1)))
    whole = writer(server).estimate(chunks(12)).money
    assert whole is not None
    server.fail(fault, times=1000)
    one = writer(server, timeout=0.3, attempts=6, budget=whole / 2, concurrency=4)
    assert len(by_chunk(list(one.write(chunks(12))))) == 1
    assert one.usage.money is not None and 0.2 * whole < one.usage.money <= whole / 2
    assert "budget" in one.stopped and server.count() < 8


def test_what_breaks_off_from_the_start_is_paid_for_and_not_called_unreachable(server: OpenAIServer) -> None:
    whole = writer(server).estimate(chunks(12)).money
    server.fail("cut", times=1000)
    one = writer(server, attempts=4, budget=whole)
    with pytest.raises(EndpointError, match="broke before the answer was here"):
        list(one.write(chunks(12)))
    assert one.usage.money is not None and "budget" in one.stopped and server.count() <= 12


def test_budget_needs_a_price(server: OpenAIServer, tmp_path: Path) -> None:
    options = LLMOptions(base_url="https://llm.example.com/v1", budget=1.0)
    with pytest.raises(UsageError, match="needs the price of 'house-model'"):
        LLMWriter("house-model", options)
    prices = tmp_path / "prices.toml"
    prices.write_text('[models]\n"house-model" = { input = 1.0, output = 2.0 }\n')
    LLMWriter("house-model", replace(options, prices=str(prices)))


def test_a_budget_that_limits_nothing_is_said(server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    options = LLMOptions(base_url=server.base_url, budget=0.01)
    assert len(list(LLMWriter("house-model", options, progress=Progress()).write(chunks(2)))) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "the budget limits nothing" in said and "'house-model' has no price" in said


def test_estimate_sends_nothing_and_is_near(server: OpenAIServer) -> None:
    one = writer(server)
    estimate = one.estimate(chunks(40))
    assert (estimate.chunks, estimate.requests, estimate.cached, server.count()) == (40, 40, 0, 0)
    list(one.write(chunks(40)))
    assert one.usage.money is not None and estimate.money is not None
    assert 0.5 < one.usage.money / estimate.money < 2
    after = one.estimate(chunks(50))
    assert (after.requests, after.cached, after.measured) == (10, 40, True)
