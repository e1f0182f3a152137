from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from datasets_made import make_dataset
from vectune.blend import Blend, BlendedEmbedder, open_blend
from vectune.errors import DatasetError, FingerprintError, ModelError
from vectune.lexical import BM25, fuse
from vectune.protocols import Embedder
from vectune.tail import fit_tail
from vectune.testing import hashed_embedding
from vectune.training.blend import UNLABELLED_WEIGHT, BlendOptions, tune_blend

if TYPE_CHECKING:
    from vectune.protocols import Vectors

DATASET = make_dataset(40, 3)
TEXTS = [chunk.content for chunk in DATASET.corpus.values()]
QUERIES = ["river bridge", "court judge law bond", "Title 7 tomato", "a cable and a fuse"]


@dataclass
class Hashed:
    name: str = "hashed"
    dim: int = 16
    fingerprint: str = "hashed-16"

    def embed_queries(self, texts: list[str]) -> Vectors:
        return self.embed_documents(texts)

    def embed_documents(self, texts: list[str]) -> Vectors:
        found = np.array([hashed_embedding(text, self.dim) for text in texts], np.float32).reshape(len(texts), self.dim)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


BASE: Embedder = Hashed()  # type: ignore[assignment]


def never(inner: Path) -> Embedder:
    raise AssertionError(f"{inner} holds no model")


def fitted(weight: float = 0.3, dimensions: int = 200) -> Blend:
    return Blend.fit(fit_tail(TEXTS, dimensions), TEXTS, BASE.embed_documents(TEXTS), weight)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0])
def test_at_full_rank_the_order_is_that_of_the_fused_scores(weight: float) -> None:
    blend = fitted(weight)
    documents = blend.documents(BASE.embed_documents(TEXTS), TEXTS)
    queries = blend.queries(BASE.embed_queries(QUERIES), QUERIES)
    dense = BASE.embed_queries(QUERIES) @ BASE.embed_documents(TEXTS).T
    fused = fuse(dense, BM25(TEXTS).all_scores(QUERIES), weight)
    for got, wanted in zip(queries @ documents.T, fused, strict=True):
        assert np.corrcoef(got, wanted)[0, 1] > 0.99999


def test_a_shorter_tail_is_near_and_smaller() -> None:
    blend = fitted(0.5, dimensions=20)
    assert blend.dim == 16 + 20 + 1
    documents = blend.documents(BASE.embed_documents(TEXTS), TEXTS)
    queries = blend.queries(BASE.embed_queries(QUERIES), QUERIES)
    dense = BASE.embed_queries(QUERIES) @ BASE.embed_documents(TEXTS).T
    fused = fuse(dense, BM25(TEXTS).all_scores(QUERIES), 0.5)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(queries @ documents.T, fused, strict=True)]) > 0.7


def test_all_vectors_have_unit_norm_also_of_texts_that_come_later() -> None:
    embedder = BlendedEmbedder(BASE, fitted(), "blended")
    later = ["river " * 500 + " ".join(TEXTS), "", "nothing known 東京", "stone"]
    for vectors in (embedder.embed_documents(later), embedder.embed_queries(later), embedder.embed_queries([])):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == embedder.dim
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-5)


def test_a_query_without_known_words_is_ranked_by_the_base_alone() -> None:
    embedder = BlendedEmbedder(BASE, fitted(1.0), "blended")
    scores = embedder.embed_queries(["unheard"]) @ embedder.embed_documents(TEXTS).T
    base = BASE.embed_queries(["unheard"]) @ BASE.embed_documents(TEXTS).T
    assert scores.argmax() == base.argmax()


def test_save_and_load(tmp_path: Path) -> None:
    blend = fitted()
    blend.save(tmp_path)
    loaded = Blend.load(tmp_path)
    vectors = BASE.embed_documents(TEXTS)
    assert np.array_equal(loaded.documents(vectors, TEXTS), blend.documents(vectors, TEXTS))
    assert np.array_equal(loaded.queries(vectors[:4], QUERIES), blend.queries(vectors[:4], QUERIES))
    assert loaded.fingerprint == blend.fingerprint != blend.weighing(0.4).fingerprint


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    card = (tmp_path / "blend.json").read_text()
    (tmp_path / "blend.json").write_text(card.replace('"weight": ', '"weight": 1'))
    with pytest.raises(ModelError, match="was edited after"):
        Blend.load(tmp_path)
    (tmp_path / "blend.json").write_text(card)
    with (tmp_path / "blend.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"?")
    with pytest.raises(ModelError, match="was changed"):
        Blend.load(tmp_path)
    (tmp_path / "blend.safetensors").unlink()
    with pytest.raises(ModelError, match="the file is missing"):
        Blend.load(tmp_path)


def test_tuning_on_written_queries_takes_the_constant(tmp_path: Path) -> None:
    dataset = make_dataset(40, 3)
    dataset.info["generated"] = True
    result = tune_blend(dataset, tmp_path / "out", BASE)
    assert result.chosen["weight"] == UNLABELLED_WEIGHT
    embedder = open_blend(tmp_path / "out", lambda name: BASE, never)
    assert embedder.dim == result.chosen["dim"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"vectune.json", "blend.json", "blend.safetensors"}


def test_tuning_on_real_judgments_chooses_the_weight(tmp_path: Path) -> None:
    dataset = make_dataset(40, 3)
    for query in list(dataset.queries.values()):  # people who use the words of the chunk, beside a base that is noise
        words = dataset.corpus[query.id.removeprefix("q-")].text.split()[:6]
        dataset.queries[query.id] = type(query)(" ".join(words), id=query.id)
    result = tune_blend(dataset, tmp_path / "out", BASE)
    assert result.chosen["weight"] >= 0.5
    assert result.dev_after > result.dev_before + 0.3
    assert "judged queries" in result.notes[0]
    asked = tune_blend(dataset, tmp_path / "out", BASE, options=BlendOptions(weight=0.1, dimensions=8))
    assert (asked.chosen["weight"], asked.chosen["dim"]) == (0.1, 25)


def test_another_base_is_refused(tmp_path: Path) -> None:
    tune_blend(DATASET, tmp_path / "out", BASE)
    with pytest.raises(FingerprintError):
        open_blend(tmp_path / "out", lambda name: Hashed(fingerprint="other"), never)  # type: ignore[arg-type,return-value]
    with pytest.raises(ModelError, match="made for a base of 16 dimensions"):
        BlendedEmbedder(Hashed(dim=8), fitted(), "x")  # type: ignore[arg-type]


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(DatasetError, match="holds no words"):
        fit_tail(["", "the"], 10)


def test_the_randomised_decomposition_finds_the_exact_subspace() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{i:03d}" for i in range(400)]
    topics = [rng.choice(words, 12, replace=False) for _ in range(10)]
    texts = [" ".join(rng.choice(topics[i % 10], 8)) for i in range(300)]
    short = fit_tail(texts, 20)  # side 300 > 20 + oversampling: randomised
    full = fit_tail(texts, 300)
    queries, documents = short.queries(texts[:20]), short.documents(texts)
    exact = full.queries(texts[:20]) @ full.documents(texts).T
    singular = np.linalg.svd(full.documents(texts), compute_uv=False)
    lost = np.sqrt((singular[20:] ** 2).sum() / (singular**2).sum())
    assert np.linalg.norm(documents) / np.linalg.norm(full.documents(texts)) > np.sqrt(1 - lost**2) * 0.999
    assert np.linalg.norm(queries @ documents.T - exact) < np.linalg.norm(exact)
