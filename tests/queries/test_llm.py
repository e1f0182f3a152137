"""The LLM writer against a real local server, well-behaved and not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from asked import by_chunk, chunks, writer
from vectune.errors import EndpointError, InputError, UsageError
from vectune.progress import Progress
from vectune.protocols import QueryWriter
from vectune.queries.answers import Answers
from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.records import Chunk
from vectune.testing import OpenAIServer, queries_answer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def test_every_chunk_gets_its_queries(server: OpenAIServer) -> None:
    corpus = chunks(12)
    server.delay = 0.1  # long enough for requests to overlap
    one = writer(server)
    written = list(one.write(corpus))
    assert isinstance(one, QueryWriter)
    assert by_chunk(written) == {chunk.id: 2 for chunk in corpus}
    assert {query.query.writer for query in written} == {"llm:gpt-4o-mini"}
    assert {query.query.style for query in written} <= {"question", "keywords", "problem", "claim"}
    assert one.usage.requests == server.count() == 12
    assert one.usage.money is not None and one.usage.money > 0
    assert 1 < server.most_in_flight <= 4


def test_second_run_asks_nothing_and_a_changed_corpus_only_what_is_new(server: OpenAIServer) -> None:
    first = {one.query.id for one in writer(server).write(chunks(6))}
    again = writer(server)
    assert {one.query.id for one in again.write(chunks(6))} == first
    assert (again.cached, again.usage.requests, server.count()) == (6, 0, 6)
    grown = writer(server)
    assert len(by_chunk(list(grown.write(chunks(8, first=2))))) == 8
    assert (grown.cached, server.count()) == (4, 10)


def test_what_is_sent_is_the_key(server: OpenAIServer, tmp_path: Path) -> None:
    examples = tmp_path / "log.txt"
    examples.write_text("wm7 wont drain\nfilter stuck help\n")
    for changed in ({}, {"queries": 3}, {"difficulty": "hard"}, {"temperature": 0.5}, {"examples": str(examples)}):
        before = server.count()
        list(writer(server, **changed).write(chunks(3)))
        assert server.count() == before + 3, changed
    list(writer(server, model="gpt-4o").write(chunks(3)))
    assert server.count() == 18
    assert len({writer(server, queries=n).fingerprint for n in (1, 2, 3)}) == 3


def test_a_model_without_a_price_is_another_one_behind_another_local_server(server: OpenAIServer) -> None:
    with OpenAIServer(chat=lambda body: '["the second model writes this", "and this"]') as other:
        for model, sent in (("default", 2), ("gpt-4o-mini", 0)):
            assert len(list(writer(server, model).write(chunks(2)))) == 4
            asked = other.count()
            again = writer(other, model)
            assert len(list(again.write(chunks(2)))) == 4
            assert (other.count() - asked, again.cached) == (sent, 2 - sent), model


@pytest.mark.parametrize("address", [None, "https://llm.example.com/v1", "http://localhost:4000/v1"])
def test_the_keys_of_what_was_paid_for_stay(address: str | None) -> None:
    asks = LLMWriter("gpt-4o-mini", LLMOptions(base_url=address))._planner.plan(chunks(1))
    assert list(asks) == ["d13022bf547aa61bb52f552664905c2a142b899a2efc74d8493e92fa31c5f3eb"]  # as of version 0.1.0


def test_the_fingerprint_knows_the_local_server_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for port in (8000, 8001):
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://localhost:{port}/v1")
        seen.add(LLMWriter("default").fingerprint)
    assert len(seen) == 2


def test_the_fingerprint_is_of_what_the_files_hold(server: OpenAIServer, tmp_path: Path) -> None:
    files = {"prompt": tmp_path / "a.md", "prompt_two": tmp_path / "b.md", "examples": tmp_path / "log.txt"}
    seen = set()
    for change in ("", *files):
        for name, path in files.items():
            more = "again" if name == change else ""
            path.write_text(f"\ufeffShort {{text}} {more}" if name != "examples" else f"wm7 wont drain {more}")
        one = writer(server, **{name: str(path) for name, path in files.items()})
        seen.add(one.fingerprint)
        list(one.write(chunks(1)))
        assert server.asked[-1].body["messages"][0]["content"].startswith("Short Machine")
    assert len(seen) == 4


def test_equal_chunks_share_a_request(server: OpenAIServer) -> None:
    text = "The same words stand in two documents of this folder."
    twins = [Chunk(text, document_id="a"), Chunk(text, document_id="b")]
    written = list(writer(server).write(twins))
    assert server.count() == 1
    assert [one.chunk_ids for one in written] == [(twins[0].id, twins[1].id)] * 2


def test_two_chunk_queries(server: OpenAIServer) -> None:
    corpus = chunks(10)
    written = list(writer(server, two_chunks=1.0).write(corpus))
    pairs = [one for one in written if len(one.chunk_ids) == 2]
    documents = {chunk.id: chunk.document_id for chunk in corpus}
    assert len(pairs) == 8  # every chunk but the last of each of the two documents
    assert all(documents[first] == documents[second] for first, second in (one.chunk_ids for one in pairs))
    asked = [body for body in (ask.body["messages"][0]["content"] for ask in server.asked) if "two texts" in body]
    assert len(asked) == 8 and all(body.count("</text>") == 2 for body in asked)


def test_message_holds_persona_examples_language_and_never_a_placeholder(server: OpenAIServer, tmp_path: Path) -> None:
    examples = tmp_path / "log.txt"
    examples.write_text("wm7 wont drain\n\nwm7 wont drain\n")
    text = "Die Pumpe der Maschine ist hinter der Klappe und wird mit einem Schlüssel geöffnet. {persona} {text}"
    list(writer(server, examples=str(examples), personas=("a plumber",)).write([Chunk(text)]))
    message = server.asked[0].body["messages"][0]["content"]
    assert "- wm7 wont drain" in message and message.count("wm7") == 1
    assert "a plumber" in message and "Write in German" in message
    assert text in message  # braces of a document are no placeholders
    assert "## Styles" not in message and "{count}" not in message


def test_own_prompt_file(server: OpenAIServer, tmp_path: Path) -> None:
    prompt = tmp_path / "own.md"
    prompt.write_text("Write {count} riddles:\n{queries}\n{text}\n\n## Styles\n- riddle: a riddle in verse\n")
    written = list(writer(server, prompt=str(prompt), styles=("riddle",)).write(chunks(1)))
    assert server.asked[0].body["messages"][0]["content"].startswith("Write 2 riddles:\n1. riddle: a riddle in verse")
    assert [one.query.style for one in written] == ["riddle", "riddle"]


@pytest.mark.parametrize(
    "kind", ["429", "500", "503", "html", "504", "malformed", "cut", "error200", "disconnect", "empty", "nonsense"]
)
def test_one_fault_is_survived(server: OpenAIServer, kind: str) -> None:
    server.fail(kind)
    one = writer(server)
    assert by_chunk(list(one.write(chunks(2)))) == {chunk.id: 2 for chunk in chunks(2)}
    assert one.usage.requests == 3 and not one.failures


def test_half_a_surrogate_pair_in_an_answer_ends_nothing(server: OpenAIServer) -> None:
    server.chat = lambda body: queries_answer(body) + "\n3. how does \ud83d work?"
    assert by_chunk(list(writer(server, structured=False, queries=3).write(chunks(4)))) == {
        chunk.id: 3 for chunk in chunks(4)
    }


def test_half_a_surrogate_pair_in_a_chunk_is_replaced(server: OpenAIServer) -> None:
    chunk = Chunk("Half of a pair, \ud83d, stands in this text about a machine.")
    one = writer(server)
    assert by_chunk(list(one.write([chunk]))) == {chunk.id: 2}
    assert server.count() == one.usage.requests == 1
    assert "Half of a pair, \ufffd, stands" in server.asked[0].body["messages"][0]["content"]


def test_hung_connection_is_left(server: OpenAIServer) -> None:
    server.fail("hung")
    assert len(list(writer(server, timeout=0.3).write(chunks(1)))) == 2


class Dripping(BaseHTTPRequestHandler):
    """Sends a blank now and then, and never the answer."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)

    def log_message(self, *_: object) -> None: ...


def test_a_dripping_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio, "timeout", raising=False)  # as on Python 3.10
    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as dripping:
        dripping.daemon_threads = True
        threading.Thread(target=dripping.serve_forever, daemon=True).start()
        options = LLMOptions(base_url=f"http://127.0.0.1:{dripping.server_port}/v1", timeout=0.5, attempts=2)
        with pytest.raises(EndpointError, match=r"no answer within 0\.5 s"):
            list(LLMWriter("m", options).write(chunks(1)))
        dripping.shutdown()


def test_truncated_answer_gives_whole_queries(server: OpenAIServer) -> None:
    server.fail("truncated")
    written = list(writer(server, queries=4).write(chunks(1)))
    assert 1 <= len(written) < 4
    assert all(one.query.text.endswith("?") for one in written)


def test_retry_after_is_kept(server: OpenAIServer) -> None:
    server.fail("429", retry_after=0.7)
    list(writer(server).write(chunks(1)))
    assert server.asked[1].time - server.asked[0].time >= 0.7


def test_a_server_that_names_no_time_to_wait_is_given_some(server: OpenAIServer) -> None:
    server.fail("429", times=2, retry_after=0)
    list(writer(server).write(chunks(1)))
    first, second, third = (ask.time for ask in server.asked)
    assert second - first >= 0.25 and third - second >= 0.5


def test_more_patience_with_429_than_with_failures(server: OpenAIServer) -> None:
    server.fail("429", times=2, retry_after=0.01)
    one = writer(server, attempts=1)
    assert len(list(one.write(chunks(1)))) == 2
    assert server.count() == 3


def test_failed_chunks_are_told_and_asked_again_next_time(server: OpenAIServer) -> None:
    one = writer(server, concurrency=1)
    first, second = chunks(2)
    order = sorted(one._planner.plan([first, second]).values(), key=lambda ask: ask.key)
    server.fail("nonsense", times=3)  # the first ask and its two repetitions
    written = list(one.write([first, second]))
    assert list(by_chunk(written)) == [order[1].chunk_ids[0]]
    assert [failure.chunk_ids for failure in one.failures] == [order[0].chunk_ids]
    assert "holds no query" in one.failures[0].reason
    again = writer(server)
    assert by_chunk(list(again.write([first, second]))) == {first.id: 2, second.id: 2}
    assert again.usage.requests == 1 and not again.failures


def test_all_failed_is_an_error(server: OpenAIServer) -> None:
    server.fail("500", times=100)
    with pytest.raises(EndpointError, match=r"all 2 requests failed.*500"):
        list(writer(server, attempts=1).write(chunks(2)))


def test_dead_server_stops_a_long_run(server: OpenAIServer) -> None:
    list(writer(server).write(chunks(5)))
    server.fail("500", times=1000)
    one = writer(server, attempts=1)
    assert len(by_chunk(list(one.write(chunks(200))))) == 5
    assert "in a row failed" in one.stopped
    assert server.count() < 60


def test_refused_key(server: OpenAIServer) -> None:
    server.key = "right"
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:\d+/v1 refused the key"):
        list(writer(server).write(chunks(50)))
    assert server.count() <= 4
    assert list(LLMWriter("m", LLMOptions(base_url=server.base_url), key="right").write(chunks(1)))


def refusing(server: OpenAIServer, status: int, words: str, corpus: list[Chunk]) -> Chunk:
    """Have the server refuse a chunk, not the first that is asked for; returns the chunk."""
    order = sorted(writer(server)._planner.plan(corpus).values(), key=lambda ask: ask.key)
    chunk = next(chunk for chunk in corpus if chunk.id == order[1].chunk_ids[0])
    server.refuses = lambda body: (status, words) if chunk.text in body["messages"][0]["content"] else None
    return chunk


def test_a_403_for_one_chunk_is_that_chunks(server: OpenAIServer) -> None:
    chunk = refusing(server, 403, "Forbidden for reasons of state.", chunks(8))
    one = writer(server, concurrency=1)
    assert len(by_chunk(list(one.write(chunks(8))))) == 7
    assert [failure.chunk_ids for failure in one.failures] == [(chunk.id,)] and server.count() == 8


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Your chosen model requires moderation and your input was flagged for violence", "all 1 requests failed"),
        ("Your account has no access to this model.", "refused the key"),
    ],
)
def test_a_403_before_any_answer_is_the_keys_unless_it_speaks_of_the_text(
    server: OpenAIServer, words: str, error: str
) -> None:
    server.refuses = lambda body: (403, words)
    with pytest.raises(EndpointError, match=error):
        list(writer(server).write(chunks(1)))


def test_what_is_under_way_when_an_error_ends_the_run_is_kept(server: OpenAIServer) -> None:
    server.fail("slow", times=3, slow_seconds=0.5).fail("quota")
    one = writer(server, concurrency=4)
    with pytest.raises(EndpointError, match="account is empty"):
        list(one.write(chunks(60)))
    assert (server.count(), one.usage.answers, writer(server).estimate(chunks(60)).cached) == (4, 3, 3)


def test_what_fails_after_an_error_ended_the_run_is_not_sent_again(server: OpenAIServer) -> None:
    server.fail("hung", times=3).fail("quota")
    with pytest.raises(EndpointError, match="account is empty"):
        list(writer(server, concurrency=4, timeout=0.5).write(chunks(60)))
    assert server.count() == 4


def test_unknown_model(server: OpenAIServer) -> None:
    server.models = frozenset({"other"})
    with pytest.raises(EndpointError, match="does not know the model 'gpt-4o-mini'"):
        list(writer(server).write(chunks(50)))
    assert server.count() <= 4


def test_empty_account_stops_at_once(server: OpenAIServer) -> None:
    server.fail("quota", times=100)
    with pytest.raises(EndpointError, match="account is empty"):
        list(writer(server).write(chunks(50)))
    assert server.count() <= 4


def test_an_error_on_a_slow_disk_loses_no_answer(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Answers.put

    def slow_put(self: Answers, *what: Any) -> None:
        time.sleep(0.5)
        put(self, *what)

    server.fail("slow", times=29, slow_seconds=0.0).fail("quota")  # that is, the thirtieth
    one = writer(server, concurrency=30)
    with monkeypatch.context() as patch:
        patch.setattr(Answers, "put", slow_put)
        with pytest.raises(EndpointError, match="account is empty"):
            list(one.write(chunks(60)))
    again = writer(server)
    assert again.estimate(chunks(60)).cached == one.usage.answers > 1


def test_a_server_that_takes_no_connection_is_named_and_costs_nothing() -> None:
    full = [socket.socket() for _ in range(5)]
    full[0].bind(("127.0.0.1", 0))
    full[0].listen(0)
    for other in full[1:]:  # fill its queue, and the kernel leaves further connections without an answer
        other.setblocking(False)
        other.connect_ex(full[0].getsockname())
    address = f"http://127.0.0.1:{full[0].getsockname()[1]}/v1"
    options = LLMOptions(base_url=address, timeout=1.0, attempts=2, budget=1.0)
    one = LLMWriter("gpt-4o-mini", options, key="k")
    with pytest.raises(EndpointError, match="cannot be reached"):
        list(one.write(chunks(3)))
    assert not one.usage.money
    for each in full:
        each.close()


def test_nobody_listens() -> None:
    with pytest.raises(EndpointError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        list(LLMWriter("m", LLMOptions(base_url="http://127.0.0.1:9/v1", attempts=1)).write(chunks(3)))


def test_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        list(LLMWriter("gpt-4o-mini").write(chunks(1)))


def test_server_without_structured_output(server: OpenAIServer) -> None:
    server.json_schema = False
    one = writer(server)
    assert by_chunk(list(one.write(chunks(10)))) == {chunk.id: 2 for chunk in chunks(10)}
    assert sum("response_format" not in ask.body for ask in server.asked) == 10  # none is asked twice without it
    assert one.usage.requests <= 14


def test_a_chunk_that_fits_no_schema_leaves_it_to_the_others(server: OpenAIServer) -> None:
    odd = chunks(8)[4].text

    def refuses(body: dict[str, Any]) -> tuple[int, str] | None:
        schema = "response_format" in body and odd in body["messages"][0]["content"]
        return (400, "The generated JSON did not match the json_schema.") if schema else None

    server.refuses = refuses
    assert by_chunk(list(writer(server, concurrency=1).write(chunks(8)))) == {chunk.id: 2 for chunk in chunks(8)}
    assert sum("response_format" not in ask.body for ask in server.asked) == 1


def test_server_that_refuses_structured_output_without_naming_it(server: OpenAIServer) -> None:
    server.refuses = lambda body: (400, "Bad request.") if "response_format" in body else None
    assert by_chunk(list(writer(server, concurrency=1).write(chunks(8)))) == {chunk.id: 2 for chunk in chunks(8)}
    assert server.count() == 9


def test_an_option_that_the_model_does_not_take_ends_the_run_and_is_named(server: OpenAIServer) -> None:
    words = "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) is supported."
    server.refuses = lambda body: (400, words) if "temperature" in body else None
    with pytest.raises(EndpointError, match=r"does not take temperature = 0.2: Unsupported") as raised:
        list(writer(server, concurrency=1, temperature=0.2).write(chunks(8)))
    assert "Leave llm_queries.temperature out" in raised.value.hint
    assert server.count() == 1


@pytest.mark.parametrize(
    "words",
    [
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "request (5310 tokens) exceeds the available context size (4096 tokens), try increasing it",
    ],
)
def test_one_refused_chunk_leaves_structured_output_to_the_others(server: OpenAIServer, words: str) -> None:
    chunk = refusing(server, 400, words, chunks(8))
    one = writer(server, concurrency=1)
    assert len(by_chunk(list(one.write(chunks(8))))) == 7
    assert [failure.chunk_ids for failure in one.failures] == [(chunk.id,)]
    assert sum("response_format" in ask.body for ask in server.asked) == 8


def test_chunk_too_long_for_the_server_is_one_failure(server: OpenAIServer) -> None:
    server.max_input_characters = 4000
    long = Chunk("long " * 900, document_id="long")
    one = writer(server)
    assert len(by_chunk(list(one.write([*chunks(3), long])))) == 3
    assert [failure.chunk_ids for failure in one.failures] == [(long.id,)]
    assert server.count() == 4


def test_an_answer_in_parts_is_an_answer(server: OpenAIServer) -> None:
    server.fail("parts", times=4)
    assert by_chunk(list(writer(server).write(chunks(4)))) == {chunk.id: 2 for chunk in chunks(4)}
    assert server.count() == 4


def test_pace(server: OpenAIServer) -> None:
    list(writer(server).write(chunks(1, first=6)))  # so that the client is loaded
    list(writer(server, requests_per_minute=600).write(chunks(6)))
    times = sorted(ask.time for ask in server.asked[1:])
    assert times[-1] - times[0] >= 0.3  # five gaps of a tenth of a second


def test_leaving_early_keeps_what_came(server: OpenAIServer) -> None:
    generator = writer(server, concurrency=1).write(chunks(20))
    assert isinstance(generator, Generator)
    got = [next(generator) for _ in range(4)]
    generator.close()
    asked = server.count()
    assert len(got) == 4 and asked < 20
    again = writer(server)
    assert len(by_chunk(list(again.write(chunks(20))))) == 20
    assert again.cached >= 2


def test_failures_are_warned_of(server: OpenAIServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    list(writer(server).write(chunks(1)))
    server.fail("nonsense", times=3)
    events = tmp_path / "events.jsonl"
    options = LLMOptions(base_url=server.base_url, concurrency=1)
    list(LLMWriter("gpt-4o-mini", options, progress=Progress(events, terminal=False)).write(chunks(3)))
    assert "1 of 3 requests failed" in capsys.readouterr().err
    done = [json.loads(line) for line in events.read_text().splitlines()]
    assert next(line for line in done if line["kind"] == "queries")["failed"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"styles": ("question", "haiku")}, "no style 'haiku'"),
        ({"styles": ("question:many",)}, "not a number"),
        ({"styles": ("question:0",)}, "mix of styles is empty"),
        ({"difficulty": "evil"}, "no difficulty 'evil'"),
        ({"queries": 0}, "at least 1"),
    ],
)
def test_senseless_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LLMWriter("m", LLMOptions(**options))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no place for the chunk", "has no {text}"),
        ("{text}\n{txet}", r"line 2: nothing fills the placeholder '\{txet\}'"),
    ],
)
def test_broken_prompt_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.md").write_text(text)
    with pytest.raises(InputError, match=words):
        LLMWriter("m", LLMOptions(prompt=str(tmp_path / "own.md")))


def test_missing_files(tmp_path: Path) -> None:
    for options in ({"prompt": "nowhere.md"}, {"examples": "nowhere.txt"}, {"prices": "nowhere.toml"}):
        with pytest.raises(InputError, match=r"nowhere\.\w+: "):
            LLMWriter("m", LLMOptions(**options))  # type: ignore[arg-type]


PROGRAM = """
import sys
from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.records import Chunk
sys.path.insert(0, {tests!r})
from asked import chunks
options = LLMOptions(base_url={url!r}, concurrency=8, timeout=1.0, attempts=8)
for one in LLMWriter("gpt-4o-mini", options).write(chunks({count})):
    print(one.query.text, *one.chunk_ids, sep="\\t", flush=True)
"""


def start(server: OpenAIServer, count: int) -> subprocess.Popen[str]:
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]), url=server.base_url, count=count)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_three_sigkills_and_faults_lose_and_double_nothing(server: OpenAIServer) -> None:
    """Every chunk ends with its queries exactly once; paid for twice is at most what was under way at each kill."""
    count = 120
    server.delay = 0.05
    server.retry_after = 0.05
    server.rates = {"429": 0.05, "500": 0.02, "malformed": 0.02, "hung": 0.01}
    for kill in range(3):
        process = start(server, count)
        while sum(server.answered.values()) < (kill + 1) * 25 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    out, _ = start(server, count).communicate(timeout=120)
    lines = out.splitlines()
    assert Counter(line.split("\t")[1] for line in lines) == {chunk.id: 2 for chunk in chunks(count)}
    assert sum(server.answered.values()) <= count + 3 * 8 + 4


def test_two_processes_share_the_work(server: OpenAIServer) -> None:
    server.delay = 0.1
    both = [start(server, 40), start(server, 40)]
    outs = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for lines in outs:
        assert Counter(line.split("\t")[1] for line in lines) == {chunk.id: 2 for chunk in chunks(40)}
    assert server.count() == 40  # nothing was paid for twice
