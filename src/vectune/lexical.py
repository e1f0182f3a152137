"""BM25 and its fusion with vectors: the lexical baseline of every board, half of every hybrid, and a teacher.

BM25 as Lucene scores it (Kamphuis et al., "Which BM25 do you mean?", ECIR 2020), from bm25s, over stemmed words.
Fusion is of z-scores over the corpus for each query: on six of seven sets scores fused better than ranks did.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from vectune.characters import words_in
from vectune.errors import ModelError, UsageError
from vectune.runs import writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

LANGUAGES = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "eu": "basque",
    "fi": "finnish", "fr": "french", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
AUTO = "auto"  # the language of the texts
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f"  # scripts that write no space between words
_SCRIPTS = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]{{2,}}")
_UNSPACED_START = re.compile(rf"[{_UNSPACED}]")


class Analyzer:
    """Text → stems. Words of two characters and more, lower case, without stop words; runs of a script without
    spaces (Chinese, Japanese, Thai) become pairs of characters.

    Args:
        language: its ISO 639-1 code or English name; None neither stems nor drops stop words.

    Raises:
        UsageError: there is no stemmer for the language.
    """

    def __init__(self, language: str | None = "en") -> None:
        self.language = language
        self.stopwords, self._stem = _language_parts(language)
        self._known: dict[str, str] = {}  # a word is stemmed once

    def words(self, text: str) -> list[str]:
        """Lower-case words in order, stop words included."""
        words = words_in(text.lower())
        if text.isascii() or not _UNSPACED_START.search(text):
            return [word for word in words if len(word) > 1]
        found: list[str] = []
        for run in (run for word in words for run in _SCRIPTS.findall(word)):
            if _UNSPACED_START.match(run) and len(run) > 2:
                found.extend(run[i : i + 2] for i in range(len(run) - 1))
            else:
                found.append(run)
        return found

    def stem(self, word: str) -> str:
        """The stem of a lower-case word; empty for a stop word."""
        stem = self._known.get(word)
        if stem is None:
            stem = "" if word in self.stopwords else self._stem(word)
            self._known[word] = stem
        return stem

    def stems(self, text: str) -> list[str]:
        """The stems of a text in order, stop words dropped."""
        return [stem for word in self.words(text) if (stem := self.stem(word))]


def _language_parts(language: str | None) -> tuple[frozenset[str], Callable[[str], str]]:
    if language in (None, "none"):  # a TOML file has no null
        return frozenset(), lambda word: word
    import Stemmer
    from bm25s.tokenization import _infer_stopwords

    name = LANGUAGES.get(language.lower(), language.lower())
    if name not in Stemmer.algorithms():
        raise UsageError(
            f"There is no stemmer for the language '{language}'.",
            f"Choose one of: {', '.join(sorted(LANGUAGES))}; or none, which neither stems nor drops stop words.",
        )
    try:
        stopwords = frozenset(_infer_stopwords(name))
    except ValueError:  # stemmed, but no list of stop words: their small weight is BM25's own work
        stopwords = frozenset()
    stem: Callable[[str], str] = Stemmer.Stemmer(name, 0).stemWord
    return stopwords, stem


def language_of(texts: Iterable[str], language: str | None) -> tuple[Iterable[str], str | None]:
    """The texts, and the language to stem them by: where it is ``auto``, that of most of them, English if unknown.

    Texts that come one by one are judged by the first 200; None is a language without a stemmer.
    """
    if language != AUTO:
        return texts, language
    from vectune.queries.language import main_language

    if isinstance(texts, Sequence):
        sample = texts
    else:
        coming = iter(texts)
        sample = list(islice(coming, 200))
        texts = chain(sample, coming)
    found = main_language(sample) or "en"
    return texts, found if found in LANGUAGES else None


class BM25:
    """An inverted index with every word's contribution to every text already computed.

    Args:
        texts: what is searched, usually ``chunk.content``; read once, never kept.
        language: see ``Analyzer``; ``auto``: that of the texts.
        k1: how fast repetitions saturate.
        b: how much long texts are held back, 0 to 1.
    """

    def __init__(self, texts: Iterable[str], language: str | None = AUTO, *, k1: float = 1.5, b: float = 0.75) -> None:
        import bm25s

        texts, language = language_of(texts, language)
        self.analyzer = Analyzer(language)
        self.k1, self.b = k1, b
        self.vocabulary: dict[str, int] = {}
        rows = [self._ids_of_text(text) for text in texts]
        self.size = len(rows)
        if not self.vocabulary:
            self._set(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(1, np.int64))
            return
        index = bm25s.BM25(k1=k1, b=b, method="lucene")
        index.index((rows, dict(self.vocabulary)), create_empty_token=False, show_progress=False)
        self._set(index.scores["data"], index.scores["indices"], index.scores["indptr"])

    def __len__(self) -> int:
        return self.size

    def scores(self, query: str) -> Floats:
        """The score of every text for this query; float32 of shape (len(self),), 0 where no word is shared."""
        found = np.zeros(self.size, dtype=np.float32)
        for stem in self.analyzer.stems(query):
            token = self.vocabulary.get(stem)
            if token is not None:
                start, end = self._starts[token], self._starts[token + 1]
                found[self._texts[start:end]] += self._weights[start:end]  # a text occurs once in a word's list
        return found

    def all_scores(self, queries: Sequence[str]) -> Floats:
        """The scores of several queries; float32 of shape (len(queries), len(self))."""
        found = np.empty((len(queries), self.size), dtype=np.float32)
        for row, query in enumerate(queries):
            found[row] = self.scores(query)
        return found

    def top(self, queries: Sequence[str], k: int) -> tuple[Ints, Floats]:
        """The best ``min(k, len(self))`` texts of each query; score descending, equal scores by index.

        Returns:
            Indices (int64) and scores (float32), both of shape (len(queries), min(k, len(self))). Texts that share no
            word with the query have the score 0 and fill up the end.
        """
        k = min(k, self.size)
        indices = np.zeros((len(queries), k), dtype=np.int64)
        scores = np.zeros((len(queries), k), dtype=np.float32)

        def answer(row: int) -> None:
            found = self.scores(queries[row])
            indices[row] = top_indices(found, k)
            scores[row] = found[indices[row]]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(answer, range(len(queries))))
        return indices, scores

    def save(self, folder: Path) -> None:
        """Write ``bm25.json`` and ``bm25.npz`` into a folder, whole or not at all."""
        with writing(folder) as beside:
            beside.mkdir()
            np.savez(beside / "bm25.npz", weights=self._weights, texts=self._texts, starts=self._starts)
            meta = {
                "language": self.analyzer.language, "k1": self.k1, "b": self.b, "size": self.size,
                "vocabulary": list(self.vocabulary),
            }  # fmt: skip
            (beside / "bm25.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BM25:
        """Read what ``save`` wrote.

        Raises:
            ModelError: a file is missing or is not what ``save`` writes.
        """
        index = cls.__new__(cls)
        try:
            meta: dict[str, Any] = json.loads((folder / "bm25.json").read_text(encoding="utf-8"))
            with (folder / "bm25.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                index._set(arrays["weights"], arrays["texts"], arrays["starts"])
            index.k1, index.b, index.size = meta["k1"], meta["b"], meta["size"]
            index.vocabulary = {stem: number for number, stem in enumerate(meta["vocabulary"])}
            index.analyzer = Analyzer(meta["language"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ModelError(f"{folder}: not a saved BM25 index ({error}).") from None
        return index

    def _set(self, weights: Floats, texts: NDArray[np.int32], starts: NDArray[Any]) -> None:
        self._weights, self._texts, self._starts = weights, texts, starts.astype(np.int64)

    def _ids_of_text(self, text: str) -> list[int]:
        known = self.vocabulary
        return [known.setdefault(stem, len(known)) for stem in self.analyzer.stems(text)]


def top_indices(scores: NDArray[Any], k: int) -> Ints:
    """Indices of the ``k`` highest scores of one row; score descending, equal scores by index. 0 < k <= len(scores)."""
    kth = np.partition(scores, len(scores) - k)[len(scores) - k] if k else np.inf
    above = np.flatnonzero(scores > kth)
    found = np.concatenate([above, np.flatnonzero(scores == kth)[: k - len(above)]])
    return found[np.lexsort((found, -scores[found]))]


def zscores(scores: NDArray[Any]) -> Floats:
    """(score − mean) / standard deviation along the last axis; 0 where all scores are equal. Keeps the shape."""
    scores = np.asarray(scores, dtype=np.float32)
    centred = scores - scores.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    found: Floats = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    return found


def fuse(dense: NDArray[Any], lexical: NDArray[Any], weight: float) -> Floats:
    """``weight · z(lexical) + (1 − weight) · z(dense)``; statistics over the corpus (last axis) for each query.

    Args:
        dense: cosines of shape (chunks,) or (queries, chunks).
        lexical: BM25 scores of the same shape.
        weight: 0 is dense alone, 1 is BM25 alone.
    """
    fused: Floats = np.float32(weight) * zscores(lexical) + np.float32(1 - weight) * zscores(dense)
    return fused
