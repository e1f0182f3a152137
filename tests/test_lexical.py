from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectune.errors import ModelError, UsageError
from vectune.lexical import BM25, Analyzer, fuse, top_indices, zscores
from vectune.tail import lexicon

TEXTS = ["the red fox runs", "a red house", "foxes and houses, red red red", "", "blue sea"]


def test_scores_follow_lucenes_formula() -> None:
    index = BM25(TEXTS)
    lengths = [3, 2, 5, 0, 2]  # stems without stop words
    average, df, n = sum(lengths) / 5, 3, 5
    idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
    expected = [
        idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * length / average))
        for tf, length in zip((1, 1, 3, 0, 0), lengths, strict=True)
    ]
    assert index.scores("red") == pytest.approx(expected, abs=1e-6)
    assert index.scores("red").dtype == np.float32


def test_words_are_stemmed_and_stop_words_dropped() -> None:
    index = BM25(TEXTS)
    assert np.array_equal(index.scores("fox"), index.scores("the FOXES"))
    assert not index.scores("the").any()
    assert not index.scores("unknownword").any()


def test_vowel_signs_are_part_of_a_word_and_both_forms_of_an_accent_one() -> None:
    assert Analyzer("hi").words("किताब और काम की जानकारी") == ["किताब", "और", "काम", "की", "जानकारी"]
    assert Analyzer("fr").words("Le cafe\u0301 à NICE") == ["le", "café", "nice"]
    assert Analyzer(None).words("サーハ\u3099 WM7の第3章") == ["サー", "ーバ", "wm7", "の第", "章"]


def test_the_last_word_of_the_vocabulary_is_found() -> None:
    index = BM25(TEXTS)
    assert index.scores("sea").argmax() == 4


def test_top_breaks_ties_by_index_and_fills_up() -> None:
    index = BM25(["same words here", "same words here", "other", "same words here"])
    indices, scores = index.top(["same words", "nothing"], 10)
    assert indices.shape == scores.shape == (2, 4)
    assert indices[0].tolist() == [0, 1, 3, 2]
    assert indices[1].tolist() == [0, 1, 2, 3]
    assert scores[0, 3] == 0


def test_top_agrees_with_scores() -> None:
    index = BM25(TEXTS)
    indices, scores = index.top(["red house", "fox"], 2)
    for row, query in enumerate(["red house", "fox"]):
        assert np.array_equal(index.scores(query)[indices[row]], scores[row])
        assert index.scores(query).max() == scores[row, 0]
    assert np.array_equal(index.all_scores(["red house"])[0], index.scores("red house"))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 45))
def test_top_indices_is_a_stable_sort(values: list[int], k: int) -> None:
    scores = np.array(values, dtype=np.float32)
    k = min(k, len(values))
    assert top_indices(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.mark.parametrize("texts", [[], [""], ["the of and"]])
def test_a_corpus_without_words_scores_nothing(texts: list[str]) -> None:
    index = BM25(texts)
    assert len(index) == len(texts)
    assert not index.scores("word").any()
    assert index.top(["word"], 3)[0].shape == (1, len(texts))


def test_save_and_load(tmp_path: Path) -> None:
    index = BM25(TEXTS, language="en", k1=1.2, b=0.5)
    index.save(tmp_path / "index")
    loaded = BM25.load(tmp_path / "index")
    assert np.array_equal(loaded.scores("red fox"), index.scores("red fox"))
    assert (loaded.k1, loaded.b, len(loaded)) == (1.2, 0.5, 5)
    assert {file.name for file in (tmp_path / "index").iterdir()} == {"bm25.json", "bm25.npz"}


def test_loading_something_else_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a saved BM25 index"):
        BM25.load(tmp_path)
    (tmp_path / "bm25.json").write_text("{}")
    BM25(TEXTS, language="en").save(tmp_path / "whole")
    whole = (tmp_path / "whole" / "bm25.npz").read_bytes()
    for broken in (b"no zip", b"", whole[: len(whole) // 2]):
        (tmp_path / "bm25.npz").write_bytes(broken)
        with pytest.raises(ModelError, match="not a saved BM25 index"):
            BM25.load(tmp_path)


@pytest.mark.parametrize("size", [0, 20, 200])
def test_a_truncated_index_is_a_clear_error(size: int, tmp_path: Path) -> None:
    BM25(TEXTS, language="en").save(tmp_path / "index")
    os.truncate(tmp_path / "index" / "bm25.npz", size)
    with pytest.raises(ModelError, match="not a saved BM25 index"):
        BM25.load(tmp_path / "index")


def test_languages() -> None:
    assert Analyzer("de").stems("die Häuser") == Analyzer("de").stems("Haus")
    assert Analyzer("fi").stems("talossa")  # a stemmer without a list of stop words
    assert Analyzer(None).stems("The Foxes") == Analyzer("none").stems("The Foxes") == ["the", "foxes"]
    with pytest.raises(UsageError, match="klingon"):
        Analyzer("klingon")


def test_scripts_without_spaces_become_pairs() -> None:
    assert Analyzer("en").stems("東京都庁 tower") == ["東京", "京都", "都庁", "tower"]
    index = BM25(["東京都庁は新宿にある", "大阪城は大阪にある"])
    assert index.scores("新宿").argmax() == 0


def test_zscores_and_fuse() -> None:
    scores = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    standard = zscores(scores)
    assert standard[0] == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert not standard[1].any()
    dense, lexical = np.array([3.0, 2.0, 1.0]), np.array([0.0, 0.0, 9.0])
    assert np.array_equal(fuse(dense, lexical, 0), zscores(dense))
    assert np.array_equal(fuse(dense, lexical, 1), zscores(lexical))
    assert fuse(dense, lexical, 0.25) == pytest.approx(0.25 * zscores(lexical) + 0.75 * zscores(dense), abs=1e-6)


GERMAN = [
    "Die Häuser am Fluss sind nicht alt, und das Wasser ist mit dem Boot zu erreichen.",
    "Das Haus ist aus Stein, und der Garten wird von den Leuten im Dorf gepflegt.",
] * 3


@pytest.mark.parametrize("texts", [GERMAN, (text for text in GERMAN)], ids=["all at hand", "one by one"])
def test_the_language_is_that_of_the_texts(texts: Iterable[str]) -> None:
    index = BM25(texts)
    assert index.analyzer.language == "de" and len(index) == 6
    assert index.scores("Hauses")[1] > 0 and not index.scores("und der die").any()


@pytest.mark.parametrize(
    ("text", "language"), [("x1 y2 z3", "en"), ("W domu jest ogród, który nie jest duży, ale to jest dom.", None)]
)
def test_texts_of_no_known_language_are_english_and_some_have_no_stemmer(text: str, language: str | None) -> None:
    assert BM25([text] * 3).analyzer.language == language
    assert lexicon([text] * 3).language == language
