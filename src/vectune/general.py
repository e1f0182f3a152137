"""The general set: queries on documents that no split touches, to see whether tuning cost the model elsewhere."""

from __future__ import annotations

import hashlib

from vectune.dataset import RetrievalDataset
from vectune.protocols import QueryWriter
from vectune.records import WrittenQuery


def general_set(
    dataset: RetrievalDataset, writer: QueryWriter, *, queries: int = 300, fewest: int = 30, seed: int = 0
) -> RetrievalDataset | None:
    """Queries for chunks of documents that hold no positive of train, dev or test, over the whole corpus.

    Args:
        dataset: its corpus is what is searched.
        writer: who writes the queries; the extractive one needs neither model nor network.
        queries: about how many; one for each chunk, spread over documents.
        fewest: with fewer than that, nothing could be concluded.
        seed: which chunks.

    Returns:
        A dataset whose test split are these queries, marked as generated; None where too few documents are untouched.
    """
    touched = {
        dataset.corpus[chunk].document_id
        for qrels in dataset.qrels.values()
        for judged in qrels.values()
        for chunk in judged
    }
    free = [chunk for chunk in dataset.corpus.values() if chunk.document_id not in touched]
    drawn = sorted(free, key=lambda chunk: hashlib.sha256(f"{seed}\x1f{chunk.id}".encode()).digest())[:queries]
    written: dict[str, WrittenQuery] = {}
    for found in writer.write(drawn):
        if found.chunk_ids:
            written.setdefault(found.chunk_ids[0], found)
    texts = {found.query.id: found for found in written.values()}
    if len(texts) < fewest:
        return None
    return RetrievalDataset(
        corpus=dataset.corpus,
        queries={key: found.query for key, found in texts.items()},
        qrels={"test": {key: dict.fromkeys(found.chunk_ids, 1) for key, found in texts.items()}},
        info={"name": f"{dataset.name}, untouched documents", "generated": True},
    )
