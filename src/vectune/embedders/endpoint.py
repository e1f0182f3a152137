"""One request to an OpenAI-compatible ``/v1/embeddings``, with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.errors import EndpointError
from vectune.queries.endpoint import LONGEST_WAIT, Pace, Retries, error_message, retry_after_seconds

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from vectune.protocols import Vectors

KEY_HINT = "Check the key, and that it belongs to this address."
ADDRESS_HINT = "Check the model's name and the address (OPENAI_BASE_URL; it usually ends in /v1)."
KEPT_HINT = "What was embedded so far is in the cache; run the same command again to go on."
BUSY_PATIENCE = 5  # times as many attempts for "too many requests" as for failures: waiting is what it asks for


class Refused(Exception):
    """The server does not take this batch as it is; a smaller one it may."""


class TryAgain(Exception):
    """This attempt failed, another may succeed."""

    def __init__(self, message: str, retry_after: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.busy = retry_after, busy


class NoVector(TryAgain):
    """Some texts' vectors are zero or not finite: ``bad`` has their places; ``vectors``, the whole batch's."""

    def __init__(self, message: str, vectors: Vectors, bad: list[int]) -> None:
        super().__init__(message)
        self.vectors, self.bad = vectors, bad


@dataclass
class Usage:
    """What an API was asked so far.

    Attributes:
        requests: sent, repeated ones included.
        texts: embedded.
        tokens: as the server counts them; 0 where it does not say.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0


class EmbeddingEndpoint:
    """A model behind a server. Use it within one event loop, and ``close`` it there.

    Args:
        model: the name the server knows.
        address: base URL up to ``/v1``.
        key: sent as bearer token.
        timeout: seconds for one request.
        retries: how often and how patiently a request is repeated.
        encoding: ``base64`` or ``float``; a server that refuses base64 is asked for numbers from then on.
        dimensions: asked of the server; None = the model's own.
        key_header: the header that carries the key besides the bearer token; None where that is enough.
        url_parameters: behind the question mark of each request's address.
    """

    def __init__(
        self,
        model: str,
        address: str,
        key: str,
        *,
        timeout: float = 60.0,
        retries: Retries,
        encoding: str = "base64",
        dimensions: int | None = None,
        key_header: str | None = None,
        url_parameters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.model, self.address, self.retries = model, address, retries
        self.encoding = encoding
        self.dimensions = dimensions
        self.dim: int | None = dimensions
        self.usage = Usage()
        self.pace = Pace(None, None)
        self._key, self._timeout = key, timeout
        self._headers = {key_header: key} if key_header else {}
        self._parameters = dict(url_parameters)
        self._client: AsyncOpenAI | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def embed(
        self, texts: Sequence[str], fields: dict[str, Any], give_up: Callable[[], bool] = lambda: False
    ) -> Vectors:
        """Vectors as the server gives them, in the order of the texts; float32 of shape (len(texts), dim).

        Args:
            texts: one batch.
            fields: further fields of the request.
            give_up: asked before a failed attempt is repeated.

        Raises:
            Refused: the server does not take this batch.
            NoVector: it has none for some of the texts, also when asked again.
            EndpointError: no request will succeed, or this one failed again and again.
        """
        failures = busy = 0
        while True:
            await self.pace.turn(0)
            try:
                return self._read(await self._send(list(texts), fields), texts)
            except TryAgain as problem:
                busy, failures = busy + problem.busy, failures + (not problem.busy)
                if isinstance(problem, NoVector) and (give_up() or failures >= min(2, self.retries.attempts)):
                    raise  # the others' are good, and paid for
                if give_up() or failures >= self.retries.attempts or busy >= self.retries.attempts * BUSY_PATIENCE:
                    said = str(problem).rstrip(". ")
                    raise EndpointError(f"{self.address}, {self.model}: {said}.", KEPT_HINT) from None
                await self._wait(problem, min(max(busy, failures) - 1, 6))

    async def _wait(self, problem: TryAgain, attempt: int) -> None:
        named = problem.retry_after or 0.0
        if named > LONGEST_WAIT:
            raise EndpointError(f"{self.address} asks to wait {named:,.0f} s: {problem}.", KEPT_HINT)
        self.pace.hold(named)
        await asyncio.sleep(self.retries.wait(attempt, named))

    async def _send(self, texts: list[str], fields: dict[str, Any]) -> Any:
        """The answer's JSON."""
        import openai

        self.usage.requests += 1
        encoding = self.encoding
        try:
            sent = self._open().embeddings.with_raw_response.create(
                model=self.model, input=texts, **self._fields(fields)
            )
            response = await asyncio.wait_for(sent, self._timeout)
            return response.http_response.json()
        except (openai.APITimeoutError, asyncio.TimeoutError):
            raise TryAgain(f"no answer within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise TryAgain(f"cannot be reached ({error.__cause__ or error})") from None
        except openai.APIStatusError as error:
            # Requests in flight have asked as this one did: what counts is what was sent, not what is asked by now.
            if encoding == "base64" and error.status_code in (400, 415, 422) and "encoding" in error_message(error):
                self.encoding = "float"  # to ask for nothing is to ask for base64: the client puts it in
                return await self._send(texts, fields)
            raise self._judge(error) from None
        except (ValueError, openai.APIError) as error:  # a body that is not the JSON it should be
            raise TryAgain(f"unreadable answer ({error})") from None

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        import openai

        return {
            "encoding_format": self.encoding,
            "dimensions": self.dimensions or openai.omit,
            "extra_body": fields or None,
        }

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(
                api_key=self._key,
                base_url=self.address,
                timeout=self._timeout,
                max_retries=0,
                default_headers=self._headers,
                default_query=self._parameters,
            )
        return self._client

    def _judge(self, error: Any) -> Exception:
        """What an error status means."""
        status, message = error.status_code, error_message(error)
        if status in (401, 403):
            return EndpointError(f"{self.address} refused the key ({status}): {message}", KEY_HINT)
        if status in (404, 405):
            unknown = f"{self.address} does not know the model '{self.model}', or the address is wrong ({status})"
            return EndpointError(f"{unknown}: {message}", ADDRESS_HINT)
        if status == 402 or getattr(error, "code", None) == "insufficient_quota":
            return EndpointError(f"{self.address}: the account is empty: {message}", KEPT_HINT)
        if status in (408, 409, 425, 429) or status >= 500:
            wait = retry_after_seconds(error.response.headers)
            return TryAgain(f"{status}: {message}", retry_after=wait, busy=status == 429)
        if self.dimensions is not None and ("dimensions" in message or "matryoshka" in message.lower()):
            return EndpointError(f"{self.address}, {self.model}: does not take dimensions={self.dimensions}: {message}")
        return Refused(f"{status}: {message}")

    # Answers

    def _read(self, body: Any, texts: Sequence[str]) -> Vectors:
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            error = body.get("error") if isinstance(body, dict) else body
            message = error.get("message") if isinstance(error, dict) else error
            raise TryAgain(f"answered without vectors: {str(message)[:300]}")
        vectors = self._stack([_decoded(item) for item in _in_order(data, len(texts))])
        usage = body.get("usage")
        self.usage.tokens += int(usage.get("prompt_tokens") or usage.get("total_tokens") or 0) if usage else 0
        self._check(vectors, texts)
        self.usage.texts += len(texts)
        return vectors

    def _stack(self, rows: list[Vectors]) -> Vectors:
        dims = {len(row) for row in rows}
        if len(dims) != 1 or 0 in dims:
            raise TryAgain(f"answered with vectors of {sorted(dims)} dimensions in one batch")
        return np.stack(rows)

    def _check(self, vectors: Vectors, texts: Sequence[str]) -> None:
        dim = vectors.shape[1]
        if self.dim is None:
            self.dim = dim
        if dim != self.dim:
            known = f"{self.dim} were asked for" if self.dim == self.dimensions else f"{self.dim} before"
            raise EndpointError(
                f"{self.address}, {self.model}: gave vectors of {dim} dimensions, {known}.",
                "Is the same model behind this address? Vectors of two models must not be mixed.",
            )
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
        if bad.size:
            kind = "NaN or infinity" if not np.isfinite(norms[bad[0]]) else "a zero vector"
            raise NoVector(f"gave {kind} for the text {texts[int(bad[0])][:60]!r}", vectors, bad.tolist())


def _in_order(data: list[Any], count: int) -> list[Any]:
    """The answer's items by their index, each exactly once."""
    if len(data) != count:
        raise TryAgain(f"answered with {len(data)} vectors for {count} texts")
    if not all(isinstance(item, dict) for item in data):
        raise TryAgain("answered with something that is no vector")
    places = [item.get("index") for item in data]
    if all(place is None for place in places):
        return data
    if sorted(place for place in places if isinstance(place, int)) != list(range(count)):
        raise TryAgain("answered with vectors whose indices do not fit the texts")
    return sorted(data, key=lambda item: int(item["index"]))


def _decoded(item: Any) -> Vectors:
    """A vector sent as base64 of little-endian float32, or as a list of numbers."""
    value = item.get("embedding")
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
        row = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise TryAgain(f"answered with a vector that cannot be read ({error})") from None
    if row.ndim != 1:
        raise TryAgain("answered with something that is no vector")
    return row
