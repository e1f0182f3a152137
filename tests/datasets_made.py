"""Small datasets for tests, made from a fixed vocabulary."""

from __future__ import annotations

import random

from vectune.dataset import Qrels, RetrievalDataset
from vectune.records import Chunk, Query

WORDS = (
    "river stone bridge engine valve pump sensor report invoice tax harbour ship cargo crane battery cable fuse screen "
    "menu remote channel record garden soil seed tomato frost winter summer market price share bond court judge law"
).split()


def random_text(rng: random.Random, length: int = 30) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length)).capitalize() + "."


def make_dataset(documents: int = 12, chunks: int = 5, seed: int = 0) -> RetrievalDataset:
    """Every chunk has one query in train."""
    rng = random.Random(seed)
    corpus: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    train: Qrels = {}
    for document in range(documents):
        for place in range(chunks):
            key = f"d{document}-c{place}"
            corpus[key] = Chunk(random_text(rng), f"Title {document}", f"d{document}", start=place * 100, id=key)
            query = Query(f"query {document} {place} {rng.choice(WORDS)}", id=f"q-{key}")
            queries[query.id] = query
            train[query.id] = {key: 1}
    return RetrievalDataset(corpus, queries, {"train": train}, {"name": "made"})
