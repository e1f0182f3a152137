"""What the loop trains on, as indices: queries, chunks, positives, and which chunks are kin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.splits import train_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# A document that holds more of the training positives than this is a corpus of its own (a 238-page filing): only a
# positive's direct neighbours are its kin there. Smaller documents speak of one thing: all their chunks are kin.
LARGE_DOCUMENT = 0.1


@dataclass
class TrainingData:
    """Train and dev of a dataset in index form.

    Attributes:
        chunks: contents of all chunks of the corpus, in its order.
        queries: texts of the train queries, each once.
        positives: for each train query, indices of its chunks, best grade first.
        dev_queries: texts of the dev queries.
        dev_grades: for each dev query, chunk index → grade.
        pool: True where a chunk may serve as a negative, shape (chunks,).
        document: which document a chunk belongs to, shape (chunks,).
        place: where the chunk stands in its document, shape (chunks,).
        same: equal numbers for chunks with equal text, shape (chunks,).
    """

    chunks: list[str]
    queries: list[str]
    positives: list[list[int]]
    dev_queries: list[str]
    dev_grades: list[dict[int, int]]
    pool: Bools
    document: Ints
    place: Ints
    same: Ints

    @classmethod
    def of(cls, dataset: RetrievalDataset) -> TrainingData:
        """Take a dataset that has the splits train and dev.

        Raises:
            DatasetError: fewer than two different queries to train on.
        """
        index = {chunk_id: row for row, chunk_id in enumerate(dataset.corpus)}
        chunks = list(dataset.corpus.values())
        allowed = train_pool(dataset)
        documents: dict[str, int] = {}
        contents: dict[str, int] = {}
        place = np.zeros(len(chunks), dtype=np.int64)
        for members in dataset.chunks_of.values():
            for position, chunk_id in enumerate(sorted(members, key=lambda key: dataset.corpus[key].start)):
                place[index[chunk_id]] = position
        train, dev = _by_text(dataset, "train"), dataset.split("dev")
        if len(train) < 2:
            raise DatasetError(
                f"the train split of '{dataset.name}' holds {len(train)} different queries; nothing can be learnt.",
                "At least 2 are needed, and a hundred to expect a gain.",
            )
        return cls(
            chunks=[chunk.content for chunk in chunks],
            queries=list(train),
            positives=[[index[c] for c in sorted(judged, key=lambda c: -judged[c])] for judged in train.values()],
            dev_queries=[dataset.queries[query].text for query in dev],
            dev_grades=[{index[c]: grade for c, grade in judged.items()} for judged in dev.values()],
            pool=np.array([chunk.id in allowed for chunk in chunks]),
            document=np.array([documents.setdefault(chunk.document_id, len(documents)) for chunk in chunks]),
            place=place,
            same=np.array([contents.setdefault(chunk.content, len(contents)) for chunk in chunks]),
        )

    @cached_property
    def large(self) -> Bools:
        """True for documents whose chunks are kin to their direct neighbours only; shape (documents,)."""
        firsts = [chunks[0] for chunks in self.positives]
        share = np.bincount(self.document[firsts], minlength=int(self.document.max()) + 1) / max(len(firsts), 1)
        return np.asarray(share > LARGE_DOCUMENT)

    def answers(self, query: int, candidates: Ints) -> Bools:
        """Which candidates are further positives of a train query, or equal one word for word; shape of candidates."""
        return np.isin(self.same[candidates], self.same[self.positives[query]])

    def neighbours(self, query: int, candidates: Ints) -> Bools:
        """Which candidates stand directly beside a positive; they often hold the rest of the answer."""
        found = np.zeros(len(candidates), dtype=bool)
        for chunk in self.positives[query]:
            near = np.abs(self.place[candidates] - self.place[chunk]) <= 1
            found |= near & (self.document[candidates] == self.document[chunk])
        return found

    def kin(self, query: int, candidates: Ints) -> Bools:
        """Which candidates must not count as negatives when they are in the batch only by chance."""
        own = {int(self.document[chunk]) for chunk in self.positives[query]}
        small = np.array([document for document in own if not self.large[document]], dtype=np.int64)
        siblings = np.isin(self.document[candidates], small)
        return siblings | self.answers(query, candidates) | self.neighbours(query, candidates)


def _by_text(dataset: RetrievalDataset, split: str) -> dict[str, dict[str, int]]:
    """Query text → chunk id → best grade: the same words asked twice are one query with the positives of both."""
    found: dict[str, dict[str, int]] = {}
    for query, judged in dataset.split(split).items():
        own = found.setdefault(dataset.queries[query].text, {})
        for chunk, grade in judged.items():
            own[chunk] = max(grade, own.get(chunk, 0))
    return found
