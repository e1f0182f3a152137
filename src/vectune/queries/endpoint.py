"""One chat request to an OpenAI-compatible server, with everything that can go wrong on the way.

Retries are ours, not the client's: backoff with jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015),
Retry-After as the least wait and for all requests at once, requests and tokens a minute under the user's limits.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vectune.errors import EndpointError, UsageError
from vectune.queries.answers import Answer
from vectune.queries.completion import Unreadable, read_completion, refused_field
from vectune.queries.pricing import count_tokens
from vectune.runs import Json

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_ADDRESS = "https://api.openai.com/v1"
LONGEST_WAIT = 300.0  # seconds; a server that names more is taken to mean "not today"
_CONNECT_SECONDS = 10.0  # for a connection; only the answer takes a model's time
_BUSY_PATIENCE = 5  # times as many attempts for "too many requests" as for failures: waiting is what it asks for
_MODERATED = re.compile(r"moderat|flagged|content polic|safety", re.IGNORECASE)  # 403s about a text, not about the key
_TOO_LONG = re.compile(r"context (?:length|size|window)|too long|too many tokens", re.IGNORECASE)
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def server_address(base_url: str | None) -> str:
    """The address of the server: as given, else ``OPENAI_BASE_URL``, else OpenAI's."""
    return (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS).rstrip("/")


def is_local(address: str) -> bool:
    """True for a server on this machine, which needs no key."""
    return (urlsplit(address).hostname or "") in _LOCAL


def api_key(address: str, given: str | None, variable: str) -> str:
    """The key to send.

    Raises:
        UsageError: there is none and the server is not on this machine.
    """
    key = given or os.environ.get(variable)
    if key:
        return key
    if is_local(address):
        return "none"
    raise UsageError(
        f"No key for {address}: the environment variable {variable} is not set.",
        f"export {variable}=..., or name a server of your own with OPENAI_BASE_URL=http://localhost:8000/v1.",
    )


class Refused(Exception):
    """This request cannot succeed, others may: too long, refused by a content filter, unreadable again and again."""


class Pace:
    """Keeps requests and tokens a minute under their limits, and all requests still while the server asks for it."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next = self._held = 0.0

    async def turn(self, tokens: int) -> None:
        """Wait until the next request may go; requests are spread evenly."""
        start = max(self._next, time.monotonic())
        self._next = start + max(self._request_seconds, tokens * self._token_seconds)
        while (wait := max(start, self._held) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def hold(self, seconds: float) -> None:
        """No request leaves for this long."""
        self._held = max(self._held, time.monotonic() + seconds)


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a request is repeated.

    Attributes:
        attempts: tries before a request counts as failed.
        first_wait: seconds of the first backoff; doubles each time, drawn between half of it and all of it.
        longest_wait: ceiling of the backoff.
    """

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, attempt: int, named: float = 0.0) -> float:
        """Seconds before the next try after this one (counted from 0).

        The backoff, or what the server named where that is longer: it may name no time (Retry-After: 0), ever again.
        """
        ceiling = min(self.longest_wait, self.first_wait * 2.0**attempt)
        return max(ceiling * random.uniform(0.5, 1.0), named)


class ChatEndpoint:
    """A model behind a server. Make it and use it within one event loop; ``close`` it there.

    Args:
        model: the name the server knows.
        address: base URL.
        key: sent as bearer token.
        timeout: seconds for one request.
        pace: shared limits.
        retries: see there.
    """

    def __init__(self, model: str, address: str, key: str, timeout: float, pace: Pace, retries: Retries) -> None:
        self.model, self.address, self.pace, self.retries = model, address, pace, retries
        self._timeout = timeout
        self._key = key
        self._client: AsyncOpenAI | None = None
        self.schema_works = True  # until the server refuses structured output
        self.schema_answered = False
        self.tokens_field = "max_tokens"
        self.ever_answered = False
        self.sent = 0
        self.under_way: set[asyncio.Task[Any] | None] = set()  # the tasks whose request has left
        self.ended: EndpointError | None = None  # set it, and nothing is sent any more

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def ask(
        self, prompt: str, settings: Mapping[str, Any], schema: Json | None, lost: Callable[[], None]
    ) -> Answer:
        """The model's answer to one message.

        Args:
            prompt: the message.
            settings: further fields of the request.
            schema: ``response_format``, until the server refuses it.
            lost: called for each try whose answer was made, as far as one can know, and did not come here.

        Raises:
            Refused: this request failed for good.
            EndpointError: no request will succeed: key refused, model unknown, account empty, nothing there at all.
        """
        failures = busy = reworded = 0
        plain = False  # asked without the schema, which may be why it was refused
        while True:
            await self._turn(prompt)
            try:
                answer = await self._once(prompt, settings, schema if self.schema_works and not plain else None)
                if plain and not self.schema_answered:  # else it was this request's chunk that did not fit
                    self.schema_works = False
                self.schema_answered = self.schema_answered or (self.schema_works and not plain)
                return answer
            except _Busy as problem:
                busy += 1
                if busy >= self.retries.attempts * _BUSY_PATIENCE:
                    raise Refused(str(problem)) from None
                await self._wait(problem, min(busy - 1, 6))
            except _Reworded as problem:
                plain = plain or problem.plain
                reworded += 1
                if reworded > 3:
                    raise Refused(str(problem)) from None
            except _Failed as problem:
                if problem.lost:
                    lost()
                failures += 1
                if failures >= self.retries.attempts:
                    raise self._given_up(problem) from None
                await self._wait(problem, failures - 1)

    def _given_up(self, problem: _Failed) -> Exception:
        if problem.unreachable and not self.ever_answered:
            return EndpointError(f"{self.address} cannot be reached ({problem}).", _ADDRESS_HINT)
        return Refused(str(problem))

    async def _turn(self, prompt: str) -> None:
        if self.ended is not None:
            raise self.ended
        await self.pace.turn(count_tokens(prompt))

    async def _wait(self, problem: _Failed, attempt: int) -> None:
        if self.ended is not None:
            raise self.ended
        named = problem.retry_after or 0.0
        if named > LONGEST_WAIT:
            raise EndpointError(f"{self.address} asks to wait {named:,.0f} s: {problem}")
        self.pace.hold(named)
        await asyncio.sleep(self.retries.wait(attempt, named * random.uniform(1.0, 1.1)))

    async def _once(self, prompt: str, settings: Mapping[str, Any], schema: Json | None) -> Answer:
        import openai

        task = asyncio.current_task()
        self.sent += 1
        self.under_way.add(task)
        try:
            completion = await _within(self._timeout, self._create(prompt, settings, schema))
        except (openai.APITimeoutError, TimeoutError) as error:
            raise _timeout(error.__cause__, self._timeout) from None
        except openai.APIConnectionError as error:
            raise _disconnection(error.__cause__ or error) from None
        except openai.APIStatusError as error:
            raise self._refusal(error, settings, schema is not None) from None
        except (ValueError, openai.APIError) as error:  # a body that is not the JSON it should be
            raise _Failed(f"unreadable answer: {error}", lost=True) from None
        finally:
            self.under_way.discard(task)
        return self._read(completion, prompt)

    async def _create(self, prompt: str, settings: Mapping[str, Any], schema: Json | None) -> Any:
        body: Json = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **settings}
        if "max_tokens" in body:
            body[self.tokens_field] = body.pop("max_tokens")
        if schema is not None:
            body["response_format"] = schema
        # As plain JSON: the client's typed call spends two milliseconds a request on walking through the schema.
        return await self._open().post("/chat/completions", cast_to=object, body=body)

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, Timeout

            # Half of a short limit: a connection never made must end before the request as a whole, which counts money.
            limits = Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout / 2))
            self._client = AsyncOpenAI(api_key=self._key, base_url=self.address, timeout=limits, max_retries=0)
        return self._client

    def _read(self, completion: Any, prompt: str) -> Answer:
        try:
            answer = read_completion(completion, count_tokens(prompt))
        except Unreadable as problem:
            raise _Failed(str(problem), lost=True) from None
        self.ever_answered = True
        return answer

    def _refusal(self, error: Any, settings: Mapping[str, Any], sent_schema: bool) -> Exception:
        """What an error status means."""
        status, message = error.status_code, error_message(error)
        if status == 403 and (self.ever_answered or _MODERATED.search(message)):
            return Refused(f"{status}: {message}")
        if status in (401, 403):
            return EndpointError(f"{self.address} refused the key ({status}): {message}", _KEY_HINT)
        if status == 404:
            known = f"{self.address} does not know the model '{self.model}', or the address is wrong (404)"
            return EndpointError(f"{known}: {message}", _ADDRESS_HINT)
        if getattr(error, "code", None) == "insufficient_quota" or status == 402:
            return EndpointError(f"{self.address}: the account is empty: {message}")
        if status in (408, 409, 425, 429) or status >= 500:
            kind = _Busy if status == 429 else _Failed
            wait = retry_after_seconds(error.response.headers)
            # A gateway has stopped waiting, the model behind it has not.
            return kind(f"{status}: {message}", retry_after=wait, lost=status in (504, 524))
        return (
            self._option_refused(message, settings)
            or self._other_words(message, sent_schema)
            or Refused(f"{status}: {message}")
        )

    def _option_refused(self, message: str, settings: Mapping[str, Any]) -> EndpointError | None:
        """The end, where a refusal names what was asked for with each request; None where it is about anything else."""
        if self.ever_answered or refused_field(message) or _TOO_LONG.search(message):
            return None
        for name in (name for name in settings if re.search(rf"\b{name}\b", message)):
            said = f"{self.address} does not take {name} = {settings[name]}: {message}"
            return EndpointError(said, f"Leave llm_queries.{name} out, or give what '{self.model}' takes.")
        return None

    def _other_words(self, message: str, sent_schema: bool) -> _Reworded | None:
        """Learn from a 400 what this server does not take; None when there is nothing to learn."""
        refused = refused_field(message)
        if refused == "max_tokens":
            self.tokens_field = "max_completion_tokens"
            return _Reworded(message)
        if not sent_schema or _TOO_LONG.search(message):
            return None
        if refused == "response_format" and not self.schema_answered:
            self.schema_works = False
        return _Reworded(message, plain=True)  # requests sent before the first one found out also come here


_KEY_HINT = "Check the key, and that it belongs to this address."
_ADDRESS_HINT = "Check the model's name and the address (OPENAI_BASE_URL; it usually ends in /v1)."


class _Failed(Exception):
    """One try failed; another may succeed."""

    def __init__(
        self, message: str, retry_after: float | None = None, unreachable: bool = False, lost: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after, self.unreachable, self.lost = retry_after, unreachable, lost


class _Busy(_Failed):
    """The server asks for patience."""


class _Reworded(Exception):
    """Refused for the way it was asked: the endpoint has learnt another, or tries this request without a schema."""

    def __init__(self, message: str, plain: bool = False) -> None:
        super().__init__(message)
        self.plain = plain


def _disconnection(cause: BaseException) -> _Failed:
    """A connection that broke while an answer was awaited or read: the model was at work. Others were never made."""
    # By name: the classes are httpx's or httpx2's, as the client's version has it.
    if type(cause).__name__ in ("RemoteProtocolError", "ReadError", "DecodingError"):
        return _Failed(f"the connection broke before the answer was here: {cause}", lost=True)
    return _Failed(f"connection failed: {cause}", unreachable=True)


def _timeout(cause: BaseException | None, seconds: float) -> _Failed:
    """A request that took too long is paid for, unless it never left: no connection was made for it."""
    if type(cause).__name__ in ("ConnectTimeout", "PoolTimeout"):
        return _Failed("no connection was made in time", unreachable=True)
    return _Failed(f"no answer within {seconds:g} s", lost=True)


async def _within(seconds: float, request: Coroutine[Any, Any, Any]) -> Any:
    """What the request returns; TimeoutError where it is not there in time, even if some of it keeps dripping in.

    Python 3.10 has no ``asyncio.timeout``, and ``wait_for`` before 3.12 may swallow a cancellation.
    """
    task = asyncio.ensure_future(request)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()  # nothing to one that is done


def error_message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)[:300]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds named by Retry-After (or OpenAI's retry-after-ms), as a number or a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        return None if value is None else max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (ValueError, TypeError, KeyError):
        return None


def queries_schema(count: int, styles: Sequence[str]) -> Json:
    """``response_format`` for this many queries."""
    query = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "style": {"type": "string", "enum": list(dict.fromkeys(styles))}},
        "required": ["text", "style"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"queries": {"type": "array", "items": query, "minItems": count, "maxItems": count}},
        "required": ["queries"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "queries", "strict": True, "schema": schema}}
