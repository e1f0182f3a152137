"""HTTPEmbedder: a model behind any OpenAI-compatible ``/v1/embeddings``.

OpenAI, vLLM, TEI, Ollama; Azure, whose deployments have addresses of their own:
``EmbedOptions(base_url="https://…/openai/deployments/NAME", key_header="api-key", url_parameters={"api-version":
"2024-10-21"})``; also Cohere-, Voyage- and NVIDIA-style servers, whose roles are further fields of the request:
``EmbedOptions(query_fields={"input_type": "query"}, document_fields={"input_type": "passage"})``.
"""

from __future__ import annotations

import asyncio
import queue
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.embedders.background import Background
from vectune.embedders.endpoint import EmbeddingEndpoint, NoVector, Refused, Usage
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.embedders.vectors import gathered, unit_rows
from vectune.errors import EndpointError, InputError
from vectune.queries.endpoint import Retries, api_key, server_address
from vectune.queries.pricing import count_tokens
from vectune.runs import hash_of

if TYPE_CHECKING:
    from vectune.protocols import Vectors

Batch = list[int]  # places of texts
Done = tuple[Batch, "Vectors"]


class HTTPEmbedder:
    """A model behind an API.

    Texts go in batches, several at once; a batch that the server finds too large is halved. Texts are never cut: one
    that is too long for the model is an error that names it.

    Args:
        model: the name the server knows (without ``openai:``).
        options: see ``EmbedOptions``.

    Raises:
        UsageError: there is no key, and the server is not on this machine.
    """

    def __init__(self, model: str, options: EmbedOptions = DEFAULTS) -> None:
        self.options = options
        self.name = f"openai:{model}"
        self.address = server_address(options.base_url)
        key = api_key(self.address, options.api_key, options.key_variable)
        retries = Retries(attempts=options.max_retries + 1)
        self._endpoint = EmbeddingEndpoint(
            model,
            self.address,
            key,
            timeout=options.timeout,
            retries=retries,
            encoding=options.encoding,
            dimensions=options.dimensions,
            key_header=options.key_header,
            url_parameters=options.url_parameters,
        )
        self._batch_texts = options.batch_texts
        self._background = Background()
        self.close = weakref.finalize(self, _close, self._background, self._endpoint)

    @property
    def usage(self) -> Usage:
        """Requests, texts and tokens so far."""
        return self._endpoint.usage

    @property
    def dim(self) -> int:
        """Known from the first answer; asks for one short text where there was none yet."""
        if self._endpoint.dim is None or not self.usage.texts:
            self.embed_documents(["a"])
        return int(self._endpoint.dim or 0)

    @property
    def fingerprint(self) -> str:
        """Model, dimensions, prompts and role fields; an adapter fits the same model at any address."""
        options = self.options
        return hash_of(
            {
                "model": self._endpoint.model,
                "dimensions": options.dimensions,
                "prompts": [options.query_prompt or "", options.document_prompt or ""],
                "fields": [sorted(options.query_fields.items()), sorted(options.document_fields.items())],
            }
        )

    @property
    def cache_key(self) -> str:
        """Fingerprint and address: two servers may call different models by one name."""
        return f"{self.fingerprint[:32]}-{hash_of(self.address)[:8]}"

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "query")

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "document")

    def _embed(self, texts: Sequence[str], role: str) -> Vectors:
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        return gathered(self.stream(texts, role), len(texts))

    def stream(self, texts: Sequence[str], role: str) -> Iterator[Done]:
        """(places, vectors) of each batch as it is answered, in any order.

        After an error the requests in flight are awaited and their answers handed over, then it is raised: they are
        paid for.

        Raises:
            EndpointError: see ``EmbeddingEndpoint``; also a text that is too long.
            InputError: a text is empty.
        """
        prompt = (self.options.query_prompt if role == "query" else self.options.document_prompt) or ""
        fields = dict(self.options.query_fields if role == "query" else self.options.document_fields)
        prompted = [prompt + text for text in texts]
        for place, text in enumerate(prompted):
            if not text.strip():
                raise InputError(f"text {place + 1} of {len(texts)} is empty: {self.name} has no vector for it.")
        work = _Work(self._endpoint, prompted, fields, self.name)
        batches = _batches(prompted, self._batch_texts, self.options.request_tokens)
        future = self._background.submit(work.run(batches, self.options.concurrency))
        try:
            yield from work.answers(future)
        except BaseException:  # nobody waits for what is in flight
            work.stopped = True
            future.cancel()
            raise
        if work.limit:  # the server takes fewer at once than we thought
            self._batch_texts = min(self._batch_texts, work.limit)


class _Work:
    """One call's batches: several requests in flight, answers handed over to the caller's thread."""

    def __init__(self, endpoint: EmbeddingEndpoint, texts: list[str], fields: dict[str, Any], name: str) -> None:
        self.endpoint, self.texts, self.fields, self.name = endpoint, texts, fields, name
        self.stopped = False
        self.refused = 0  # texts of the batch that was refused last
        self.limit = 0  # texts of the largest batch that was taken after one was refused
        self._done: queue.SimpleQueue[Done | None] = queue.SimpleQueue()

    def answers(self, future: Future[None]) -> Iterator[Done]:
        """What is answered, as it comes; then the error, if there was one."""
        while (done := self._done.get()) is not None:
            yield done
        future.result()

    async def run(self, batches: list[Batch], concurrency: int) -> None:
        """Work on the batches until all are done or one has failed for good."""
        waiting = list(reversed(batches))
        try:
            workers = [self._worker(waiting) for _ in range(min(concurrency, len(batches)))]
            problems = [problem for problem in await asyncio.gather(*workers, return_exceptions=True) if problem]
        finally:
            self._done.put(None)
        if problems:
            raise problems[0]

    async def _worker(self, waiting: list[Batch]) -> None:
        while waiting and not self.stopped:
            batch = waiting.pop()
            if self.limit and len(batch) > self.limit:
                waiting += [batch[start : start + self.limit] for start in range(0, len(batch), self.limit)]
                continue
            try:
                texts = [self.texts[place] for place in batch]
                vectors = await self.endpoint.embed(texts, self.fields, give_up=lambda: self.stopped)
                self._done.put((batch, unit_rows(vectors, texts, self.name)))
                if self.refused:
                    self.limit = max(self.limit, len(batch))
            except Refused as problem:
                self._split(batch, waiting, problem)
            except NoVector as problem:
                self._isolate(batch, waiting, problem)
            except BaseException:
                self.stopped = True
                raise

    def _split(self, batch: Batch, waiting: list[Batch], problem: Refused) -> None:
        """Halve a refused batch; a single text that is refused is the culprit."""
        if len(batch) == 1:
            raise self._culprit(
                batch[0],
                problem,
                "Texts are never cut silently. Where it is too long, make smaller chunks: tokens in [chunks].",
            )
        middle = len(batch) // 2
        self.refused = len(batch)
        waiting += [batch[middle:], batch[:middle]]

    def _isolate(self, batch: Batch, waiting: list[Batch], problem: NoVector) -> None:
        """Hand over the vectors that are there; a text without one is asked for alone, as its neighbours may matter."""
        if len(batch) == 1:
            raise self._culprit(batch[0], problem, "Leave the text out, or ask whoever runs the server why.")
        good = np.setdiff1d(np.arange(len(batch)), problem.bad)
        if good.size:
            texts = [self.texts[batch[place]] for place in good]
            self._done.put(([batch[place] for place in good], unit_rows(problem.vectors[good], texts, self.name)))
            self.endpoint.usage.texts += len(good)
        waiting += [[batch[place]] for place in problem.bad]

    def _culprit(self, place: int, problem: Exception, hint: str) -> EndpointError:
        self.stopped = True
        text = self.texts[place]
        about = f"about {count_tokens(text):,} tokens, {text[:60]!r}"
        return EndpointError(
            f"{self.name} has no vector for text {place + 1} of {len(self.texts)} ({about}): {problem}", hint
        )


def _batches(texts: Sequence[str], most_texts: int, most_tokens: int) -> list[Batch]:
    """Places of texts in order, with at most so many texts and (estimated) tokens in each batch."""
    batches: list[Batch] = []
    tokens = 0
    for place, text in enumerate(texts):
        cost = count_tokens(text)
        if not batches or len(batches[-1]) >= most_texts or tokens + cost > most_tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(place)
        tokens += cost
    return batches


def _close(background: Background, endpoint: EmbeddingEndpoint) -> None:
    background.stop(endpoint.close())
