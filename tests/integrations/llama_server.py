"""A LlamaIndex LLM behind vectune.testing's server, and a corpus whose questions that server can write."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import urllib.request
import warnings
from pathlib import Path
from typing import Any

from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode

from vectune.testing import OpenAIServer

THINGS = (
    "apple battery beer bread bridge car cat city coffee contract device dog engine fire fish garden glass lamp law "
    "letter machine milk moon music"
).split()
USES = ("open", "close", "heat", "sell")


class ServerLLM(CustomLLM):
    """Asks an OpenAI-protocol server over HTTP."""

    base_url: str
    model: str = "tester"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    def _asking(self, prompt: str) -> dict[str, Any]:
        return {"model": self.model, "messages": [{"role": "user", "content": prompt}]}

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        request = urllib.request.Request(
            f"{self.base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            raw = json.load(response)
        return CompletionResponse(text=raw["choices"][0]["message"]["content"] or "", raw=raw)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await asyncio.to_thread(self.complete, prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def asked_about(prompt: str) -> list[str]:
    """The questions that a reader of the prompt's text would ask."""
    facts = re.findall(r"you can (\w+) the (\w+)", prompt)
    return [f"how do I {use} a {thing}?" for use, thing in facts]


def answer(body: dict[str, Any]) -> str:
    """With the announcement that LlamaIndex's parser takes for the first question."""
    questions = asked_about(body["messages"][0]["content"]) or ["what is there to know?"]
    return "Here are the questions:\n\n" + "\n".join(f"{n}. {q}" for n, q in enumerate(questions, start=1))


def serving() -> OpenAIServer:
    """A server; connections that clients of earlier tests left open are swept up before, not while warnings count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return OpenAIServer(chat=answer)


def nodes_about(things: list[str]) -> list[TextNode]:
    return [
        TextNode(id_=f"{thing}-{use}", text=f"you can {use} the {thing}, and you can sell the {thing}")
        for thing in things
        for use in USES[:3]
    ]


def write_corpus(folder: Path, things: list[str]) -> list[str]:
    """One text file for each thing with a paragraph for each use."""
    folder.mkdir(parents=True)
    files = []
    for thing in things:
        file = folder / f"{thing}.txt"
        file.write_text("\n\n\n".join(f"you can {use} the {thing} with your hand." for use in USES), encoding="utf-8")
        files.append(str(file))
    return files
