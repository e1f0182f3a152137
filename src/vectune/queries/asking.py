"""Asks many requests at once: bounded, within a budget, every answer on disk before its worker takes the next."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from vectune.errors import EndpointError
from vectune.queries.answers import Answer, Answers
from vectune.queries.endpoint import ChatEndpoint, Refused
from vectune.queries.planning import Ask
from vectune.queries.pricing import Price, count_tokens
from vectune.runs import Json

_REASKS = 2  # times the model is asked again after an answer without a query
_GIVE_UP = 24  # failed requests in a row, none answered between, after which the server counts as down
_CAUTION = 1.25  # times the estimated tokens of a message; the estimate is within 15 % for English
Done: TypeAlias = tuple[Ask, Answer]


@dataclass
class Usage:
    """What a run used so far.

    Attributes:
        requests: sent, failed and repeated ones too.
        answers: answers received.
        tokens_in, tokens_out: of those answers.
        longest: tokens of the longest answer.
        money: paid for answers, and set aside for those that were lost; None where the price is unknown.
    """

    requests: int = 0
    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    longest: int = 0
    money: float | None = None

    def add(self, answer: Answer, price: Price | None) -> None:
        """Count one answer."""
        self.answers += 1
        self.tokens_in += answer.tokens_in
        self.tokens_out += answer.tokens_out
        self.longest = max(self.longest, answer.tokens_out)
        if price is not None:
            self.spend(price.of(answer.tokens_in, answer.tokens_out))

    def spend(self, money: float) -> None:
        """Count dollars."""
        self.money = (self.money or 0.0) + money


@dataclass(frozen=True)
class Job:
    """How to ask one request: what to send, and whether an answer will do."""

    message: Callable[[Ask], str]
    schema: Callable[[Ask], Json | None]
    settings: Json
    usable: Callable[[Answer], bool]
    tokens_out: Callable[[Ask], float]  # to set aside for its answer, for the budget

    def cost(self, ask: Ask, message: str, price: Price | None, longest: int) -> float:
        """Dollars to set aside for a request, whose answer may be as long as the longest one of this run.

        A model that thinks is paid for twenty times the tokens that its queries have.
        """
        return price.of(_CAUTION * count_tokens(message), max(self.tokens_out(ask), longest)) if price else 0.0


@dataclass
class Asker:
    """Runs requests against an endpoint in a thread of its own, and hands answers over as they come.

    Attributes:
        failed: requests that failed for good in this run, and why.
        stopped: why asking ended before all were asked; empty if it did not.
    """

    open_endpoint: Callable[[], ChatEndpoint]
    answers: Answers
    job: Job
    concurrency: int
    price: Price | None
    budget: float | None
    usage: Usage = field(default_factory=Usage)
    failed: list[tuple[Ask, str]] = field(default_factory=list)
    stopped: str = ""

    def ask(self, asks: Sequence[Ask]) -> Iterator[Done]:
        """Answers in the order they come; every one is on disk before it is handed over.

        Raises:
            EndpointError: no request can succeed.
        """
        import openai  # noqa: F401 - takes a second, which no request's time limit should pay

        self._results: queue.SimpleQueue[Done | BaseException | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        thread = threading.Thread(target=self._run, args=(iter(asks),), daemon=True)
        thread.start()
        try:
            while (result := self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._cancel()
            thread.join()

    # In the thread

    def _run(self, asks: Iterator[Ask]) -> None:
        try:
            asyncio.run(self._ask_all(asks))
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # anything else belongs to the caller's thread
            self._results.put(error)
        finally:
            self._results.put(None)

    def _cancel(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._main.cancel)
            except RuntimeError:  # closed in between: it is done
                pass

    async def _ask_all(self, asks: Iterator[Ask]) -> None:
        self._main = asyncio.current_task() or asyncio.create_task(asyncio.sleep(0))
        self._loop = asyncio.get_running_loop()
        self._reserved, self._in_flight, self._failures_in_a_row = 0.0, 0, 0
        self._settled = asyncio.Condition()
        self._keeper = _Keeper(self.answers)
        endpoint = self.open_endpoint()
        self._keeper.model = endpoint.model
        workers = [asyncio.create_task(self._work(endpoint, asks)) for _ in range(self.concurrency)]
        try:
            await asyncio.gather(*workers)
        except EndpointError as problem:
            await self._let_come(endpoint, workers, problem)
            raise
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self.usage.requests += endpoint.sent
            await endpoint.close()
            await self._keeper.finish()

    async def _let_come(
        self, endpoint: ChatEndpoint, workers: Sequence[asyncio.Task[None]], problem: EndpointError
    ) -> None:
        """Wait for the requests under way, none of which takes longer than its time limit: they are paid for."""
        self.stopped, endpoint.ended = self.stopped or str(problem), problem
        for worker in workers:
            if worker not in endpoint.under_way:
                worker.cancel()
        await asyncio.wait(workers)

    async def _work(self, endpoint: ChatEndpoint, asks: Iterator[Ask]) -> None:
        for ask in asks:
            try:
                answer = await self._answer(endpoint, ask)
            except Refused as problem:
                self._count_failure(ask, str(problem))
                continue
            if answer is None:
                return
            self._failures_in_a_row = 0
            await self._keeper.keep(ask.key, answer)
            self._results.put((ask, answer))

    async def _answer(self, endpoint: ChatEndpoint, ask: Ask) -> Answer | None:
        """An answer with queries; None where asking has stopped before this request was sent."""
        problem = None
        message = self.job.message(ask)
        for _ in range(1 + _REASKS):
            cost = await self._reserve(ask, message)
            if cost is None:
                break
            answer = await self._paid(endpoint, ask, message, cost)
            if self.job.usable(answer):
                return answer
            problem = Refused(f"the answer holds no query: {answer.text.strip()[:120]!r}")
        if problem is not None:
            raise problem
        return None

    async def _paid(self, endpoint: ChatEndpoint, ask: Ask, message: str, cost: float) -> Answer:
        try:
            schema = self.job.schema(ask)
            came = await endpoint.ask(message, self.job.settings, schema, partial(self._count_loss, cost))
            answer = replace(came, queries=len(ask.styles))
            self.usage.add(answer, self.price)
            return answer
        finally:
            await self._settle(cost)

    def _count_failure(self, ask: Ask, reason: str) -> None:
        self.failed.append((ask, reason))
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(_GIVE_UP, self.concurrency):
            self.stopped = f"{self._failures_in_a_row} requests in a row failed, the last one with: {reason}"

    # Budget: what is under way is reserved, so that the limit holds whatever the order of answers

    async def _reserve(self, ask: Ask, message: str) -> float | None:
        """The dollars set aside for a request; None where it is not to be sent."""
        async with self._settled:
            while not self.stopped:
                cost = self.job.cost(ask, message, self.price, self.usage.longest)
                unmeasured = self.budget is not None and not self.usage.answers  # the first answer tells the length
                if self._in_flight and (unmeasured or self._over(cost)):
                    await self._settled.wait()
                elif self._over(cost):
                    self._stop_for_budget()
                else:
                    self._reserved += cost
                    self._in_flight += 1
                    return cost
            return None

    def _count_loss(self, cost: float) -> None:
        """Count a request that is paid for though its answer is lost, before it is repeated."""
        if self.price is not None:
            self.usage.spend(cost)
        if self._over(0.0):
            self._stop_for_budget()
            raise Refused("its answer was lost, and the budget does not reach for another")

    def _stop_for_budget(self) -> None:
        self.stopped = self.stopped or f"the budget of ${self.budget:g} is used up"

    def _over(self, cost: float) -> bool:
        return self.budget is not None and (self.usage.money or 0.0) + self._reserved + cost > self.budget

    async def _settle(self, cost: float) -> None:
        async with self._settled:
            self._reserved -= cost
            self._in_flight -= 1
            self._settled.notify_all()


class _Keeper:
    """Writes answers to disk off the event loop; those that come while one write runs share the next."""

    def __init__(self, answers: Answers) -> None:
        self.model = ""
        self._answers = answers
        self._waiting: list[tuple[str, Answer]] = []
        self._next: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def keep(self, key: str, answer: Answer) -> None:
        """Return when the answer is on disk."""
        self._waiting.append((key, answer))
        if self._next is None:
            self._next = asyncio.create_task(self._write())
        await asyncio.shield(self._next)

    async def finish(self) -> None:
        """Return when all that was given is on disk: who gave it may have been cancelled while it waited."""
        if self._next is not None:
            await self._next
        async with self._lock:  # the write before it
            pass

    async def _write(self) -> None:
        async with self._lock:
            together, self._waiting, self._next = self._waiting, [], None
            await asyncio.to_thread(self._answers.put, self.model, together)


def give_up(failed: Sequence[tuple[Ask, str]], address: str) -> EndpointError:
    """The error for a run in which nothing succeeded."""
    return EndpointError(f"{address}: all {len(failed):,} requests failed; the first one with: {failed[0][1]}")
