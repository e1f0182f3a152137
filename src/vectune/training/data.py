"""What the loop trains on, as indices: queries, chunks, positives, and which chunks are kin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from vectune import bulk
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.ids import numbered
from vectune.runs import hash_of
from vectune.splits import SplitOptions, near_duplicates, train_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[Any]  # int64, or int32 where there are millions
    Bools = NDArray[np.bool_]

# A document of so few chunks (a thread, a page of a manual) speaks of one thing: all of them are kin. In a longer one
# telling the right chunk from its siblings is what has to be learnt, and only a positive's direct neighbours are kin:
# on legalbenchrag, 11 chunks a contract, dev rose by .25 in 15 steps with all siblings masked, and by .32 without.
SMALL_DOCUMENT = 5


@dataclass(frozen=True)
class Ragged:
    """Lists of numbers in two arrays: list ``i`` is ``values[starts[i]:starts[i + 1]]``.

    Attributes:
        values: all lists, one after another.
        starts: shape (n + 1,).
    """

    values: Ints
    starts: Ints

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        ends = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(np.array([value for part in lists for value in part], dtype=np.int64), ends)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Ints:
        part: Ints = self.values[self.starts[number] : self.starts[number + 1]]
        return part

    def __iter__(self) -> Iterator[Ints]:
        return map(self.__getitem__, range(len(self)))


class Lines(Sequence[str]):
    """Texts that are read from disk when they are asked for.

    Args:
        read: row → text.
        rows: of the texts, in order.
    """

    def __init__(self, read: Callable[[int], str], rows: Sequence[int] | Ints) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Lines: ...
    def __getitem__(self, at: int | slice) -> str | Lines:
        return Lines(self._read, self._rows[at]) if isinstance(at, slice) else self._read(int(self._rows[at]))


@dataclass
class TrainingData:
    """Train and dev of a dataset in index form.

    Attributes:
        chunks: contents of all chunks of the corpus, in its order.
        queries: texts of the train queries, each once.
        positives: for each train query, indices of its chunks, best grade first.
        key: changes with the data.
        dev_queries: texts of the dev queries.
        dev_grades: for each dev query, chunk index → grade.
        pool: True where a chunk may serve as a negative, shape (chunks,).
        document: which document a chunk belongs to, shape (chunks,).
        place: where the chunk stands in its document, shape (chunks,).
        same: equal numbers for chunks with nearly equal text under the same title, shape (chunks,). Under another
            title it is another matter: which contract a clause belongs to may be what is asked for.
        on_disk: texts are read when they are asked for: there are too many to embed or mine them all.
    """

    chunks: Sequence[str]
    queries: Sequence[str]
    positives: Ragged
    key: str
    dev_queries: list[str]
    dev_grades: list[dict[int, int]]
    pool: Bools
    document: Ints
    place: Ints
    same: Ints
    on_disk: bool = False

    @classmethod
    def of(cls, dataset: RetrievalDataset) -> TrainingData:
        """Take a dataset that has the splits train and dev.

        Raises:
            DatasetError: fewer than two different queries to train on.
        """
        return cls._on_disk(dataset) if bulk.is_bulk(dataset) else cls._in_memory(dataset)

    @classmethod
    def _in_memory(cls, dataset: RetrievalDataset) -> TrainingData:
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
        contents_of = [chunk.content for chunk in chunks]
        positives = [[index[c] for c in sorted(judged, key=lambda c: -judged[c])] for judged in train.values()]
        dev_queries = [dataset.queries[query].text for query in dev]
        dev_grades = [{index[c]: grade for c, grade in judged.items()} for judged in dev.values()]
        pool = [chunk.id in allowed for chunk in chunks]
        document = [documents.setdefault(chunk.document_id, len(documents)) for chunk in chunks]
        return cls(
            chunks=contents_of,
            queries=list(train),
            positives=Ragged.of(positives),
            key=hash_of([list(train), positives, dev_queries, dev_grades, contents_of, pool, document]),
            dev_queries=dev_queries,
            dev_grades=dev_grades,
            pool=np.array(pool),
            document=np.array(document),
            place=place,
            same=np.array([contents.setdefault((group.get(c.id, c.content), c.title), len(contents)) for c in chunks]),
        )

    @classmethod
    def _on_disk(cls, dataset: RetrievalDataset) -> TrainingData:
        """Of millions of pairs: rows in arrays, with the epoch about 200 bytes a pair with its query and chunk."""
        train, queries, corpus = bulk.parts(dataset)
        dev = dataset.split("dev")
        asked = numbered(queries.contents)[train.asked]  # the same words asked twice are one query
        order = np.lexsort((train.chunks, -train.grades, asked))
        again = (np.diff(asked[order], prepend=-1) == 0) & (np.diff(train.chunks[order], prepend=-1) == 0)
        order = order[~again]
        starts = np.flatnonzero(np.diff(asked[order], prepend=-1))
        dev_grades = [{corpus.ids.row(c): grade for c, grade in judged.items()} for judged in dev.values()]
        pool = bulk.pool(dataset)
        rows, values = train.asked[order[starts]], train.chunks[order]
        place = np.empty(len(corpus), dtype=np.int32)
        along = np.lexsort((corpus.starts, corpus.documents))
        firsts = np.flatnonzero(np.diff(corpus.documents[along], prepend=-1))
        lengths = np.diff(np.append(firsts, len(along)))
        place[along] = np.arange(len(along)) - np.repeat(firsts, lengths)
        return cls(
            chunks=Lines(lambda row: corpus.at(row).content, range(len(corpus))),
            queries=Lines(lambda row: queries.at(row).text, rows),
            positives=Ragged(values, np.append(starts, len(values))),
            key=hash_of([dev_grades, *(hashlib.blake2b(part.tobytes()).hexdigest() for part in (
                queries.contents, corpus.contents, values, rows, pool, corpus.documents))]),
            dev_queries=[dataset.queries[query].text for query in dev],
            dev_grades=dev_grades,
            pool=pool,
            document=corpus.documents,
            place=place,
            same=numbered(corpus.contents),
            on_disk=True,
        )  # fmt: skip

    def among(self, chunks: Ints) -> TrainingData:
        """The same with these chunks alone, for looking at dev: what is trained on is left out."""
        at = {int(chunk): place for place, chunk in enumerate(chunks)}
        return replace(
            self,
            chunks=[self.chunks[chunk] for chunk in chunks],
            positives=Ragged.of([]),
            dev_grades=[{at[chunk]: grade for chunk, grade in grades.items()} for grades in self.dev_grades],
            pool=self.pool[chunks],
            document=self.document[chunks],
            place=self.place[chunks],
            same=self.same[chunks],
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
