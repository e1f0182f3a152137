"""What splits.py does, for millions of pairs on disk: over arrays of rows, and with word-for-word repeats alone.

Near-duplicates of ten million chunks would take hours to find and more memory than training does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vectune.corpus import StoredCorpus
from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.ids import numbered
from vectune.judgments import StoredQrels
from vectune.stored import StoredQueries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Rows = NDArray[Any]

NOTE = (
    "The data stay on disk: chunks and queries that repeat others word for word were looked for, near-duplicates not."
)


def is_bulk(dataset: RetrievalDataset) -> bool:
    """Whether the train pairs are on disk."""
    return isinstance(dataset.qrels.get("train"), StoredQrels)


def parts(dataset: RetrievalDataset) -> tuple[StoredQrels, StoredQueries, StoredCorpus]:
    """Train judgments, queries and corpus of such a dataset."""
    train: Any = dataset.split("train")
    return train, train.queries, train.corpus


def held_rows(dataset: RetrievalDataset, split: str) -> tuple[Rows, Rows]:
    """Rows of the queries and of the chunks that a small split judges."""
    _, queries, corpus = parts(dataset)
    judged = dataset.qrels.get(split, {})
    asked = [queries.ids.row(query) for query in judged]
    chunks = [corpus.ids.row(chunk) for found in judged.values() for chunk in found]
    return np.array(asked, dtype=np.int64), np.array(chunks, dtype=np.int64)


def near(corpus: StoredCorpus, chunks: Rows) -> Bools:
    """The chunks of the same documents, and those whose text repeats one of these word for word; shape (corpus,)."""
    inside = np.isin(corpus.documents, np.unique(corpus.documents[chunks]))
    found: Bools = inside | np.isin(corpus.texts, np.unique(corpus.texts[inside]))
    return found


def pool(dataset: RetrievalDataset) -> Bools:
    """Which chunks may serve as negatives: see ``splits.train_pool``; shape (corpus,)."""
    train, _, corpus = parts(dataset)
    held = np.concatenate([held_rows(dataset, split)[1] for split in ("dev", "test")])
    allowed = ~near(corpus, held)
    allowed[train.chunks] = True
    return allowed


def cut_dev(dataset: RetrievalDataset, seed: int, share: float, most: int) -> RetrievalDataset:
    """A dev split cut from train by document; see ``splits.with_dev``.

    As many documents as it takes, but no more (beyond the first query) where a fifth of the queries has a positive in
    them: those are lost for train.

    Raises:
        DatasetError: the documents are too few or too large.
    """
    train, _, corpus = parts(dataset)
    wanted = max(min(round(share * len(train)), most), 1)
    draw = np.random.default_rng([seed, 11])
    documents = draw.permutation(np.unique(corpus.documents[train.chunks]))
    turn = np.zeros(len(corpus), dtype=np.int32)  # of each document
    turn[documents] = np.arange(len(documents))
    starts = np.flatnonzero(np.diff(train.asked, prepend=-1))
    turns = turn[corpus.documents[train.chunks]]
    first, last = np.minimum.reduceat(turns, starts), np.maximum.reduceat(turns, starts)
    bearable = np.sort(first)[len(first) // 5]
    taken = max(int(min(np.sort(last)[wanted - 1] + 1, bearable)), int(last.min()) + 1)
    drawn = documents[:taken]
    whole = draw.permutation(train.asked[starts][last < taken])[:wanted]
    held = np.isin(train.asked, whole)
    rest = ~near(corpus, np.flatnonzero(np.isin(corpus.documents, drawn)))[train.chunks]
    texts = numbered(train.queries.contents)
    rest &= ~np.isin(train.asked, train.asked[~rest]) & ~np.isin(texts[train.asked], texts[whole])
    if not held.any() or not rest.any():
        raise DatasetError(
            f"no dev split can be cut from the train split of '{dataset.name}' by document.", "Add qrels/dev.tsv."
        )
    qrels = {**dataset.qrels, "train": cast(Qrels, train.take(rest)), "dev": train.take(held).as_dict()}
    return replace(dataset, qrels=qrels)


def shared(dataset: RetrievalDataset, split: str) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """What train and a held split share: its kind, the ids concerned, and how many judgments it affects."""
    train, queries, corpus = parts(dataset)
    asked, chunks = held_rows(dataset, split)
    trained = np.zeros(len(corpus), dtype=bool)
    trained[train.chunks] = True
    for document in np.unique(corpus.documents[train.chunks[np.isin(
        corpus.documents[train.chunks], corpus.documents[chunks])]]):  # fmt: skip
        own = chunks[corpus.documents[chunks] == document]
        yield "document", (corpus.at(int(own[0])).document_id,), len(own)
    same = trained & np.isin(corpus.texts, corpus.texts[chunks])
    for row in np.flatnonzero(same):
        twin = chunks[corpus.texts[chunks] == corpus.texts[row]][0]
        if corpus.documents[row] != corpus.documents[twin]:
            yield "near-duplicate", (corpus.id_at(int(row)), corpus.id_at(int(twin))), 1
    learnt = np.zeros(len(queries), dtype=bool)
    learnt[train.asked] = True
    for row in np.flatnonzero(learnt & np.isin(queries.contents, queries.contents[asked])):
        twin = asked[queries.contents[asked] == queries.contents[row]][0]
        yield "query", (queries.id_at(int(row)), queries.id_at(int(twin))), 1
