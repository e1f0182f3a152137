"""Queries written by an LLM behind any OpenAI-compatible server.

Nothing paid is lost: each answer is in a store on disk before the next request leaves, keyed by what was sent. Killed
and started again, or with a changed corpus, only what is new is asked for; what failed is tried again in the next run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from vectune.characters import whole
from vectune.errors import UsageError
from vectune.progress import SILENT, Progress
from vectune.queries.answers import Answer, Answers
from vectune.queries.asking import Asker, Job, Usage, give_up
from vectune.queries.batch import BatchAsker
from vectune.queries.endpoint import ChatEndpoint, Pace, Retries, api_key, is_local, queries_schema, server_address
from vectune.queries.parsing import parse_queries
from vectune.queries.planning import Ask, LLMOptions, Planner
from vectune.queries.pricing import CostEstimate, Price, count_tokens, price_table
from vectune.records import Chunk, Query, WrittenQuery

__all__ = ["Failure", "LLMOptions", "LLMWriter"]

_TOKENS_OF_QUERY, _TOKENS_OF_FRAME = 28, 12  # of an answer in JSON, until this model's own answers are known
_CAUTION = 1.5  # times the expected length of an answer is set aside from the budget until it came
_OTHERS_POLL = 0.5  # seconds between looks at what another process is asking


@dataclass(frozen=True)
class Failure:
    """A request that failed in this run; the next run tries it again."""

    chunk_ids: tuple[str, ...]
    reason: str


class LLMWriter:
    """Writes queries for chunks; see ``LLMOptions``.

    Args:
        model: the name the server knows.
        options: how to write and how to ask.
        key: the API key; None reads the environment variable that the options name. Never stored.
        store: the SQLite file with the answers; None is ``answers.sqlite`` in the cache folder.
        progress: where to report.

    After ``write``:

    Attributes:
        failures: requests that failed, with the reason. They are not fatal, unless all failed.
        stopped: why asking ended early (budget, server down); empty if it did not.
        usage: requests, tokens and money of the last ``write``.
        cached: requests of the last ``write`` that were answered from the store.

    Raises:
        UsageError: no key for a server that is not local, a budget without a known price, options that make no sense.
        InputError: a prompt, example or price file that cannot be used.
    """

    def __init__(
        self,
        model: str,
        options: LLMOptions | None = None,
        *,
        key: str | None = None,
        store: Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        options = options or LLMOptions()
        self.model = model.removeprefix("openai:")
        self.options = options
        self.address = server_address(options.base_url)
        self.failures: list[Failure] = []
        self.stopped = ""
        self.usage = Usage()
        self.cached = 0
        self._key = key
        self._store = store
        self._progress = progress
        self._price = self._price_of(options.batch)
        # A local server without a price has whatever model was loaded; a proxy of a paid one has models with prices.
        self._free = is_local(self.address) and self._price == Price(0.0, 0.0)
        self._planner = Planner(self.model, options, self.address if self._free else "")
        if options.budget is not None and self._price is None:
            hint = f'Write a price table with: [models]\n"{self.model}" = {{ input = 0.15, output = 0.6 }}'
            raise UsageError(f"A budget needs the price of '{self.model}', which the price table does not know.", hint)

    @property
    def name(self) -> str:
        return f"llm:{self.model}"

    @property
    def fingerprint(self) -> str:
        return self._planner.fingerprint

    def estimate(self, chunks: Sequence[Chunk]) -> CostEstimate:
        """What ``write`` would send for these chunks; sends nothing and needs no key."""
        asks = self._planner.plan(chunks)
        with self._open_store() as answers:
            pending = [ask for ask, queries in self._stored(answers, list(asks.values())) if not queries]
            measured = answers.tokens_of_query(self.model)
        by_id = {chunk.id: chunk for chunk in chunks}
        tokens_in = sum(count_tokens(self._message(ask, by_id)) for ask in pending)
        tokens_out = sum(_expected_tokens(ask, measured) for ask in pending)
        money = self._price.of(tokens_in, tokens_out) if self._price else None
        return CostEstimate(
            len(chunks), len(asks) - len(pending), len(pending), tokens_in, round(tokens_out), money, bool(measured)
        )

    def write(self, chunks: Sequence[Chunk]) -> Iterator[WrittenQuery]:
        """Queries for these chunks: first those on disk, then new ones in the order their answers come.

        Raises:
            UsageError: no key for a server that is not local; a batch of an earlier run still works on these requests.
            EndpointError: the server refuses the key, does not know the model, cannot be reached, or every request
                failed. What was answered before is on disk.
        """
        self.failures, self.stopped, self.usage, self.cached = [], "", Usage(), 0
        key = api_key(self.address, self._key, self.options.key_variable)
        if self._free and self.options.budget is not None:
            self._progress.warn(
                f"the budget limits nothing: {self.address} is on this machine and '{self.model}' has no price, so it "
                "is taken to cost nothing. Give a price table (--prices) where it asks a paid service."
            )
        asks = self._planner.plan(chunks)
        by_id = {chunk.id: chunk for chunk in chunks}
        with self._open_store() as answers, self._progress.task("queries", len(asks), "requests") as task:
            pending = []
            for ask, queries in self._stored(answers, list(asks.values())):
                if queries:
                    task.advance()
                    yield from queries
                else:
                    pending.append(ask)
            self.cached = len(asks) - len(pending)
            # By key, which is a hash: a run that a budget stops early has asked all over the corpus.
            pending.sort(key=lambda ask: ask.key)
            for ask, answer in self._answered(answers, pending, by_id, key):
                task.advance(note=self._spent())
                yield from self._queries(ask, answer)
        self._report(len(asks))

    # Where answers come from

    def _open_store(self) -> Answers:
        return Answers(self._store)

    def _stored(self, answers: Answers, asks: Sequence[Ask]) -> Iterator[tuple[Ask, list[WrittenQuery]]]:
        """Each request with its queries on disk; an answer that no parser can read any more is forgotten."""
        for start in range(0, len(asks), 500):
            block = asks[start : start + 500]
            found = answers.get([ask.key for ask in block])
            read = [(ask, self._queries(ask, found[ask.key]) if ask.key in found else []) for ask in block]
            answers.forget([ask.key for ask, queries in read if ask.key in found and not queries])
            yield from read

    def _answered(
        self, answers: Answers, pending: list[Ask], chunks: Mapping[str, Chunk], key: str
    ) -> Iterator[tuple[Ask, Answer]]:
        """Ask what nobody asks yet, then wait for what another process is asking."""
        while pending and not self.stopped:
            got = answers.claim([ask.key for ask in pending])
            mine = [ask for ask in pending if ask.key in got]
            if mine:
                yield from self._ask(answers, mine, chunks, key)
                answers.release([ask.key for ask in mine])
            pending = [ask for ask in pending if ask.key not in got]
            if pending:
                found = answers.get([ask.key for ask in pending])
                yield from ((ask, found[ask.key]) for ask in pending if ask.key in found)
                pending = [ask for ask in pending if ask.key not in found]
                if pending and not mine:
                    time.sleep(_OTHERS_POLL)

    def _ask(
        self, answers: Answers, asks: list[Ask], chunks: Mapping[str, Chunk], key: str
    ) -> Iterator[tuple[Ask, Answer]]:
        job = self._job(asks, chunks, answers)
        batches = BatchAsker(
            self.model, self.address, key, answers, job, self._price_of(batch=True), self.options.budget,
            self.options.batch_poll, self._progress, self.usage,
        )  # fmt: skip
        source = batches if self.options.batch else self._asker(answers, job, key)
        if source is not batches and answers.batched([ask.key for ask in asks]):  # paid for by a run that was ended
            left = {ask.key: ask for ask in asks}
            for ask, answer in batches.collect(asks):
                del left[ask.key]
                yield ask, answer
            asks = list(left.values())
        try:
            yield from source.ask(asks)
        finally:
            self.stopped = source.stopped
            self.failures += [Failure(ask.chunk_ids, reason) for ask, reason in source.failed]
        if source.failed and not self.usage.answers and not self.cached:
            raise give_up(source.failed, self.address)

    def _asker(self, answers: Answers, job: Job, key: str) -> Asker:
        options = self.options
        pace = Pace(options.requests_per_minute, options.tokens_per_minute)
        endpoint = partial(
            ChatEndpoint, self.model, self.address, key, options.timeout, pace, Retries(options.attempts)
        )
        return Asker(endpoint, answers, job, options.concurrency, self._price, options.budget, self.usage)

    def _price_of(self, batch: bool) -> Price | None:
        known = price_table(self.options.prices).of(self.model, batch)
        return Price(0.0, 0.0) if known is None and is_local(self.address) else known

    def _job(self, asks: list[Ask], chunks: Mapping[str, Chunk], answers: Answers) -> Job:
        measured = answers.tokens_of_query(self.model)
        ceiling = self.options.max_tokens
        structured = self.options.structured
        return Job(
            message=lambda ask: self._message(ask, chunks),
            schema=lambda ask: queries_schema(len(ask.styles), ask.styles) if structured else None,
            settings=self.options.answer_settings(),
            usable=lambda answer: bool(parse_queries(answer.text, truncated=answer.truncated)),
            tokens_out=lambda ask: ceiling or _CAUTION * max(_expected_tokens(ask, measured), _expected_tokens(ask)),
        )

    # Requests and answers

    def _message(self, ask: Ask, chunks: Mapping[str, Chunk]) -> str:
        second = chunks[ask.second] if ask.second else None
        # Half a surrogate pair cannot be sent.
        return whole(self._planner.message(chunks[ask.chunk_ids[0]], second, ask.styles))

    def _queries(self, ask: Ask, answer: Answer) -> list[WrittenQuery]:
        parsed = parse_queries(answer.text, limit=len(ask.styles), truncated=answer.truncated)
        return [
            WrittenQuery(
                Query(query.text, query.style if query.style in ask.styles else style, self.name), ask.chunk_ids
            )
            for query, style in zip(parsed, ask.styles, strict=False)
        ]

    def _spent(self) -> str:
        return f"${self.usage.money:,.4f}" if self.usage.money else f"{self.usage.tokens_out:,} tokens out"

    def _report(self, asked: int) -> None:
        outcome = {"cached": self.cached, "failed": len(self.failures), "stopped": self.stopped}
        self._progress.event("queries", asked=asked, **outcome, **asdict(self.usage))
        if self.stopped:
            self._progress.warn(f"Asking stopped: {self.stopped}. Run the same command again to go on.")
        if self.failures:
            first = self.failures[0].reason
            self._progress.warn(
                f"{len(self.failures):,} of {asked:,} requests failed (the first one with: {first}); "
                "the next run tries them again."
            )


def _expected_tokens(ask: Ask, measured: float | None = None) -> float:
    if measured is not None:
        return measured * len(ask.styles)
    return _TOKENS_OF_FRAME + _TOKENS_OF_QUERY * len(ask.styles)
