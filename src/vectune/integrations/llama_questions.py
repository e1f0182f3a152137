"""generate_qa_embedding_pairs: LlamaIndex nodes and LLM in, a fine-tuning dataset out; nothing paid is lost.

Each answer is on disk before its request counts as done, keyed by the node's text, the prompt and the LLM. Run again
after a failure, with more nodes or in another order: only what has no answer is asked.
"""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from llama_index.core.llms.llm import LLM
from llama_index.core.schema import BaseNode, MetadataMode

from vectune.errors import EndpointError, UsageError
from vectune.integrations.llama_data import EmbeddingQAFinetuneDataset
from vectune.integrations.llama_loop import iterate
from vectune.progress import SILENT, Progress, Task
from vectune.queries.answers import Answer, Answers
from vectune.queries.parsing import parse_queries
from vectune.queries.pricing import count_tokens
from vectune.records import content_id
from vectune.runs import hash_of, replace

DEFAULT_QA_GENERATE_PROMPT_TMPL = """\
Below is a piece of a document.

---------------------
{context_str}
---------------------

Write {num_questions_per_chunk} questions that people would type into a search box and that this text answers. They do \
not have the text and do not know that it exists: name what each question is about, and never speak of "the text", \
"the context" or "the document". Ask about different things. Use only what the text says.
Write one question on each line, without numbers and without anything else.
"""
SETTINGS = ("temperature", "top_p", "max_tokens", "system_prompt", "engine", "additional_kwargs")  # of an LLM
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 20.0  # seconds before another try; doubled each time


class QuestionsError(EndpointError, RuntimeError):
    """A node has no questions after all tries, and ``on_failure`` is ``fail``. LlamaIndex raises a RuntimeError."""


@dataclass(frozen=True)
class _Request:
    key: str
    prompt: str
    nodes: tuple[str, ...]  # nodes of equal text share one request


@dataclass
class _Asking:
    """What all requests of a call share."""

    llm: LLM
    questions: int
    tries: int
    answers: Answers
    progress: Progress

    async def all(self, requests: Sequence[_Request], concurrency: int) -> AsyncIterator[tuple[_Request, str]]:
        """(request, empty or why it failed), in the order they end; at most ``concurrency`` are under way."""
        left = iter(requests)
        done: asyncio.Queue[tuple[_Request, str] | BaseException] = asyncio.Queue()

        async def work() -> None:
            try:
                for request in left:
                    await done.put((request, await self._one(request)))
            except Exception as error:  # the disk is full: not a matter of one request
                await done.put(error)

        workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(requests)))]
        try:
            for _ in requests:
                got = await done.get()
                if isinstance(got, BaseException):
                    raise got
                yield got
        finally:
            for worker in workers:
                worker.cancel()

    async def _one(self, request: _Request) -> str:
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                pause = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            try:
                response = await self._complete(request.prompt)
            except Exception as error:  # LLM classes share no root of errors
                reason = f"{type(error).__name__}: {error}"
                continue
            answer = _answer(request.prompt, response, self.questions)
            if parse_queries(answer.text, truncated=answer.truncated):
                self.answers.put(llm_name(self.llm), [(request.key, answer)])
                return ""
            reason = f"the answer holds no question: {answer.text[:80]!r}"
        return reason or "it was never asked"

    async def _complete(self, prompt: str) -> Any:
        if hasattr(self.llm, "acomplete"):
            try:
                return await self.llm.acomplete(prompt)
            except NotImplementedError:
                pass
        return await asyncio.to_thread(self.llm.complete, prompt)


def generate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str = DEFAULT_QA_GENERATE_PROMPT_TMPL,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: str = "continue",
    save_every: int = 500,
    output_path: str = "qa_finetune_dataset.json",
    verbose: bool = True,
    *,
    concurrency: int = 8,
    store: str | Path | None = None,
) -> EmbeddingQAFinetuneDataset:
    """Questions for each node.

    Where it differs from LlamaIndex: the default prompt asks for what people search, not for an exam; up to
    ``concurrency`` questions are under way at once (``concurrency=1`` restores one after the other); announcements,
    bullets, JSON and reasoning around the questions are not taken for questions; tries are spaced out; ids are hashes
    of the content, so a repeated call gives the same dataset. Of a file at ``output_path`` the questions about these
    nodes are kept, as you have edited them; where it holds anything else, that is not mixed in, and the file stays as
    ``NAME.old.json`` (or ``NAME.old-2.json`` …).

    Args:
        nodes: their text without metadata is what is asked about and embedded.
        llm: any LlamaIndex LLM, or what has its ``complete``; asked through ``acomplete`` where that works.
        qa_generate_prompt_tmpl: with ``{context_str}`` and ``{num_questions_per_chunk}``.
        num_questions_per_chunk: questions for each node.
        retry_limit: tries for each node.
        on_failure: ``continue`` leaves the node out, to be asked in the next call; ``fail`` raises.
        save_every: answers after which ``output_path`` is written again. Each answer is safe without it.
        output_path: the JSON to write.
        verbose: show progress, and each node that failed.
        concurrency: requests under way at once.
        store: SQLite file with the answers; None is ``answers.sqlite`` in the cache folder.

    Raises:
        UsageError: numbers or words that make no sense, or a template without a place for the text.
        DatasetError: ``output_path`` holds something else.
        QuestionsError: a node failed and ``on_failure`` is ``fail``; also a RuntimeError.
    """
    if on_failure not in ("continue", "fail"):
        raise UsageError(f"on_failure is '{on_failure}', expected 'continue' or 'fail'.")
    if "{context_str}" not in qa_generate_prompt_tmpl:
        raise UsageError(
            "qa_generate_prompt_tmpl holds no {context_str}: the LLM would not see the nodes it is paid to ask about.",
            "Write {context_str} where the node's text belongs, and {num_questions_per_chunk} for the number.",
        )
    if min(num_questions_per_chunk, retry_limit, save_every, concurrency) < 1:
        raise UsageError("num_questions_per_chunk, retry_limit, save_every and concurrency must be at least 1.")
    texts = {node.node_id: node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes}
    requests = _requests(texts, llm, qa_generate_prompt_tmpl, num_questions_per_chunk)
    output = _Output(Path(output_path), texts, requests, num_questions_per_chunk)
    progress = Progress() if verbose else SILENT
    numbers = (num_questions_per_chunk, retry_limit, save_every, concurrency)
    failed = _ask(output, llm, progress, on_failure, numbers, store)
    _warn_short(output.dataset(), failed, num_questions_per_chunk)
    return output.dataset()


def _ask(
    output: _Output,
    llm: LLM,
    progress: Progress,
    on_failure: str,
    numbers: tuple[int, int, int, int],
    store: str | Path | None,
) -> dict[str, str]:
    """Fill the output; returns the nodes that failed, with the reason."""
    wanted, tries, save_every, concurrency = numbers
    failed: dict[str, str] = {}
    with Answers(None if store is None else Path(store)) as answers, progress.task(
        "questions", len(output.texts), "nodes"
    ) as task:  # fmt: skip
        pending = output.take(answers)
        task.advance(len(output.texts) - sum(len(request.nodes) for request in pending))
        asking = _Asking(llm, wanted, tries, answers, progress)
        try:
            for number, (request, reason) in enumerate(iterate(asking.all(pending, concurrency)), start=1):
                if reason:
                    _tell(request, reason, tries, on_failure, progress)
                    failed.update(dict.fromkeys(request.nodes, reason))
                _advance(task, request)
                if number % save_every == 0:
                    _keep(output, answers, progress)
        finally:
            _keep(output, answers, progress)
    return failed


def _keep(output: _Output, answers: Answers, progress: Progress) -> None:
    output.take(answers)
    if (aside := output.save()) and progress is not SILENT:
        progress.warn(f"{output.path} held other questions or nodes; it is kept as {aside}.")


def llm_name(llm: LLM) -> str:
    """The model as its server knows it, or the class's name."""
    known = getattr(getattr(llm, "metadata", None), "model_name", "")
    if known or hasattr(llm, "class_name"):
        return str(known or llm.class_name())
    own = getattr(llm, "model", None)  # of a class that has ``complete`` alone
    return own if isinstance(own, str) else type(llm).__name__


def _advance(task: Task, request: _Request) -> None:
    task.advance(len(request.nodes))


def _tell(request: _Request, reason: str, tries: int, on_failure: str, progress: Progress) -> None:
    names = ", ".join(request.nodes)
    if on_failure == "fail":
        raise QuestionsError(f"no questions for the node {names} after {tries} tries ({reason}).")
    if progress is not SILENT:
        progress.warn(f"no questions for the node {names} after {tries} tries ({reason}); it is left out.")


def _warn_short(dataset: EmbeddingQAFinetuneDataset, failed: Mapping[str, str], wanted: int) -> None:
    """One warning for all nodes, not one each."""
    counts = dict.fromkeys(dataset.corpus, 0)
    for nodes in dataset.relevant_docs.values():
        for node in nodes:
            counts[node] = counts.get(node, 0) + 1
    short = sum(count < wanted for count in counts.values())
    if failed:
        reason = next(iter(failed.values()))
        warnings.warn(
            f"{len(failed)} nodes have no questions and are left out (the first: {reason}); call again to ask them.",
            stacklevel=3,
        )
    if short:
        warnings.warn(f"{short} of {len(counts)} nodes have fewer than {wanted} questions.", stacklevel=3)


def _requests(texts: Mapping[str, str], llm: LLM, template: str, questions: int) -> dict[str, _Request]:
    """By key. A node without any text gets none."""
    who = _identity(llm)
    found: dict[str, _Request] = {}
    for node, text in texts.items():
        if text.strip():
            prompt = _filled(template, text, questions)
            key = hash_of(["llama-index", prompt, questions, who])
            known = found[key].nodes if key in found else ()
            found[key] = _Request(key, prompt, (*known, node))
    return found


def _filled(template: str, text: str, questions: int) -> str:
    try:
        return template.format(context_str=text, num_questions_per_chunk=questions)
    except (KeyError, IndexError, ValueError):  # braces of its own, such as an example of JSON
        return template.replace("{num_questions_per_chunk}", str(questions)).replace("{context_str}", text)


def _identity(llm: LLM) -> list[str]:
    """What the answers depend on beside the prompt. No keys, no addresses: the same model elsewhere answers as well."""
    made_by = f"{type(llm).__module__}.{type(llm).__qualname__}"  # classes of one's own often share a class_name()
    return [made_by, llm_name(llm), *(repr(getattr(llm, name, None)) for name in SETTINGS)]


def _answer(prompt: str, response: Any, questions: int) -> Answer:
    text = str(getattr(response, "text", response) or "")
    counted = getattr(response, "additional_kwargs", None) or {}
    tokens_in, tokens_out = counted.get("prompt_tokens"), counted.get("completion_tokens")
    return Answer(
        text,
        tokens_in if isinstance(tokens_in, int) else count_tokens(prompt),
        tokens_out if isinstance(tokens_out, int) else count_tokens(text),
        truncated=_finish_reason(getattr(response, "raw", None)) == "length",
        queries=questions,
    )


def _finish_reason(raw: Any) -> str:
    """Of an OpenAI-like answer, as an object or a dictionary; empty where there is none."""
    choices = raw.get("choices") if isinstance(raw, dict) else getattr(raw, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else getattr(first, "finish_reason", None)
    return str(reason or "")


class _Output:
    """The dataset as it grows, and the file it goes into."""

    def __init__(self, path: Path, texts: Mapping[str, str], requests: Mapping[str, _Request], wanted: int) -> None:
        self.path, self.texts, self.requests, self.wanted = path, texts, requests, wanted
        self.questions: dict[str, dict[str, str]] = {}  # node → question id → question
        self._keys = {node: request.key for request in requests.values() for node in request.nodes}
        self._edited: dict[str, dict[str, str]] = {}  # as above: edited, or from another prompt or LLM
        self._several: dict[str, list[str]] = {}  # question id → its nodes, where a person gave it more than one
        self._before = EmbeddingQAFinetuneDataset.from_json(str(path)) if path.exists() else None
        if self._before is not None:
            self._read(self._before)

    def _read(self, old: EmbeddingQAFinetuneDataset) -> None:
        """Take over questions about these nodes; those whose ids are not of their words wait for the answers."""
        own: dict[str, dict[str, str]] = {}
        for query, text in old.queries.items():
            nodes = old.relevant_docs.get(query) or [""]
            if all(node in self._keys and old.corpus.get(node) == self.texts[node] for node in nodes):
                own.setdefault(nodes[0], {})[query] = text
                self._several |= {query: nodes} if len(nodes) > 1 else {}
        for node, questions in own.items():
            known = all(len(query) != 16 or query == self._id(node, text) for query, text in questions.items())
            (self.questions if known else self._edited)[node] = questions

    def _id(self, node: str, question: str) -> str:
        return content_id(self._keys[node], node, question)

    def take(self, answers: Answers) -> list[_Request]:
        """Fill in what the store holds; returns the requests that it has no answer for."""
        found = answers.get(list(self.requests))
        pending = []
        for request in self.requests.values():
            missing = [node for node in request.nodes if node not in self.questions]
            if request.key in found:
                self._fill(missing, found[request.key])
            elif missing:
                pending.append(_Request(request.key, request.prompt, tuple(missing)))
        return pending

    def _fill(self, nodes: Iterable[str], answer: Answer) -> None:
        """The answer's questions, or what a person has made of them in the file."""
        parsed = parse_queries(answer.text, limit=self.wanted, truncated=answer.truncated)
        for node in nodes:
            written = {self._id(node, query.text): query.text for query in parsed}
            edited = self._edited.get(node, {})
            self.questions[node] = edited if edited.keys() & written.keys() else written  # other answers have other ids

    def dataset(self) -> EmbeddingQAFinetuneDataset:
        """In the order of the nodes, whatever the order of the answers."""
        queries = {query: text for node in self.texts for query, text in self.questions.get(node, {}).items()}
        relevant = {query: [node] for node in self.texts for query in self.questions.get(node, {})}
        relevant |= {query: nodes for query, nodes in self._several.items() if query in relevant}
        answered = {node for nodes in relevant.values() for node in nodes}
        corpus = {node: text for node, text in self.texts.items() if node in answered}
        return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)

    def save(self) -> Path | None:
        """Write the file; one that holds more is moved aside first, and its new name returned."""
        found, old, aside = self.dataset(), self._before, None
        if old is not None and not (
            old.queries.items() <= found.queries.items()
            and old.corpus.items() <= dict(self.texts).items()
            and all(found.relevant_docs.get(query) == nodes for query, nodes in old.relevant_docs.items())
        ):
            aside = _free_name(self.path)
            replace(self.path, aside)
        self._before = None
        found.save_json(str(self.path))
        return aside


def _free_name(path: Path) -> Path:
    """``NAME.old.json``, ``NAME.old-2.json`` …: the first that is not there."""
    endings = chain(["old"], (f"old-{number}" for number in count(2)))
    return next(name for ending in endings if not (name := path.with_suffix(f".{ending}{path.suffix}")).exists())
