"""What the loop trains on, as indices: queries, chunks, positives, and which chunks are kin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.splits import SplitOptions, near_duplicates, train_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# A document of so few chunks (a thread, a page of a manual) speaks of one thing: all of them are kin. In a longer one
# telling the right chunk from its siblings is what has to be learnt, and only a positive's direct neighbours are kin:
# on legalbenchrag, 11 chunks a contract, dev rose by .25 in 15 steps with all siblings masked, and by .32 without.
SMALL_DOCUMENT = 5


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
        same: equal numbers for chunks with nearly equal text under the same title, shape (chunks,). Under another
            title it is another matter: which contract a clause belongs to may be what is asked for.
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
        group = {
            chunk_id: str(number)
            for number, members in enumerate(near_duplicates(dataset.corpus, SplitOptions().near_duplicate))
            for chunk_id in members
        }
        contents: dict[tuple[str, str], int] = {}
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
            same=np.array([contents.setdefault((group.get(c.id, c.content), c.title), len(contents)) for c in chunks]),
        )

    @cached_property
    def small(self) -> Bools:
        """True for documents whose chunks are all kin to each other; shape (documents,)."""
        return np.asarray(np.bincount(self.document) <= SMALL_DOCUMENT)

    def answers(self, query: int, candidates: Ints) -> Bools:
        """Which candidates are further positives of a train query, or nearly equal one; shape of candidates."""
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
        siblings = np.isin(self.document[candidates], [document for document in own if self.small[document]])
        return siblings | self.answers(query, candidates) | self.neighbours(query, candidates)


def _by_text(dataset: RetrievalDataset, split: str) -> dict[str, dict[str, int]]:
    """Query text → chunk id → best grade: the same words asked twice are one query with the positives of both."""
    found: dict[str, dict[str, int]] = {}
    for query, judged in dataset.split(split).items():
        own = found.setdefault(dataset.queries[query].text, {})
        for chunk, grade in judged.items():
            own[chunk] = max(grade, own.get(chunk, 0))
    return found
