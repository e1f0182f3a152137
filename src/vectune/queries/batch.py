"""The OpenAI Batch API: all requests in a file, answers within a day, at half the price.

A batch's id is on disk as soon as the server names it; a run that was killed finds the batch again and waits on. A
batch that was sent but whose id was lost is recognized by the hash of its requests in its metadata.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vectune.errors import EndpointError, UsageError
from vectune.progress import Progress
from vectune.queries.answers import Answer, Answers
from vectune.queries.asking import Done, Job, Usage
from vectune.queries.completion import Unreadable, read_completion, refused_field
from vectune.queries.planning import Ask
from vectune.queries.pricing import Price
from vectune.runs import Json, hash_of

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

MOST_REQUESTS, MOST_BYTES = 50_000, 100_000_000  # of one batch; the API takes 50,000 and 200 MB
_ROUNDS = 3  # times that failed lines are sent again
_CUSTOM_ID = re.compile(r'"custom_id"\s*:\s*"([^"]*)"')
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class BatchAsker:
    """Asks through batches; the same face as ``Asker``."""

    model: str
    address: str
    key: str
    answers: Answers
    job: Job
    price: Price | None
    budget: float | None
    poll: float
    progress: Progress
    usage: Usage
    failed: list[tuple[Ask, str]] = field(default_factory=list)
    stopped: str = ""
    _reasons: dict[str, str] = field(default_factory=dict, init=False)
    _tokens_field: str = field(default="max_tokens", init=False)
    _schema_works: bool = field(default=True, init=False)
    _schema_answered: bool = field(default=False, init=False)

    def ask(self, asks: Sequence[Ask]) -> Iterator[Done]:
        """Answers as batches end.

        Raises:
            EndpointError: the server refuses the key, or has no Batch API.
        """
        from openai import APIError, OpenAI

        self._reasons = {}
        pending = {ask.key: ask for ask in asks}
        with OpenAI(api_key=self.key, base_url=self.address, max_retries=5) as client:
            try:
                yield from self._collect_open(client, pending)
                affordable = list(pending.values())
                for _ in range(_ROUNDS):
                    affordable = self._within_budget([ask for ask in affordable if ask.key in pending])
                    for requests in self._files(affordable):
                        self._send(client, requests)
                    yield from self._collect_open(client, pending)
            except APIError as error:
                raise EndpointError(f"{self.address}: the batch failed ({error}).") from None
        self.failed = [(ask, self._reasons[key]) for key, ask in pending.items() if key in self._reasons]

    def collect(self, asks: Sequence[Ask]) -> Iterator[Done]:
        """What batches of earlier runs answered; sends nothing and waits for nothing.

        Raises:
            UsageError: some of the requests are still being answered.
            EndpointError: the server refuses the key.
        """
        from openai import APIError, OpenAI

        self._reasons, pending = {}, {ask.key: ask for ask in asks}
        with OpenAI(api_key=self.key, base_url=self.address, max_retries=5) as client:
            try:
                yield from self._collect_open(client, pending, wait=False)
            except APIError as error:
                raise EndpointError(f"{self.address}: the batch cannot be collected ({error}).") from None
        held = self.answers.batched(list(pending))
        here = set(self.answers.open_batches(self.address, self.model)) & set(held.values())
        if here:
            raise UsageError(
                f"{sum(batch in here for batch in held.values()):,} of these requests are still under way in the batch "
                f"{', '.join(sorted(here))}; asked again, they would be paid for twice.",
                "Go on with --batch (or batch = true), or cancel the batch at the server first.",
            )

    def _within_budget(self, asks: list[Ask]) -> list[Ask]:
        if self.budget is None or self.price is None:
            return asks
        affordable, money = [], self.usage.money or 0.0
        for ask in asks:
            money += self.job.cost(ask, self.job.message(ask), self.price, self.usage.longest)
            if money > self.budget:
                self.stopped = f"the budget of ${self.budget:g} is used up"
                break
            affordable.append(ask)
        return affordable

    # Sending

    def _files(self, asks: list[Ask]) -> Iterator[dict[str, bytes]]:
        """The requests as lines by key, in portions that one batch takes."""
        portion: dict[str, bytes] = {}
        size = 0
        for ask in asks:
            line = self._line(ask)
            if portion and (len(portion) >= MOST_REQUESTS or size + len(line) > MOST_BYTES):
                yield portion
                portion, size = {}, 0
            portion[ask.key] = line
            size += len(line)
        if portion:
            yield portion

    def _line(self, ask: Ask) -> bytes:
        body: Json = {"model": self.model, "messages": [{"role": "user", "content": self.job.message(ask)}]}
        for name, given in self.job.settings.items():
            body[self._tokens_field if name == "max_tokens" else name] = given
        schema = self.job.schema(ask) if self._schema_works else None
        if schema is not None:
            body["response_format"] = schema
        request = {"custom_id": ask.key, "method": "POST", "url": "/v1/chat/completions"}
        return json.dumps({**request, "body": body}).encode() + b"\n"

    def _send(self, client: OpenAI, requests: dict[str, bytes]) -> None:
        mark = hash_of(sorted(line.decode() for line in requests.values()))[:32]
        batch = next((batch for batch in _recent(client) if self._is_lost(batch, mark)), None)
        if batch is None:
            file = client.files.create(file=("queries.jsonl", b"".join(requests.values())), purpose="batch")
            # Not repeated by the client: a second try after a lost answer could pay twice.
            batch = client.with_options(max_retries=0).batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                metadata={"vectune": mark},
            )  # fmt: skip
        self.usage.requests += len(requests)
        self._reasons.update(dict.fromkeys(requests, "not in the batch's output"))
        self.answers.add_batch(batch.id, self.address, self.model, requests)
        self.progress.say(
            f"Batch {batch.id} with {len(requests):,} requests is sent; this run can be stopped and resumed."
        )

    def _is_lost(self, batch: Batch, mark: str) -> bool:
        """Whether these requests were sent in this batch, whose answers (there or to come) nobody has collected."""
        wanted = (batch.metadata or {}).get("vectune") == mark and not self.answers.knows_batch(batch.id)
        return wanted and (batch.status not in _ENDED or batch.output_file_id is not None)

    # Collecting

    def _collect_open(self, client: OpenAI, pending: dict[str, Ask], wait: bool = True) -> Iterator[Done]:
        """Collect all batches that were sent, by this run or one before; takes what they answer out of ``pending``.

        Args:
            client: of the server.
            pending: the requests without an answer.
            wait: for those that have not ended; else they stay open.
        """
        for name in self.answers.open_batches(self.address, self.model):
            batch = self._wait(client, name) if wait else self._look(client, name)
            if batch is not None and batch.status not in _ENDED:
                continue
            for file in (batch.output_file_id, batch.error_file_id) if batch else ():
                for lines in _lines(client, file):
                    yield from self._take(lines, pending)
            if batch is not None and batch.status == "failed":
                reasons = [error.message for error in (batch.errors.data or [])] if batch.errors else []
                why = f"the batch failed: {'; '.join(map(str, reasons))[:300]}"
                self._reasons.update(dict.fromkeys(self.answers.batched(list(pending)), why))
            self.answers.close_batch(name)

    def _wait(self, client: OpenAI, name: str) -> Batch | None:
        """The batch once it ended; None for one that the server does not know any more."""
        while (batch := self._look(client, name)) is not None and batch.status not in _ENDED:
            time.sleep(self.poll)
        return batch

    def _look(self, client: OpenAI, name: str) -> Batch | None:
        from openai import NotFoundError

        try:
            return client.batches.retrieve(name)
        except NotFoundError:
            return None

    def _take(self, lines: Sequence[Json], pending: dict[str, Ask]) -> Iterator[Done]:
        """Keep the answers of these lines, then hand over those that are wanted."""
        read = [(str(line.get("custom_id")), answer) for line in lines if (answer := self._read(line, pending))]
        read = [
            (key, replace(answer, queries=len(pending[key].styles)) if key in pending else answer)
            for key, answer in read
        ]
        self.answers.put(self.model, read)
        yield from ((pending.pop(key), answer) for key, answer in read if key in pending)

    def _read(self, line: Json, pending: dict[str, Ask]) -> Answer | None:
        key, response = str(line.get("custom_id")), line.get("response")
        response = response if isinstance(response, dict) else {}
        body = response.get("body")
        if response.get("status_code") != 200:
            self._note_failure(key, response.get("status_code"), body, line)
            return None
        try:
            answer = read_completion(body)
        except Unreadable as problem:
            self._reasons[key] = str(problem)
            self._count_loss(pending.get(key))
            return None
        self.usage.add(answer, self.price)
        self._schema_answered = self._schema_answered or self._schema_works
        if not self.job.usable(answer):
            self._reasons[key] = f"the answer holds no query: {answer.text.strip()[:120]!r}"
            return None
        return answer

    def _count_loss(self, ask: Ask | None) -> None:
        """Count an answer that is paid for and cannot be read, as what was set aside for it."""
        if ask is not None and self.price is not None:
            self.usage.spend(self.job.cost(ask, self.job.message(ask), self.price, self.usage.longest))

    def _note_failure(self, key: str, status: Any, body: Any, line: Json) -> None:
        error = (body.get("error") if isinstance(body, dict) else None) or line.get("error") or {}
        message = str(error.get("message") if isinstance(error, dict) else error)[:300]
        if status == 400:
            self._learn(message)
        self._reasons[key] = f"{status}: {message}"

    def _learn(self, message: str) -> None:
        """What the next round does without; where nothing came with a schema and no field is named, that may be it."""
        refused = refused_field(message)
        if refused == "max_tokens":
            self._tokens_field = "max_completion_tokens"
        elif not self._schema_answered:
            self._schema_works = False


def _recent(client: OpenAI) -> Sequence[Batch]:
    return client.batches.list(limit=100).data


def _lines(client: OpenAI, file: str | None) -> Iterator[list[Json]]:
    """The lines of a result file, some hundreds at a time: one write to disk for each portion."""
    from openai import NotFoundError

    try:
        lines = [line for line in client.files.content(file).text.split("\n") if line.strip()] if file else []
    except NotFoundError:  # deleted at the server, or too old: its requests are asked again
        lines = []
    for start in range(0, len(lines), 500):
        yield [_decoded(line) for line in lines[start : start + 500]]


def _decoded(line: str) -> Json:
    """The line's JSON; of one that is damaged, whose answer it was, as one that holds no answer."""
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    except (ValueError, RecursionError):
        pass
    named = _CUSTOM_ID.search(line)
    return {"custom_id": named.group(1) if named else "", "response": {"status_code": 200, "body": line}}
