"""The word map: BM25 in vectors that stay as they are, by what is added to a query's vector.

A store ranks by the inner product of the query's vector with the stored ones. For each word of the corpus there is a
vector whose inner products with the stored vectors come nearest to the word's BM25 weights in the chunks: ridge
regression of the corpus's matrix of weights on the stored vectors, in closed form. The sum over a query's words is
added to its vector, at a weight, so that one dense index serves a hybrid and no document is touched. A lexical tail
(``tail.py``; Lin and Lin, TOIS 2023) does the same with dimensions of its own.

The map knows the chunks it was fitted to, as an inverted index does. Fitting it again when chunks are added takes their
texts and stored vectors, and no call of the embedder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.adapters import read_json
from vectune.blend import spread
from vectune.carded import Carded
from vectune.embedders.models import ARTIFACT_FILE, INNER
from vectune.errors import ModelError
from vectune.lexical import AUTO
from vectune.tail import Tail, lexicon, rarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

NAME = "words"  # of its files
PULL = 0.01  # of the ridge, in units of the mean squared singular value of the stored vectors
SAMPLE = 200_000  # chunks that larger corpora are fitted by
_BLOCK = 8_192


@dataclass(frozen=True)
class WordMap:
    """What is added to queries' vectors for their words.

    Attributes:
        words: its basis holds each word's vector: (words, dim).
        covariance: of the stored vectors, shape (dim, dim); tells how far a query's scores spread.
        weight: of the words, 0 to 1, as in ``lexical.fuse``.
    """

    words: Tail
    covariance: Floats
    weight: float

    def apply(self, vectors: Vectors, texts: Sequence[str]) -> Vectors:
        """Queries' vectors (n, dim) and texts → unit vectors (n, dim): z-scores of both kinds of score add up."""
        added = self.words.queries(texts)
        dense = (1 - self.weight) / spread(vectors, self.covariance)
        lexical = self.weight / spread(added, self.covariance)
        unknown = ~added.any(axis=1)
        dense[unknown], lexical[unknown] = 1.0, 0.0
        found = vectors * dense[:, None] + added * lexical[:, None]
        unit: Vectors = (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit

    def weighing(self, weight: float) -> WordMap:
        """The same with another weight."""
        return replace(self, weight=weight)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that its results depend on."""
        return self._carded.fingerprint

    def save(self, folder: Path) -> None:
        """Write ``words.safetensors`` and ``words.json`` into an existing folder."""
        self._carded.save(folder, NAME)

    @classmethod
    def load(cls, folder: Path) -> WordMap:
        """Read what ``save`` wrote.

        Raises:
            ModelError: a file is missing or damaged.
        """
        found = Carded.load(folder, NAME)
        try:
            facts, tensors = found.facts, found.tensors
            words = Tail.stored(facts, tensors)
            if words.basis.shape != (len(words.vocabulary), len(tensors["covariance"])):
                raise ModelError(f"{folder / NAME}.json: the vocabulary does not fit the tensors: it was edited.")
            return cls(words, tensors["covariance"], float(facts["weight"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder}: holds no whole word map ({error}).") from None

    @property
    def _carded(self) -> Carded:
        words = self.words
        return Carded({"weight": self.weight, **words.facts}, {**words.tensors, "covariance": self.covariance})


class WordFit:
    """A corpus whose words were counted once, so that maps of all of it or of parts take a moment.

    Args:
        texts: the chunks' contents.
        vectors: as they are stored, (len(texts), dim); may be a memory map.
        language: see ``lexical.BM25``.

    Raises:
        DatasetError: no text holds a word.
    """

    def __init__(self, texts: Sequence[str], vectors: Vectors, language: str | None = AUTO) -> None:
        self.rows: Rows = np.arange(0, len(texts), -(-len(texts) // SAMPLE) or 1)
        sample = [texts[row] for row in self.rows.tolist()]
        self.vectors, self.empty = vectors, lexicon(sample, language)
        self.counts = self.empty.counts(sample)

    def fit(self, weight: float, without: NDArray[np.bool_] | None = None) -> WordMap:
        """The map of all chunks, or of those that ``without`` (len(texts),) does not mark."""
        kept = np.ones(len(self.rows), bool) if without is None else ~without[self.rows]
        counts, rows = self.counts[kept], self.rows[kept]
        words = self._measured(counts)
        gram, towards = self._moments(words.weighted(counts), rows)
        level = np.float32(PULL * float(np.trace(gram)) / len(gram) + 1e-9)
        basis = np.linalg.solve(gram + level * np.eye(len(gram), dtype=np.float32), towards).T
        basis /= max(float(basis.std()), 1e-12)  # only directions matter; half precision keeps numbers about 1 best
        # what is stored is half precision: use it from the start, so that a loaded map is the same map
        half = np.ascontiguousarray(basis.astype(np.float16).astype(np.float32))
        return WordMap(replace(words, basis=half), (gram / np.float32(len(rows))).astype(np.float32), weight)

    def _measured(self, counts: Any) -> Tail:
        """The lexicon with rarity and mean length as they are in these chunks."""
        df = np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.float64)
        average = float(counts.sum()) / max(counts.shape[0], 1)
        return replace(self.empty, weights=rarity(df, counts.shape[0]), average=max(average, 1e-9))

    def _moments(self, weighted: Any, rows: Rows) -> tuple[Floats, Floats]:
        """Of centred vectors: their Gram matrix (dim, dim), and their products with words (dim, words)."""
        dim = self.vectors.shape[1]
        gram, total = np.zeros((dim, dim), np.float64), np.zeros(dim, np.float64)
        towards = np.zeros((weighted.shape[1], dim), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = np.asarray(self.vectors[rows[start : start + _BLOCK]], dtype=np.float32)
            gram += block.T @ block
            total += block.sum(axis=0, dtype=np.float64)
            towards += weighted[start : start + _BLOCK].T @ block
        mean = (total / max(len(rows), 1)).astype(np.float32)
        gram -= len(rows) * np.outer(mean, mean)
        towards -= np.asarray(weighted.sum(axis=0)).reshape(-1, 1) * mean
        return gram.astype(np.float32), towards.T


@dataclass(frozen=True)
class WordEmbedder:
    """An embedder whose queries' vectors get their words added; documents keep theirs.

    ``source`` is the folder that it was opened from; empty where it was made in memory.
    """

    inner: Embedder
    words: WordMap
    name: str
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.words.covariance) != self.inner.dim:
            made = len(self.words.covariance)
            raise ModelError(f"{self.name}: made for vectors of {made} dimensions, these have {self.inner.dim}.")

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def untuned(self) -> Embedder | None:
        """What queries were embedded with before anything was fitted to them."""
        found: Embedder | None = getattr(self.inner, "untuned", None)
        return found

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"words {self.inner.fingerprint} {self.words.fingerprint}".encode()).hexdigest()

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.words.apply(self.inner.embed_queries(texts), texts)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self.inner.embed_documents(texts)


def open_words(folder: str | Path, open_inner: Callable[[Path], Embedder]) -> WordEmbedder:
    """The embedder of an artifact folder of kind ``words``.

    Args:
        folder: what ``tune`` wrote.
        open_inner: opens the artifact inside, which makes the vectors and checks their base.

    Raises:
        ModelError: the folder is damaged or of another kind.
        FingerprintError: the base of that name now makes other vectors than the map was fitted to.
    """
    folder = Path(folder)
    if read_json(folder / ARTIFACT_FILE).get("kind") != "words":
        raise ModelError(f"{folder / ARTIFACT_FILE}: is not the marker of a word map.")
    return WordEmbedder(open_inner(folder / INNER), WordMap.load(folder), folder.name, str(folder.resolve()))
