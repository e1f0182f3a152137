"""LlamaIndex's fine-tuning dataset: its attributes, its JSON, and the way from there to a RetrievalDataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.progress import Progress
from vectune.records import Chunk, Query
from vectune.runs import writing
from vectune.splits import with_dev


class NoDatasetError(DatasetError, FileNotFoundError):
    """There is no such JSON. LlamaIndex raises FileNotFoundError, which code that then writes the file catches."""


class QADataset(Protocol):
    """What counts as such a dataset: ours, or the object of llama-index-finetuning."""

    queries: Any
    corpus: Any
    relevant_docs: Any


class EmbeddingQAFinetuneDataset(BaseModel):
    """Questions, node texts, and which nodes answer which question.

    Attributes:
        queries: question id → question.
        corpus: node id → text.
        relevant_docs: question id → ids of the nodes that answer it; all of them count (LlamaIndex takes the first).
        mode: always ``text``.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]
    mode: str = "text"

    @property
    def query_docid_pairs(self) -> list[tuple[str, list[str]]]:
        """(question, ids of its nodes) for each question."""
        return [(query, self.relevant_docs[query_id]) for query_id, query in self.queries.items()]

    def save_json(self, path: str) -> None:
        """Write the JSON that both sides read; the file is whole or as it was before.

        It is ASCII: LlamaIndex reads in the machine's own encoding.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(Path(path)) as beside:
            beside.write_text(json.dumps(self.model_dump(), indent=4), encoding="ascii")

    @classmethod
    def from_json(cls, path: str) -> EmbeddingQAFinetuneDataset:
        """Read what either side wrote.

        Raises:
            NoDatasetError: no such file; also a FileNotFoundError.
            DatasetError: not such a dataset.
        """
        file = Path(path)
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NoDatasetError("no such file.", path=file) from None
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise DatasetError(f"'{place}': {problem['msg']}.", path=file) from None
        except (ValueError, TypeError) as error:
            raise DatasetError(f"is no fine-tuning dataset ({error}).", path=file) from None


def retrieval_dataset(train: QADataset, val: QADataset | None = None, all_docs: bool = True) -> RetrievalDataset:
    """The datasets as one RetrievalDataset with the splits train and dev.

    The JSON does not say which document a node is from. Each dataset's corpus counts as one document, cut by section
    where a dev split is needed; where both share nodes, each node is a document of its own. An id that both use for
    different nodes or questions is told apart as ``dev:ID``.

    Args:
        train: to train on.
        val: becomes dev; None leaves dev to be cut from train.
        all_docs: take every relevant node of a question; False takes the first, as LlamaIndex does.

    Raises:
        DatasetError: a question without a node, or a node without a text.
    """
    shared = val is not None and bool(train.corpus.items() & val.corpus.items())
    corpus: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    qrels: dict[str, Qrels] = {}
    for split, given in (("train", train), ("dev", val)):
        if given is None:
            continue
        nodes = _names(given.corpus, {key: chunk.text for key, chunk in corpus.items()}, split)
        asked = _names(given.queries, {key: query.text for key, query in queries.items()}, split)
        for place, (key, text) in enumerate(given.corpus.items()):
            corpus[nodes[key]] = _chunk(nodes[key], text, place, "" if shared else split)
        queries.update({asked[key]: Query(text, id=asked[key]) for key, text in given.queries.items()})
        qrels[split] = {
            asked[key]: {nodes[node]: grade for node, grade in _judged(given, key, all_docs).items()}
            for key in given.queries
        }
    return RetrievalDataset(corpus, queries, qrels, {"name": "llama-index", "imported": "llama-index"})


def _names(given: Mapping[str, str], known: Mapping[str, str], split: str) -> dict[str, str]:
    """Each id, with the split before it where it already names another text."""
    return {key: key if known.get(key, text) == text else f"{split}:{key}" for key, text in given.items()}


def _chunk(key: str, text: str, place: int, document: str) -> Chunk:
    return Chunk(text, document_id=document, source=document, start=place if document else -1, id=key)


def _judged(dataset: QADataset, query: str, all_docs: bool) -> dict[str, int]:
    relevant: Mapping[str, list[str]] = dataset.relevant_docs
    nodes = relevant.get(query) or []
    if not nodes:
        raise DatasetError(f"the question '{query}' has no relevant_docs.", "Remove it, or name the node it is about.")
    for node in nodes:
        if node not in dataset.corpus:
            raise DatasetError(f"the question '{query}' names the node '{node}', which the corpus does not hold.")
    return dict.fromkeys(nodes if all_docs else nodes[:1], 1)


def with_dev_split(data: RetrievalDataset, seed: int, progress: Progress) -> RetrievalDataset | None:
    """With a dev split; None where there are too few questions to cut one."""
    try:
        return with_dev(data, seed)
    except DatasetError as error:
        progress.warn(f"{error} Training goes on without, and the last state is kept.")
        return None
