"""A small real HTTP server that speaks the OpenAI protocol, for tests and benchmarks of anything that talks to one.

It answers chat completions, embeddings, models, files and batches on the loopback interface, counts what it was asked,
and misbehaves on demand::

    with OpenAIServer(delay=0.2, rates={"429": 0.05, "hung": 0.01}) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="any")

    server.fail("429", retry_after=1.5)     # the next request alone
    server.fail("reversed", times=3)        # the next three

``python -m vectune.testing --port 8099 --delay 0.2`` runs it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import random
import re
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
AZURE = "/openai/deployments/"
Answer = tuple[int, Json | bytes, dict[str, str]]  # status, body, further headers

FAULTS: Mapping[str, str] = {
    # any endpoint
    "429": "too many requests; with a Retry-After header where retry_after is given",
    "quota": "429 as OpenAI sends it when the account is empty (code insufficient_quota)",
    "500": "internal error",
    "503": "overloaded; with a Retry-After header where retry_after is given",
    "html": "a proxy's page with status 502",
    "malformed": "status 200 and a body cut in the middle of the JSON",
    "error200": "status 200 and an error object instead of an answer",
    "hung": "never answers, keeps the connection open",
    "slow": "answers after slow_seconds",
    "504": "a gateway that waited too long",
    "cut": "status 200 and a connection that ends in the middle of the body",
    "disconnect": "closes the connection without a word",
    # chat completions
    "truncated": "the text stops in the middle, finish_reason is 'length'",
    "empty": "an empty text",
    "parts": "the text as a list of parts, behind one that holds what the model thought",
    "nonsense": "a text that holds no query",
    # embeddings
    "reversed": "vectors in reversed order, each with its right index",
    "missing": "one vector fewer than asked for",
    "doubled": "the index of the first vector on all of them",
    "dimension": "vectors with one dimension more",
    "nan": "the first vector holds a NaN",
    "zero": "the first vector is zero",
}


@dataclass(frozen=True)
class Fault:
    """One misbehaviour; ``kind`` is a key of ``FAULTS``."""

    kind: str
    retry_after: float | None = None
    slow_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ValueError(f"Unknown fault '{self.kind}'; known are {', '.join(FAULTS)}.")


@dataclass(frozen=True)
class Asked:
    """One request the server received."""

    path: str
    body: Json
    headers: Mapping[str, str]
    time: float
    fault: str = ""
    query: str = ""  # what stood behind the question mark of the address


def hashed_embedding(text: str, dim: int) -> list[float]:
    """A unit vector from hashed words: texts that share words are similar. Deterministic."""
    vector = [0.0] * dim
    for word in re.findall(r"\w+", text.lower()) or [text or " "]:
        digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
        vector[int.from_bytes(digest[:4], "big") % dim] += 1.0 if digest[4] % 2 else -1.0
        vector[int.from_bytes(digest[5:9], "big") % dim] += 0.5
    norm = sum(value * value for value in vector) ** 0.5 or 1.0
    return [value / norm for value in vector]


def queries_answer(body: Json) -> str:
    """What a well-behaved model would answer: queries made of words of the last message, the same for the same text."""
    messages = body.get("messages") or [{"content": ""}]
    prompt = str(messages[-1].get("content"))
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    named = re.search(r"\b(\d+) (?:\w+ )?(?:quer|question)", prompt)
    count = _schema_count(schema) or (int(named.group(1)) if named else 2)
    words = re.findall(r"[^\W\d_]{4,}", prompt) or ["nothing"]
    pick = random.Random(prompt)
    queries = [f"how does {' '.join(pick.choices(words, k=5))} work?" for _ in range(count)]
    if schema:
        return json.dumps({"queries": [{"text": query, "query": query} for query in queries]})
    return "\n".join(f"{number}. {query}" for number, query in enumerate(queries, start=1))


def _schema_count(schema: Json) -> int:
    for value in schema.get("properties", {}).values():
        if value.get("type") == "array":
            return int(value.get("minItems") or value.get("maxItems") or 0)
    return 0


@dataclass
class OpenAIServer:
    """The server; use it as a context manager. It listens from ``__enter__`` to ``__exit__``, in a thread of its own.

    Attributes:
        delay: seconds before each answer.
        chat: the model: body of a chat request → text of the answer.
        thinking: tokens that the model thinks before each answer; they are counted and not shown.
        dim: dimensions of an embedding; ``embed`` replaces the hashed one.
        key: the only key that is accepted; None accepts all.
        models: the only model names that are known; None knows all.
        json_schema: whether ``response_format`` of type json_schema is understood; otherwise it is refused with 400.
        base64: whether ``encoding_format: base64`` is understood; otherwise floats come back all the same.
        refuses_base64: whether ``encoding_format: base64`` is refused with 400.
        max_inputs: texts in one embedding request; more are refused with 400.
        refuses: body of a chat request → status and words of an error; None where it is answered.
        max_input_characters: of one text or message; longer ones are refused with 400 as too long.
        rates: fault kind → share of requests that meet it, drawn with ``seed``.
        retry_after: seconds named by 429s that come from ``rates``.
        batch_seconds: how long a batch takes.
    """

    delay: float = 0.0
    chat: Callable[[Json], str] = queries_answer
    thinking: int = 0
    dim: int = 32
    embed: Callable[[str], Sequence[float]] | None = None
    key: str | None = None
    models: frozenset[str] | None = None
    json_schema: bool = True
    base64: bool = True
    refuses_base64: bool = False
    max_inputs: int = 2048
    refuses: Callable[[Json], tuple[int, str] | None] | None = None
    max_input_characters: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    retry_after: float | None = None
    seed: int = 0
    batch_seconds: float = 0.0
    port: int = 0

    def __post_init__(self) -> None:
        for kind in self.rates:
            Fault(kind)
        self.asked: list[Asked] = []
        self.answered: Counter[str] = Counter()  # path → requests that got a proper answer
        self.most_in_flight = 0
        self._in_flight = 0
        self._queued: deque[Fault] = deque()
        self._random = random.Random(self.seed)
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Json] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()

    @property
    def base_url(self) -> str:
        """What ``OPENAI_BASE_URL`` should say."""
        return f"http://127.0.0.1:{self.port}/v1"

    def fail(
        self, kind: str, times: int = 1, retry_after: float | None = None, slow_seconds: float = 2.0
    ) -> OpenAIServer:
        """The next ``times`` requests meet this fault (after those already queued)."""
        self._queued.extend([Fault(kind, retry_after, slow_seconds)] * times)
        return self

    def count(self, path: str = "/v1/chat/completions") -> int:
        """Requests to this path so far, failed ones too."""
        return sum(asked.path == path for asked in self.asked)

    def __enter__(self) -> OpenAIServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    # Connections

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**20, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while (request := await _read_request(reader)) is not None:
                self._in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self._in_flight)
                try:
                    answer = await self._answer(*request)
                finally:
                    self._in_flight -= 1
                if answer is None:
                    break
                await _write_answer(writer, answer)
                if answer[2].get("connection") == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass  # the client went away, or the server is closing
        finally:
            writer.close()

    # Requests

    async def _answer(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> Answer | None:
        path, query = _addressed(target, headers)
        body = _json_or_empty(raw) if "json" in headers.get("content-type", "json") else {}
        generates = path in ("/v1/chat/completions", "/v1/embeddings")
        fault = self._next_fault() if generates or self._queued else None
        self.asked.append(Asked(path, body, headers, time.time(), fault.kind if fault else "", query))
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "Incorrect API key provided.", "invalid_api_key")
        if generates:
            await asyncio.sleep(self.delay)
        if fault is not None:
            if fault.kind == "hung":
                await self._stop.wait()
            if fault.kind in ("hung", "disconnect"):
                return None
            if fault.kind == "slow":
                await asyncio.sleep(fault.slow_seconds)
            if (refused := _failed(fault)) is not None:
                return refused
        answer = self._dispatch(method, path, headers, body, raw, fault.kind if fault else "")
        if fault is not None and fault.kind in ("malformed", "cut"):
            whole = json.dumps(answer[1]).encode() if isinstance(answer[1], dict) else answer[1]
            ends = {"content-length": str(len(whole)), "connection": "close"} if fault.kind == "cut" else {}
            return answer[0], whole[: len(whole) // 2], {"content-type": "application/json", **ends}
        if answer[0] == 200 and not fault:
            self.answered[path] += 1
        return answer

    def _next_fault(self) -> Fault | None:
        if self._queued:
            return self._queued.popleft()
        drawn = self._random.random()
        for kind, rate in self.rates.items():
            if drawn < rate:
                return Fault(kind, self.retry_after)
            drawn -= rate
        return None

    def _dispatch(
        self, method: str, path: str, headers: Mapping[str, str], body: Json, raw: bytes, fault: str
    ) -> Answer:
        if path == "/v1/chat/completions":
            return self._chat(body, fault)
        if path == "/v1/embeddings":
            return self._embeddings(body, fault)
        if path == "/v1/models":
            names = sorted(self.models or {"any-model"})
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}, {}
        if path.startswith("/v1/files"):
            return self._file(method, path, headers, raw)
        if path.startswith("/v1/batches"):
            return self._batch(method, path, body)
        return _error(404, f"No such address: {path}", "not_found")

    def _chat(self, body: Json, fault: str = "") -> Answer:
        refused = self._refuse_model(body) or self._refuse_length(
            [str(message.get("content")) for message in body.get("messages", [])]
        )
        if refused is not None:
            return refused
        if body.get("response_format", {}).get("type") == "json_schema" and not self.json_schema:
            return _error(400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported.")
        if self.refuses is not None and (error := self.refuses(body)) is not None:
            return _error(*error)
        text = {"empty": "", "nonsense": "I am sorry."}.get(fault)
        if text is None:
            text = self.chat(body)
        if fault == "truncated":
            text = text[: len(text) // 2]
        asked = sum(len(str(message.get("content"))) for message in body.get("messages", [])) // 4
        made = len(text) // 4 + self.thinking
        usage = {"prompt_tokens": asked, "completion_tokens": made}
        message = {"role": "assistant", "content": _in_parts(text) if fault == "parts" else text}
        choice = {"index": 0, "message": message, "finish_reason": "length" if fault == "truncated" else "stop"}
        return (
            200,
            {
                "id": "chatcmpl-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12],
                "object": "chat.completion",
                "created": int(time.time()),
                "model": body.get("model", ""),
                "choices": [choice],
                "usage": {**usage, "total_tokens": asked + made},
            },
            {},
        )

    def _embeddings(self, body: Json, fault: str = "") -> Answer:
        given = body.get("input", [])
        texts = [given] if isinstance(given, str) else list(given)
        refused = self._refuse_model(body) or self._refuse_length(texts)
        if refused is not None:
            return refused
        if not texts or len(texts) > self.max_inputs or not all(isinstance(text, str) and text for text in texts):
            return _error(400, f"'$.input' is invalid: expected 1 to {self.max_inputs} non-empty strings.")
        if self.refuses_base64 and body.get("encoding_format") == "base64":
            return _error(400, "Invalid parameter: 'encoding_format' must be 'float'.")
        dim = int(body.get("dimensions") or self.dim)
        vectors = [list(self.embed(text)) if self.embed else hashed_embedding(text, dim) for text in texts]
        packed = self.base64 and body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in _spoiled(vectors, fault)
        ]
        tokens = sum(len(text) for text in texts) // 4
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, {"object": "list", "data": data, "model": body.get("model", ""), "usage": usage}, {}

    def _refuse_model(self, body: Json) -> Answer | None:
        if self.models is None or body.get("model") in self.models:
            return None
        return _error(404, f"The model '{body.get('model')}' does not exist.", "model_not_found")

    def _refuse_length(self, texts: Sequence[Any]) -> Answer | None:
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if self.max_input_characters is None or longest <= self.max_input_characters:
            return None
        limit = self.max_input_characters // 4
        message = f"This model's maximum context length is {limit} tokens, however you requested {longest // 4} tokens."
        return _error(400, message, "context_length_exceeded")

    # Files and batches

    def _file(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        parts = path.split("/")[3:]
        if method == "POST":
            content = _multipart_file(headers.get("content-type", ""), raw)
            name = f"file-{len(self._files) + 1}"
            self._files[name] = content
            return 200, _file_object(name, content), {}
        if not parts or parts[0] not in self._files:
            return _error(404, f"No such file: {path}", "not_found")
        if parts[1:] == ["content"]:
            return 200, self._files[parts[0]], {"content-type": "application/octet-stream"}
        return 200, _file_object(parts[0], self._files[parts[0]]), {}

    def _batch(self, method: str, path: str, body: Json) -> Answer:
        parts = path.split("/")[3:]
        if method == "POST" and not parts:
            if body.get("input_file_id") not in self._files:
                return _error(400, f"No such file: {body.get('input_file_id')}")
            name = f"batch_{len(self._batches) + 1}"
            self._batches[name] = {
                "id": name, "object": "batch", "status": "in_progress", "endpoint": body.get("endpoint"),
                "input_file_id": body["input_file_id"], "completion_window": "24h", "created_at": int(time.time()),
                "metadata": body.get("metadata"), "ready": time.time() + self.batch_seconds,
            }  # fmt: skip
        if method == "GET" and not parts:
            return 200, {"object": "list", "data": [_public(one) for one in self._batches.values()]}, {}
        batch = self._batches.get(parts[0] if parts else f"batch_{len(self._batches)}")
        if batch is None:
            return _error(404, f"No such batch: {path}", "not_found")
        if parts[1:] == ["cancel"]:
            batch["status"] = "cancelled"
        if batch["status"] == "in_progress" and time.time() >= batch["ready"] and method == "GET":
            self._run_batch(batch)
        return 200, _public(batch), {}

    def _run_batch(self, batch: Json) -> None:
        outputs: dict[str, list[str]] = {"output": [], "error": []}
        for line in self._files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            fault = self._next_fault()
            kind = fault.kind if fault else ""
            status, body, _ = (_failed(fault) if fault else None) or (
                self._embeddings(request["body"], kind)
                if "embeddings" in request["url"]
                else self._chat(request["body"], kind)
            )
            result = {"id": "r", "custom_id": request["custom_id"], "error": None}
            outputs["output" if status == 200 else "error"].append(
                json.dumps({**result, "response": {"status_code": status, "request_id": "r", "body": body}})
            )
        for kind, lines in outputs.items():
            if lines:
                name = f"file-{len(self._files) + 1}"
                self._files[name] = ("\n".join(lines) + "\n").encode()
                batch[f"{kind}_file_id"] = name
        done, failed = len(outputs["output"]), len(outputs["error"])
        batch["request_counts"] = {"total": done + failed, "completed": done, "failed": failed}
        batch["status"] = "completed"


# HTTP, as much of it as clients of this protocol use


def _addressed(target: str, headers: dict[str, str]) -> tuple[str, str]:
    """Path and parameters; an Azure deployment's address, and its way to send the key, become those of the others."""
    path, _, query = target.partition("?")
    if path.startswith(AZURE) and "api-version=" in query:
        path = "/v1/" + path.removeprefix(AZURE).partition("/")[2]
        headers["authorization"] = f"Bearer {headers.get('api-key', '')}"
    return path, query


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first:
        return None
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, target, headers, body


async def _write_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    status, body, headers = answer
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    fields = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(head.encode("latin-1") + b"\r\n" + content)
    await writer.drain()


def _multipart_file(content_type: str, raw: bytes) -> bytes:
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in raw.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    return b""


def _json_or_empty(raw: bytes) -> Json:
    try:
        value = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# Answers


def _error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    kind = "invalid_request_error" if status < 429 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


def _failed(fault: Fault) -> Answer | None:
    """The answer of a fault that needs no request to be worked on; None for the others."""
    wait = {} if fault.retry_after is None else {"retry_after": f"{fault.retry_after:g}"}
    if fault.kind == "429":
        return _error(429, "Rate limit reached.", "rate_limit_exceeded", **wait)
    if fault.kind == "quota":
        return _error(429, "You exceeded your current quota.", "insufficient_quota")
    if fault.kind in ("500", "503", "504"):
        return _error(int(fault.kind), "The server had an error.", None, **wait)
    if fault.kind == "html":
        return 502, b"<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"}
    if fault.kind == "error200":
        return 200, {"error": {"message": "The model crashed.", "type": "server_error", "code": None}}, {}
    return None


def _in_parts(text: str) -> list[Json]:
    """As Mistral's models that reason answer."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}
    return [thought, {"type": "text", "text": text}]


def _spoiled(vectors: list[list[float]], fault: str) -> list[tuple[int, list[float]]]:
    indexed = list(enumerate(vectors))
    if fault == "reversed":
        return indexed[::-1]
    if fault == "missing":
        return indexed[:-1]
    if fault == "doubled":
        return [(0, vector) for vector in vectors]
    if fault == "dimension":
        return [(index, [*vector, 0.0]) for index, vector in indexed]
    if fault == "nan":
        indexed[0] = (0, [float("nan"), *vectors[0][1:]])
    if fault == "zero":
        indexed[0] = (0, [0.0] * len(vectors[0]))
    return indexed


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _file_object(name: str, content: bytes) -> Json:
    return {"id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": "f", "purpose": "batch"}


def _public(batch: Json) -> Json:
    return {key: value for key, value in batch.items() if key != "ready"}


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A local server that speaks the OpenAI protocol and makes answers up.")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args()
    with OpenAIServer(port=given.port, delay=given.delay) as server:
        print(server.base_url, flush=True)  # noqa: T201 - whoever started it needs the address
        threading.Event().wait()


if __name__ == "__main__":
    main()
