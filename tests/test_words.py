"""The word map: BM25 in vectors that stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets_made import make_dataset
from vectune.errors import DatasetError, ModelError
from vectune.lexical import BM25, fuse
from vectune.runs import write_json
from vectune.testing import hashed_embedding
from vectune.words import WordEmbedder, WordFit, WordMap, open_words

CARD, WEIGHTS = "words.json", "words.safetensors"

DATASET = make_dataset(4, 3)
TEXTS = [chunk.content for chunk in DATASET.corpus.values()]
QUERIES = ["river bridge", "court judge law bond", "Title 1 tomato", "a cable and a fuse"]
DIM = 64  # more than chunks: the fit can be nearly exact


def unit(texts: list[str], dim: int = DIM) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    found = np.array([hashed_embedding(text, dim) for text in texts], np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


class Hashed:
    name, dim, fingerprint = "hashed", DIM, "hashed-64"

    def embed_queries(self, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return unit(texts)

    embed_documents = embed_queries


VECTORS = unit(TEXTS)


def fitted(weight: float = 0.5) -> WordMap:
    return WordFit(TEXTS, VECTORS).fit(weight)


def test_with_room_enough_the_scores_are_those_of_bm25() -> None:
    found = fitted(1.0).apply(unit(QUERIES), QUERIES) @ VECTORS.T
    for got, wanted in zip(found, BM25(TEXTS).all_scores(QUERIES), strict=True):
        if wanted.any():
            assert np.corrcoef(got, wanted)[0, 1] > 0.98


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_both_kinds_of_score_add_up_as_in_a_hybrid(weight: float) -> None:
    queries = unit(QUERIES)
    found = fitted(weight).apply(queries, QUERIES)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    fused = fuse(queries @ VECTORS.T, BM25(TEXTS).all_scores(QUERIES), weight)
    for got, wanted in zip(found @ VECTORS.T, fused, strict=True):
        assert np.corrcoef(got, wanted)[0, 1] > 0.97


def test_a_query_of_unknown_words_keeps_its_vector() -> None:
    queries = unit(["zzz qqq"])
    np.testing.assert_allclose(fitted(0.9).apply(queries, ["zzz qqq"]), queries, atol=1e-6)


def test_chunks_that_a_map_leaves_out_do_not_count() -> None:
    without = np.zeros(len(TEXTS), bool)
    without[: len(TEXTS) // 2] = True
    half = WordFit(TEXTS, VECTORS).fit(0.5, without)
    alone = WordFit(TEXTS[len(TEXTS) // 2 :], VECTORS[len(TEXTS) // 2 :]).fit(0.5)
    np.testing.assert_allclose(half.apply(unit(QUERIES), QUERIES), alone.apply(unit(QUERIES), QUERIES), atol=2e-3)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = fitted()
    made.save(tmp_path)
    loaded = WordMap.load(tmp_path)
    assert loaded.fingerprint == made.fingerprint
    np.testing.assert_array_equal(loaded.apply(unit(QUERIES), QUERIES), made.apply(unit(QUERIES), QUERIES))


def test_damage_is_named(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    write_json(tmp_path / CARD, {**card, "vocabulary": card["vocabulary"][1:]})
    with pytest.raises(ModelError, match="was edited after it was written"):
        WordMap.load(tmp_path)
    write_json(tmp_path / CARD, card)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="was changed after"):
        WordMap.load(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="the file is missing"):
        WordMap.load(tmp_path)


def test_an_embedder_changes_queries_alone() -> None:
    base = Hashed()
    embedder = WordEmbedder(base, fitted(), "with words")  # type: ignore[arg-type]
    np.testing.assert_array_equal(embedder.embed_documents(TEXTS), VECTORS)
    assert np.abs(embedder.embed_queries(QUERIES) - unit(QUERIES)).max() > 0.01
    assert embedder.dim == DIM and embedder.fingerprint != WordEmbedder(base, fitted(0.1), "").fingerprint  # type: ignore[arg-type]


def test_a_map_for_other_vectors_is_refused(tmp_path: Path) -> None:
    class Narrow(Hashed):
        dim = 8

    with pytest.raises(ModelError, match="64 dimensions, these have 8"):
        WordEmbedder(Narrow(), fitted(), "words")  # type: ignore[arg-type]
    fitted().save(tmp_path)
    write_json(tmp_path / "vectune.json", {"kind": "full"})
    with pytest.raises(ModelError, match="not the marker of a word map"):
        open_words(tmp_path, lambda inner: Hashed())  # type: ignore[arg-type, return-value]


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(DatasetError, match="no words"):
        WordFit(["!!", "??"], unit(["a", "b"]))
