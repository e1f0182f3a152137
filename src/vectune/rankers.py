"""What a row of the board is: something that ranks the chunks of a corpus for a query.

Names follow one grammar: ``bm25``; ``hybrid:NAME``; an embedder's NAME as ``embedders.factory`` opens it; and behind
an embedder's name ``@256`` (the first 256 dimensions, for Matryoshka models), ``@int8`` and ``@binary``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from vectune.errors import UsageError
from vectune.lexical import BM25, zscores
from vectune.retrieval import top_k, top_k_and_ranks, top_of_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vectune.products import Floats, Ints, Rows
    from vectune.ranks import Pairs

    Ranked = list[tuple[Ints, Floats]]  # for each query: indices of chunks, best first, and their scores

QUANTIZATIONS = ("int8", "binary")
RESCORED = 4  # binary codes shortlist this many times k before rescoring, as Yamada et al. 2021 and its users do
_ROW_BLOCK = 1 << 24  # scores of a hybrid held at a time: 64 MB


@dataclass(frozen=True)
class RowName:
    """A row's name taken apart.

    Attributes:
        text: as it was named; the row's name on the board.
        model: the embedder's name; empty for ``bm25``.
        hybrid: fused with BM25.
        dims: the first dimensions only; 0 keeps all.
        quantization: ``int8``, ``binary`` or empty.
    """

    text: str
    model: str = ""
    hybrid: bool = False
    dims: int = 0
    quantization: str = ""

    @property
    def kind(self) -> str:
        return "hybrid" if self.hybrid else "dense" if self.model else "bm25"


def parse_name(text: str) -> RowName:
    """Take a row's name apart.

    Raises:
        UsageError: an empty name, or something unknown behind an ``@``.
    """
    if text == "bm25":
        return RowName(text)
    hybrid = text.startswith("hybrid:")
    model = text.removeprefix("hybrid:")
    dims, quantization = 0, ""
    while "@" in model and not Path(model).expanduser().exists():
        front, _, suffix = model.rpartition("@")
        if suffix in QUANTIZATIONS and not quantization:
            quantization = suffix
        elif re.fullmatch("[1-9][0-9]*", suffix) and not dims:
            dims = int(suffix)
        else:
            raise UsageError(f"'{text}': nothing is known of '@{suffix}'.", "Write NAME@256, NAME@int8 or NAME@binary.")
        model = front
    if get_close_matches(model.lower(), ["bm25"], cutoff=0.7) and model != "bm25" and not Path(model).exists():
        raise UsageError(f"'{text}' is no model.", f"Did you mean {text.replace(model, 'bm25')}?")
    if not model or model == "bm25":
        raise UsageError(f"'{text}' names no embedder.", "Write hybrid:NAME, where NAME is a model.")
    if hybrid and quantization:
        raise UsageError(f"'{text}': a hybrid keeps its vectors in float32.", f"Leave out '@{quantization}'.")
    return RowName(text, model, hybrid, dims, quantization)


class Placed(NamedTuple):
    """Of the rankings of some queries what their measures depend on.

    Attributes:
        heads: the first chunks of each.
        ranks: of the chunks that were asked about, counted from 1; 0 where a chunk is beyond the depth.
        lengths: how many chunks each ranking holds to that depth, shape (q,).
    """

    heads: Ranked
    ranks: Ints
    lengths: Ints


class Ranker(Protocol):
    """Ranks chunks. ``texts`` and ``vectors`` are the same queries; BM25 reads one, vectors the other."""

    @property
    def index_bytes(self) -> int: ...

    def rank(
        self, texts: Sequence[str], vectors: Floats | None, k: int, advance: Callable[[int], object] | None = None
    ) -> Ranked:
        """The best k chunks of each query; fewer where nothing more is found. ``advance`` counts queries."""
        ...


def place(
    ranker: Ranker,
    texts: Sequence[str],
    vectors: Floats | None,
    pairs: Pairs,
    kept: int,
    depth: int,
    advance: Callable[[int], object] | None = None,
) -> Placed:
    """The first ``kept`` chunks of each ranking, and the ranks of some chunks in it down to a depth."""
    if isinstance(ranker, Vectors):
        placed = ranker.place(vectors, pairs, min(kept, depth), depth)
        if advance is not None:
            advance(len(texts))
        return placed
    ranked = ranker.rank(texts, vectors, depth, advance)
    ranks = np.zeros(len(pairs.chunks), dtype=np.int64)
    for at, (query, chunk) in enumerate(zip(*pairs, strict=True)):
        found = np.flatnonzero(ranked[query][0] == chunk)
        ranks[at] = found[0] + 1 if len(found) else 0
    heads = [(indices[:kept], scores[:kept]) for indices, scores in ranked]
    return Placed(heads, ranks, np.array([len(indices) for indices, _ in ranked], dtype=np.int64))


class Lexical:
    """BM25. A chunk that shares no word with the query is not found."""

    def __init__(self, bm25: BM25, ties: Ints) -> None:
        self.bm25, self.ties = bm25, ties

    @property
    def index_bytes(self) -> int:
        return bm25_bytes(self.bm25)

    def rank(
        self, texts: Sequence[str], vectors: Floats | None, k: int, advance: Callable[[int], object] | None = None
    ) -> Ranked:
        found = []
        for text in texts:
            scores = self.bm25.scores(text)
            best = top_of_scores(scores, k, self.ties)
            best = best[scores[best] > 0]
            found.append((best, scores[best]))
            if advance is not None:
                advance(1)
        return found


class Vectors:
    """Exact search by dot product.

    Args:
        rows: unit vectors, or codes that turn into them.
        ties: as in ``retrieval.top_k``.
    """

    def __init__(self, rows: Rows, ties: Ints) -> None:
        self.rows, self.ties = rows, ties

    def rank(
        self, texts: Sequence[str], vectors: Floats | None, k: int, advance: Callable[[int], object] | None = None
    ) -> Ranked:
        indices, scores = top_k(_given(vectors), self.rows, k, self.ties)
        if advance is not None:
            advance(len(texts))
        return list(zip(indices, scores, strict=True))

    def place(self, vectors: Floats | None, pairs: Pairs, kept: int, depth: int) -> Placed:
        """As the function of this name; ranks are counted, which takes less than making the rankings."""
        queries = _given(vectors)
        indices, scores, ranks = top_k_and_ranks(queries, self.rows, kept, pairs, depth, self.ties)
        lengths = np.full(len(queries), min(depth, len(self.rows)), dtype=np.int64)
        return Placed(list(zip(indices, scores, strict=True)), ranks, lengths)


class Dense(Vectors):
    """Vectors as they are."""

    def __init__(self, corpus: Floats, ties: Ints) -> None:
        super().__init__(corpus, ties)
        self.index_bytes = int(corpus.nbytes)


class Int8(Vectors):
    """Each dimension in 256 steps between its lowest and highest value in the corpus; queries stay float32.

    Codes become floats block by block while they are searched, which a store's int8 kernels need not do.
    """

    def __init__(self, corpus: Floats, ties: Ints) -> None:
        super().__init__(self, ties)
        self.low = corpus.min(axis=0)
        self.step = np.maximum((corpus.max(axis=0) - self.low) / np.float32(255), np.float32(1e-12))
        self.codes = np.rint((corpus - self.low) / self.step).astype(np.uint8)

    @property
    def index_bytes(self) -> int:
        return int(self.codes.nbytes + self.low.nbytes + self.step.nbytes)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, part: slice | Ints) -> Floats:
        found: Floats = self.codes[part].astype(np.float32) * self.step + self.low
        return found


class Binary:
    """One bit a dimension. The bits that differ shortlist ``RESCORED`` times k chunks, counted in machine words; the
    query's floats against the bits give the order.
    """

    def __init__(self, corpus: Floats, ties: Ints) -> None:
        self.ties, self.dim = ties, int(corpus.shape[1])
        self.words = self._packed(corpus)

    @property
    def index_bytes(self) -> int:
        return len(self) * -(-self.dim // 8)  # without what fills up the last word

    def __len__(self) -> int:
        return int(self.words.shape[1])

    def __getitem__(self, part: slice | Ints) -> Floats:
        codes = np.ascontiguousarray(self.words[:, part].T).view(np.uint8)
        bits = np.unpackbits(codes, axis=-1, count=self.dim).astype(np.float32)
        return (2 * bits - 1) / np.float32(np.sqrt(self.dim))

    def rank(
        self, texts: Sequence[str], vectors: Floats | None, k: int, advance: Callable[[int], object] | None = None
    ) -> Ranked:
        queries = _given(vectors)
        found = []
        for query, code in zip(queries, self._packed(queries).T, strict=True):
            candidates = top_of_scores(-self._distances(code), k * RESCORED, self.ties)
            scores = np.einsum("ij,j->i", self[candidates].astype(np.float64), query).astype(np.float32)
            best = top_of_scores(scores, k, self.ties[candidates])
            found.append((candidates[best], scores[best]))
            if advance is not None:
                advance(1)
        return found

    def _packed(self, vectors: Floats) -> NDArray[np.uint64]:
        """Which dimensions are positive, 64 to a word, of shape (words, n): one pass over each word of all chunks."""
        codes = np.packbits(np.asarray(vectors) > 0, axis=1)
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8)))
        return np.ascontiguousarray(padded.view(np.uint64).T)

    def _distances(self, code: NDArray[np.uint64]) -> NDArray[np.int32]:
        """How many bits of each chunk differ from the code's."""
        found = np.zeros(len(self), dtype=np.int32)
        for words, word in zip(self.words, code, strict=True):
            found += _ones(words ^ word)
        return found


_ONES_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits of each word are set; NumPy counts them itself from version 2 on."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    counts: NDArray[np.uint8] = _ONES_OF_BYTE[words.view(np.uint8)].reshape(len(words), 8).sum(axis=1, dtype=np.uint8)
    return counts


class Hybrid:
    """``weight · z(BM25) + (1 − weight) · z(cosine)``, z-scores over the corpus for each query."""

    def __init__(self, bm25: BM25, corpus: Floats, weight: float, ties: Ints) -> None:
        self.bm25, self.corpus, self.weight, self.ties = bm25, corpus, weight, ties

    @property
    def index_bytes(self) -> int:
        return int(self.corpus.nbytes) + bm25_bytes(self.bm25)

    def rank(
        self, texts: Sequence[str], vectors: Floats | None, k: int, advance: Callable[[int], object] | None = None
    ) -> Ranked:
        found = []
        for lexical, dense in score_pairs(self.bm25, self.corpus, texts, _given(vectors)):
            fused = np.float32(self.weight) * lexical + np.float32(1 - self.weight) * dense
            best = top_of_scores(fused, k, self.ties)
            found.append((best, fused[best]))
            if advance is not None:
                advance(1)
        return found


def score_pairs(bm25: BM25, corpus: Floats, texts: Sequence[str], vectors: Floats) -> Iterator[tuple[Floats, Floats]]:
    """For each query z(BM25) and z(cosine), both float32 of shape (n,); in blocks, never queries × corpus."""
    size = max(1, _ROW_BLOCK // max(1, len(corpus)))
    for start in range(0, len(texts), size):
        cosines = equal_for_equals(vectors[start : start + size] @ np.asarray(corpus).T)
        for text, cosine in zip(texts[start : start + size], cosines, strict=True):
            yield zscores(bm25.scores(text)), zscores(cosine)


def equal_for_equals(cosines: NDArray[np.float32]) -> Floats:
    """Cosines to six digits: BLAS may give equal vectors scores that differ in the last bit."""
    return np.round(cosines, 6)


def bm25_bytes(bm25: BM25) -> int:
    """Bytes of the index's lists and of its words."""
    lists = sum(value.nbytes for value in vars(bm25).values() if isinstance(value, np.ndarray))
    return lists + sum(len(word.encode()) + 8 for word in bm25.vocabulary)


def _given(vectors: Floats | None) -> Floats:
    if vectors is None:
        raise TypeError("an index of vectors needs the queries' vectors")
    return vectors
