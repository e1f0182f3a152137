"""A small dataset that a random model can learn in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vectune.dataset import Qrels, RetrievalDataset
from vectune.records import Chunk, Query

THINGS = (
    "apple battery beer bread bridge car cat city coffee contract device dog engine fire fish garden glass lamp law "
    "letter machine milk moon music"
).split()
USES = ("open", "close", "heat", "sell")


def small_dataset(documents: int = 24) -> RetrievalDataset:
    """A document for each thing with a chunk for each use; every fourth document is for testing."""
    corpus: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    qrels: dict[str, Qrels] = {}
    for number, thing in enumerate(THINGS[:documents]):
        for use in USES:
            chunk = Chunk(f"you can {use} the {thing} with your hand", document_id=thing, id=f"{thing}-{use}")
            query = Query(f"how do I {use} a {thing}", id=f"q-{thing}-{use}")
            corpus[chunk.id], queries[query.id] = chunk, query
            split = "test" if number % 4 == 3 else "train"
            qrels.setdefault(split, {})[query.id] = {chunk.id: 1}
    return RetrievalDataset(corpus, queries, qrels, {"name": "small"})


def stored_dataset() -> RetrievalDataset:
    """The same, opened as one whose queries are too many for the memory."""
    with TemporaryDirectory() as folder:  # open files go on being read
        small_dataset().write(Path(folder) / "small")
        return RetrievalDataset._stored(Path(folder) / "small")


def with_chunk(dataset: RetrievalDataset, key: str, **changes: Any) -> RetrievalDataset:
    """The dataset with one chunk changed; under another id it is a further one."""
    chunk = replace(dataset.corpus[key], **changes)
    return replace(dataset, corpus={**dataset.corpus, chunk.id: chunk})
