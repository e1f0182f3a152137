"""Does a query find the chunk it was written for, and which other chunks answer it as well?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectune.lexical import BM25, fuse
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder
from vectune.records import Chunk, WrittenQuery

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_BLOCK = 128  # queries scored at once
_SAME_CONTENT = 0.85  # cosine of two chunks from which on they are taken to say the same
_AS_GOOD = 0.9  # share of the own chunk's score, lexical and dense, that a further positive must reach
_COMPARED = 20_000  # chunks that a query is ranked against; drawn where a corpus has more, for each is embedded
_WITHOUT_VECTORS = 0.6  # share of common words that stands for the cosine where there is no embedder


@dataclass(frozen=True)
class ConsistencyOptions:
    """See ``FilterOptions``: ``first`` ranks count as found, more than ``further`` other answers are too many."""

    first: int = 20
    further: int = 3


@dataclass(frozen=True)
class Judgment:
    """Why the query goes (empty if it stays), and ids of chunks that answer it as well."""

    reason: str = ""
    further: tuple[str, ...] = ()


def consistent(
    written: Sequence[WrittenQuery],
    corpus: Mapping[str, Chunk],
    embedder: Embedder | None = None,
    options: ConsistencyOptions | None = None,
    progress: Progress = SILENT,
) -> Iterator[Judgment]:
    """A judgment for each query, in order.

    Scores are the sum of the z-scores of BM25 and of the cosine over the corpus; BM25 alone without an embedder. Of a
    large corpus, only the queries' own chunks and as many others as make 20,000 are looked at.
    """
    options = options or ConsistencyOptions()
    ids = _compared(written, corpus)
    place = {chunk: index for index, chunk in enumerate(ids)}
    texts = [corpus[chunk].content for chunk in ids]
    bm25 = BM25(texts)
    vectors = embedder.embed_documents(texts) if embedder is not None else None
    with progress.task("check queries", len(written), "queries") as task:
        for start in range(0, len(written), _BLOCK):
            block = written[start : start + _BLOCK]
            queries = [one.query.text for one in block]
            lexical = bm25.all_scores(queries)
            dense = embedder.embed_queries(queries) @ vectors.T if embedder and vectors is not None else None
            for row, one in enumerate(block):
                own = np.array([place[chunk] for chunk in one.chunk_ids if chunk in place], dtype=np.int64)
                scores = _Scores(lexical[row], dense[row] if dense is not None else None, vectors, texts)
                yield _judge(own, scores, ids, options)
            task.advance(len(block))


def _compared(written: Sequence[WrittenQuery], corpus: Mapping[str, Chunk]) -> list[str]:
    """Ids of the chunks to rank, in the corpus's order: all, or the queries' own and a draw of the others."""
    if len(corpus) <= _COMPARED:
        return list(corpus)
    chosen = {chunk for one in written for chunk in one.chunk_ids if chunk in corpus}
    others = [chunk for chunk in corpus if chunk not in chosen]
    chosen.update(random.Random(0).sample(others, max(0, min(_COMPARED - len(chosen), len(others)))))
    return [chunk for chunk in corpus if chunk in chosen]


@dataclass(frozen=True)
class _Scores:
    """One query's scores over the corpus, and what tells how alike two chunks are."""

    lexical: Floats
    dense: Floats | None
    vectors: Floats | None
    texts: Sequence[str]

    def fused(self) -> Floats:
        return self.lexical if self.dense is None else fuse(self.dense, self.lexical, 0.5)

    def as_good(self, own: int) -> NDArray[np.int64]:
        """Chunks that reach the own one's scores, lexical and dense."""
        good = self.lexical >= _AS_GOOD * self.lexical[own]
        if self.dense is not None:
            good &= self.dense >= _AS_GOOD * self.dense[own]
        return np.flatnonzero(good)

    def say_the_same(self, own: int, other: int) -> bool:
        if self.vectors is not None:
            return bool(self.vectors[own] @ self.vectors[other] >= _SAME_CONTENT)
        first, second = set(self.texts[own].casefold().split()), set(self.texts[other].casefold().split())
        return len(first & second) >= _WITHOUT_VECTORS * max(1, len(first | second))


def _judge(own: NDArray[np.int64], scores: _Scores, ids: Sequence[str], options: ConsistencyOptions) -> Judgment:
    if not len(own):
        return Judgment("its chunk is not in the corpus")
    fused = scores.fused()
    best = int(own[np.argmax(fused[own])])
    above = int((fused > fused[best]).sum())
    if above >= options.first or (scores.dense is None and scores.lexical[best] == 0):
        return Judgment("does not find its chunk")
    alike = [int(other) for other in scores.as_good(best)[: 50 * (options.further + 1)] if other not in own]
    further = [other for other in alike if scores.say_the_same(best, other)]
    if len(further) > options.further:
        return Judgment("answered by many chunks")
    return Judgment(further=tuple(ids[other] for other in further))
