"""Which requests a corpus needs: chunk, styles, persona and few-shot examples for each, drawn from the chunk's content.

Nothing depends on a chunk's position or on the other chunks (except a two-chunk request on its partner), so a changed
corpus changes only the requests of what is new.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from vectune.errors import InputError, UsageError, check_bounds
from vectune.queries import language
from vectune.queries.prompts import Prompt, load_prompt
from vectune.records import Chunk
from vectune.runs import hash_of

PERSONAS = (
    "somebody new to the subject",
    "an expert who knows the terms of the field",
    "a customer or citizen with a concrete need",
    "a colleague in a hurry, who types no more than needed",
)


@dataclass(frozen=True)
class LLMOptions:
    """How queries are written by an LLM.

    Attributes:
        queries: queries for each chunk, all in one request.
        styles: the mix, ``name`` or ``name:weight``; the names are those of the prompt file.
        personas: who searches; one is drawn for each chunk.
        examples: file with real queries, one a line, shown to the model for their form.
        examples_shown: how many of them in each request.
        difficulty: ``easy``, ``mixed`` or ``hard``.
        language: ``document`` for each chunk's own, or a language's name.
        two_chunks: share of chunks that also get one query that needs a second chunk of the same document.
        prompt, prompt_two: prompt files; a shipped name or a path.
        least_words: chunks with fewer words get no queries.
        most_characters: a longer chunk is cut there before it is sent.
        temperature, max_tokens: sent to the server where set; otherwise the server's own.
        structured: ask for JSON by schema; switched off by itself where the server refuses it.
        base_url: address; None means OPENAI_BASE_URL, then OpenAI's.
        key_variable: environment variable that holds the key.
        concurrency: requests under way at once.
        timeout: seconds for one request.
        attempts: tries before a chunk counts as failed in this run.
        requests_per_minute, tokens_per_minute: limits to stay under; None for none.
        budget: US dollars that one run may spend; None for no limit.
        prices: TOML file with prices over the shipped table.
        batch: send through the OpenAI Batch API: half the price, up to a day of waiting.
        batch_poll: seconds between looks at a batch.
        seed: of the draws of styles, personas and examples.
    """

    queries: int = 2
    styles: tuple[str, ...] = ("question:4", "keywords:3", "problem:2", "claim:1")
    personas: tuple[str, ...] = PERSONAS
    examples: str | None = None
    examples_shown: int = 6
    difficulty: Literal["easy", "mixed", "hard"] = "mixed"
    language: str = "document"
    two_chunks: float = 0.0
    prompt: str = "chunk"
    prompt_two: str = "two_chunks"
    least_words: int = 5
    most_characters: int = 12_000
    temperature: float | None = None
    max_tokens: int | None = None
    structured: bool = True
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout: float = 60.0
    attempts: int = 6
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget: float | None = None
    prices: str | None = None
    batch: bool = False
    batch_poll: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("queries", "concurrency", "attempts", "most_characters", "max_tokens"), (1, inf))
        others = dict.fromkeys(("budget", "examples_shown", "temperature", "least_words"), (0, inf))
        above = ("timeout", "batch_poll", "requests_per_minute", "tokens_per_minute")
        check_bounds("llm_queries", self, {**counts, **others, "two_chunks": (0, 1)}, above)

    def answer_settings(self) -> dict[str, float | int]:
        """What is sent beside the message and changes the answer."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be made.

    Attributes:
        key: hash of the message, the model, the settings and, for a free local server, its address.
        chunk_ids: the chunks its queries are for, the main one first. Chunks of equal content share one request.
        second: the other chunk of a two-chunk request; empty otherwise.
        styles: one for each query, in order.
    """

    key: str
    chunk_ids: tuple[str, ...]
    second: str
    styles: tuple[str, ...]


class Planner:
    """Turns chunks into requests.

    Args:
        model: the name the server knows.
        options: see there.
        server: the address, where the name alone does not say which model answers (every llama.cpp server has one
            that is called ``default``); else empty, and a request is the same wherever it is sent.

    Raises:
        UsageError: an unknown style or difficulty.
        InputError: a prompt or example file that cannot be used.
    """

    def __init__(self, model: str, options: LLMOptions, server: str = "") -> None:
        self.model, self.options, self.server = model, options, server
        self._one = load_prompt(options.prompt)
        self._two = load_prompt(options.prompt_two)
        self._styles = _style_weights(options.styles, self._one)
        self._examples = read_examples(options.examples) if options.examples else ()
        if options.difficulty not in self._one.difficulties:
            raise UsageError(
                f"{self._one.source} describes no difficulty '{options.difficulty}' "
                f"(it has: {', '.join(self._one.difficulties)})."
            )

    @property
    def fingerprint(self) -> str:
        """Hash of all that the queries depend on, beside the chunks."""
        drawn = [self.options.queries, self.options.difficulty, self.options.language, self.options.two_chunks]
        sent = [self.options.answer_settings(), self.options.seed, self.options.examples_shown, self._examples]
        cut = [self.options.least_words, self.options.most_characters]
        prompts = [[each.template, dict(each.styles), dict(each.difficulties)] for each in (self._one, self._two)]
        server = [self.server] if self.server else []
        return hash_of([self.model, drawn, sent, cut, prompts, self._styles, list(self.options.personas), *server])[:16]

    def plan(self, chunks: Sequence[Chunk]) -> dict[str, Ask]:
        """The requests for these chunks by key; one for chunks of equal content."""
        asks: dict[str, Ask] = {}
        by_id = {chunk.id: chunk for chunk in chunks}
        for first, second in self._subjects(chunks):
            styles = self._draw_styles(first, second)
            key = self._key(self.message(by_id[first.id], second, styles))
            ids = (first.id,) if second is None else (first.id, second.id)
            known = asks[key].chunk_ids if key in asks else ()
            asks[key] = Ask(key, tuple(dict.fromkeys((*known, *ids))), second.id if second else "", styles)
        return asks

    def too_short(self, chunk: Chunk) -> bool:
        """True for a chunk that no query is written for."""
        return len(chunk.text.split()) < self.options.least_words and len(chunk.text) < 6 * self.options.least_words

    def message(self, first: Chunk, second: Chunk | None, styles: Sequence[str]) -> str:
        """What is sent for these chunks."""
        prompt = self._one if second is None else self._two
        draw = self._draw(first, "persona")
        values = {
            "count": str(len(styles)),
            "queries": "\n".join(
                f"{number}. {style}: {prompt.styles.get(style) or self._one.styles[style]}"
                for number, style in enumerate(styles, start=1)
            ),
            "persona": draw.choice(self.options.personas) if self.options.personas else "anybody",
            "examples": self._example_lines(first),
            "difficulty": prompt.difficulties.get(self.options.difficulty, ""),
            "language": self._language_line(first),
            **self._text_values(first, ""),
            **(self._text_values(second, "_2") if second is not None else {}),
        }
        return prompt.fill(values)

    def _subjects(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Chunk | None]]:
        usable = [chunk for chunk in chunks if not self.too_short(chunk)]
        yield from ((chunk, None) for chunk in usable)
        if self.options.two_chunks <= 0:
            return
        documents: dict[str, list[Chunk]] = {}
        for chunk in usable:
            documents.setdefault(chunk.document_id, []).append(chunk)
        for siblings in documents.values():
            for place, chunk in enumerate(siblings):
                draw = self._draw(chunk, "two")
                if draw.random() < self.options.two_chunks and place + 1 < len(siblings):
                    yield chunk, siblings[min(place + draw.randint(1, 3), len(siblings) - 1)]

    def _draw(self, chunk: Chunk, purpose: str) -> random.Random:
        seed = hashlib.sha256(f"{self.options.seed}\x1f{purpose}\x1f{chunk.content}".encode("utf-8", "surrogatepass"))
        return random.Random(seed.digest())

    def _draw_styles(self, chunk: Chunk, second: Chunk | None) -> tuple[str, ...]:
        """Styles by their weights; none twice while there are others."""
        draw = self._draw(chunk, "styles" if second is None else "styles of two")
        drawn: list[str] = []
        left: dict[str, float] = {}
        for _ in range(self.options.queries if second is None else 1):
            left = left or dict(self._styles)
            style = draw.choices(list(left), list(left.values()))[0]
            drawn.append(style)
            del left[style]
        return tuple(drawn)

    def _example_lines(self, chunk: Chunk) -> str:
        if not self._examples or not self.options.examples_shown:
            return ""
        shown = self._draw(chunk, "examples").sample(
            self._examples, min(self.options.examples_shown, len(self._examples))
        )
        lines = "\n".join(f"- {example}" for example in shown)
        return (
            f"\nReal queries of these people. Take their tone, length and form from them, not their subject:\n{lines}\n"
        )

    def _language_line(self, chunk: Chunk) -> str:
        if self.options.language != "document":
            return f"Write in {self.options.language}."
        name = language.NAMES.get(language.detect(chunk.text, least=5), "")
        return f"Write in {name}, the language of the text." if name else "Write in the language of the text."

    def _text_values(self, chunk: Chunk, suffix: str) -> Mapping[str, str]:
        title = " ".join(chunk.title.split()).replace('"', "'")
        return {f"title{suffix}": title, f"text{suffix}": chunk.text[: self.options.most_characters]}

    def _key(self, message: str) -> str:
        server = [self.server] if self.server else []  # nothing for none: these keys are of answers that were paid for
        return hash_of([message, self.model, self.options.answer_settings(), *server])


def read_examples(path: str) -> tuple[str, ...]:
    """A query log, one query a line; empty lines and repeats are dropped.

    Raises:
        InputError: it cannot be read, or holds no query.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not valid UTF-8"
        raise InputError(f"the examples cannot be read ({reason}).", path=file) from None
    found = tuple(dict.fromkeys(" ".join(line.split())[:300] for line in lines if line.strip()))
    if not found:
        raise InputError("holds no query; write one on each line.", path=file)
    return found


def _style_weights(styles: Sequence[str], prompt: Prompt) -> dict[str, float]:
    weights = {}
    for entry in styles:
        name, _, weight = entry.partition(":")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError:
            raise UsageError(f"The weight in the style '{entry}' is not a number; write it as question:4.") from None
        if not 0 <= weights[name.strip()] < inf:
            raise UsageError(f"The weight in the style '{entry}' must not be negative, nor without end.")
        if name.strip() not in prompt.styles:
            raise UsageError(
                f"{prompt.source} describes no style '{name.strip()}' (it has: {', '.join(prompt.styles)}).",
                "Add it under '## Styles' in a copy of the prompt file.",
            )
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    if not weights:
        raise UsageError("The mix of styles is empty; give at least one, such as question:1.")
    return weights
