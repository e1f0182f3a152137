"""The lexical tail: BM25 as a few hundred dimensions behind any embedder's vector.

A lexical ranking is a product of sparse vectors, so it has a dense approximation: the leading singular vectors of the
corpus's matrix of BM25 weights (latent semantic indexing: Deerwester et al., 1990; single-vector fusion of dense and
lexical: Lin and Lin, "A Dense Representation Framework for Lexical and Semantic Matching", TOIS 2023). It is learnt
from the corpus alone, in seconds, without a query, a label or a gradient, and fits chunks that come later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.errors import DatasetError
from vectune.lexical import AUTO, Analyzer, language_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Vectors

    Floats = NDArray[np.float32]

K1, B = 1.5, 0.75
MAX_WORDS = 200_000  # of the largest vocabularies, the words in most chunks
SAMPLE = 50_000  # chunks from which the directions of larger corpora are learnt
OVERSAMPLE = 64
_BLOCK = 8_192


@dataclass(frozen=True)
class Tail:
    """A projection of word counts.

    Attributes:
        vocabulary: the stems, in the order of the basis's rows.
        weights: inverse document frequency of each, shape (words,).
        basis: orthonormal columns, float32 of shape (words, dim).
        average: mean number of stems of a chunk.
        language: see ``lexical.Analyzer``.
    """

    vocabulary: tuple[str, ...]
    weights: Floats
    basis: Floats
    average: float
    language: str | None = "en"

    @property
    def dim(self) -> int:
        return int(self.basis.shape[1])

    @property
    def facts(self) -> dict[str, Any]:
        """What is stored of it as JSON."""
        return {"average": self.average, "language": self.language, "vocabulary": list(self.vocabulary)}

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """What is stored of it as tensors; the basis in half precision."""
        return {"basis": self.basis.astype(np.float16), "weights": self.weights}

    @classmethod
    def stored(cls, facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Tail:
        """From ``facts`` and ``tensors``, which may hold more.

        Raises:
            KeyError: one is missing.
        """
        basis = tensors["basis"].astype(np.float32)
        return cls(tuple(facts["vocabulary"]), tensors["weights"], basis, facts["average"], facts["language"])

    def documents(self, texts: Sequence[str]) -> Vectors:
        """BM25 weights of the texts' words, projected; shape (len(texts), dim), not normalised."""
        blocks = [
            self.weighted(self.counts(texts[start : start + _BLOCK])) @ self.basis
            for start in range(0, len(texts), _BLOCK)
        ]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), np.float32)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """How often each word is in the queries, projected: times ``documents`` this is about the BM25 score."""
        found: Vectors = np.asarray(self.counts(texts) @ self.basis, dtype=np.float32)
        return found

    def counts(self, texts: Iterable[str]) -> Any:
        """Texts × words, a scipy CSR matrix; unknown words are left out."""
        return _counts(texts, self._place, self._analyzer)

    def weighted(self, counts: Any) -> Any:
        """What each word of a text adds to its BM25 score; from ``counts``, of the same shape."""
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        held_back = K1 * (1 - B + B * lengths / self.average)
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        counts = counts.copy()
        counts.data = self.weights[counts.indices] * counts.data / (counts.data + held_back[rows])
        return counts.astype(np.float32)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {stem: place for place, stem in enumerate(self.vocabulary)}

    @cached_property
    def _analyzer(self) -> Analyzer:
        return Analyzer(self.language)


def fit_tail(texts: Sequence[str], dimensions: int, language: str | None = AUTO, seed: int = 0) -> Tail:
    """Learn a tail from a corpus.

    Args:
        texts: the chunks' contents.
        dimensions: how many to keep; fewer where the corpus has fewer chunks or words.
        language: see ``lexical.BM25``.
        seed: of the randomised decomposition of larger corpora.

    Raises:
        DatasetError: no text holds a word.
    """
    tail = lexicon(texts, language)
    sample = texts[:: -(-len(texts) // SAMPLE)]
    matrix = tail.weighted(tail.counts(sample))
    basis = _directions(matrix, min(dimensions, *matrix.shape), seed)
    # what is stored is half precision: use it from the start, so that a loaded tail is the same tail
    return replace(tail, basis=basis.astype(np.float16).astype(np.float32))


def lexicon(texts: Iterable[str], language: str | None = AUTO) -> Tail:
    """A tail of no dimensions: the corpus's words, how rare they are, and how long chunks are.

    Raises:
        DatasetError: no text holds a word.
    """
    texts, language = language_of(texts, language)
    analyzer = Analyzer(language)
    found: Counter[str] = Counter()
    count = total = 0
    for text in texts:
        stems = analyzer.stems(text)
        count, total = count + 1, total + len(stems)
        found.update(set(stems))
    if not found:
        raise DatasetError("the corpus holds no words, so nothing lexical can be learnt from it.")
    kept = sorted(found, key=lambda stem: (-found[stem], stem))[:MAX_WORDS]
    df = np.array([found[stem] for stem in kept], dtype=np.float64)
    return Tail(tuple(kept), rarity(df, count), np.zeros((len(kept), 0), np.float32), total / max(count, 1), language)


def rarity(df: NDArray[np.floating], total: int) -> Floats:
    """BM25's inverse document frequency of words that are in ``df`` of ``total`` chunks."""
    found: Floats = np.log1p((total - df + 0.5) / (df + 0.5)).astype(np.float32)
    return found


def _counts(texts: Iterable[str], place: dict[str, int], analyzer: Analyzer) -> Any:
    """Texts × words, a scipy CSR matrix; unknown words are left out."""
    from scipy.sparse import csr_matrix

    starts: list[int] = [0]
    words: list[int] = []
    counts: list[int] = []
    for text in texts:
        row = Counter(place[stem] for stem in analyzer.stems(text) if stem in place)
        words.extend(row.keys())
        counts.extend(row.values())
        starts.append(len(words))
    shape = (len(starts) - 1, len(place))
    return csr_matrix((np.array(counts, np.float32), np.array(words, np.int64), starts), shape=shape)


def _directions(matrix: Any, dim: int, seed: int) -> Floats:
    """The leading right singular vectors, shape (columns, dim), worked out on the smaller side of the matrix.

    Randomised for all but small corpora (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011).
    """
    rows, columns = matrix.shape
    wide = matrix if rows < columns else matrix.T.tocsr()  # small × large
    tall = wide.T.tocsr()
    side = wide.shape[0]
    if side <= dim + OVERSAMPLE:
        basis = np.eye(side, dtype=np.float32)
    else:
        basis = np.random.default_rng(seed).standard_normal((side, dim + OVERSAMPLE)).astype(np.float32)
        for _ in range(4):
            basis = np.linalg.qr(wide @ (tall @ basis))[0]
    image = tall @ basis
    values, turn = np.linalg.eigh((image.T @ image).astype(np.float64))
    leading, values = turn[:, ::-1][:, :dim], values[::-1][:dim]
    found = image @ leading / np.sqrt(np.maximum(values, 1e-9)) if rows < columns else basis @ leading
    return np.ascontiguousarray(found, dtype=np.float32)
