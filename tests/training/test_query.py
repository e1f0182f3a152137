from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from vectune.adapters import Adapter, SplitEmbedder, open_artifact
from vectune.dataset import Qrels, RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import INNER
from vectune.embedders.options import EmbedOptions
from vectune.errors import FingerprintError, ModelError
from vectune.records import Chunk, Query
from vectune.runs import write_json
from vectune.training.adapter import tune_adapter
from vectune.training.folders import dense_modules
from vectune.training.query import QueryOptions, tune_keeping_index, tune_query_encoder

THINGS = (
    "battery",
    "coffee",
    "contract",
    "engine",
    "garden",
    "letter",
    "market",
    "phone",
    "river",
    "screen",
    "train",
    "wood",
)
DEEDS = ("open", "close", "start", "stop", "hold", "grow", "read", "sell")
SAID = dict(zip(DEEDS, ("press", "reset", "brew", "heat", "drive", "write", "buy", "rain"), strict=True))
QUICK = QueryOptions(epochs=4, batch=16, rate=2e-3, seconds=0)


@pytest.fixture(scope="module")
def dataset() -> RetrievalDataset:
    """Queries name the thing, but use another word for the deed than the chunk does: that is what can be learnt."""
    corpus, queries = {}, {}
    qrels: dict[str, Qrels] = {"train": {}, "test": {}}
    for number, thing in enumerate(THINGS):
        for deed in DEEDS:
            chunk = Chunk(f"{deed} the {thing}", document_id=thing, id=f"{thing}-{deed}")
            query = Query(f"how to {SAID[deed]} a {thing}")
            corpus[chunk.id], queries[query.id] = chunk, query
            qrels["train" if number % 4 else "test"][query.id] = {chunk.id: 1}
    return RetrievalDataset(corpus, queries, qrels, {"name": "words"})


@pytest.fixture(scope="module")
def tuned(dataset: RetrievalDataset, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("query") / "out"
    result = tune_query_encoder(dataset, out, open_embedder(str(tiny_bert), cache=False), 0, QUICK)
    assert result.method == "query" and result.dev_after > result.dev_before
    return out


def test_the_query_route_runs_as_it_is_asked_to(tuned: Path) -> None:
    opened = open_embedder(tuned, EmbedOptions(precision="bf16"), cache=False)
    assert isinstance(opened, SplitEmbedder) and opened.query.precision == "bf16"  # type: ignore[attr-defined]
    plain = open_embedder(tuned, EmbedOptions(precision="fp32"), cache=False)
    assert plain.query.precision == "fp32"  # type: ignore[attr-defined]


def test_a_precision_that_is_asked_for_is_trained_in(
    dataset: RetrievalDataset, tiny_bert: Path, tmp_path: Path
) -> None:
    embedder = open_embedder(str(tiny_bert), EmbedOptions(precision="fp32"), cache=False)
    found = []
    for precision in ("fp32", "bf16"):
        options = replace(QUICK, precision=precision)
        tune_query_encoder(dataset, tmp_path / precision, embedder, 0, options)
        found.append(SentenceTransformer(str(tmp_path / precision)).encode_query(["open the battery"]))
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_the_folder_opens_in_sentence_transformers(tuned: Path, tiny_bert: Path) -> None:
    model, base = SentenceTransformer(str(tuned)), SentenceTransformer(str(tiny_bert))
    texts = ["open the battery", "how to press a battery"]
    np.testing.assert_allclose(
        model.encode_document(texts, normalize_embeddings=True),
        base.encode_document(texts, normalize_embeddings=True),
        atol=1e-5,
    )
    assert np.abs(model.encode_query(texts) - base.encode_query(texts, normalize_embeddings=True)).max() > 0.01


def test_low_rank_additions_alone_can_be_trained(dataset: RetrievalDataset, tiny_bert: Path, tmp_path: Path) -> None:
    options = replace(QUICK, lora_rank=4)
    result = tune_query_encoder(dataset, tmp_path / "out", open_embedder(str(tiny_bert), cache=False), 0, options)
    assert result.dev_after > result.dev_before
    assert result.chosen["rung"] == "query encoder, rank 4"
    model, base = SentenceTransformer(str(tmp_path / "out")), SentenceTransformer(str(tiny_bert))
    router: Any = model[0]
    queries, documents = (next(iter(router.sub_modules[side].children())) for side in ("query", "document"))
    tuned, plain = queries.state_dict(), documents.state_dict()
    assert tuned.keys() == plain.keys(), "the additions are in the weights"
    changed = {name: tuned[name] - plain[name] for name in tuned if not torch.equal(tuned[name], plain[name])}
    assert changed and all(change.ndim == 2 for change in changed.values())
    assert max(int(torch.linalg.matrix_rank(change, rtol=1e-3)) for change in changed.values()) <= 4
    texts = ["open the battery"]
    np.testing.assert_allclose(model.encode_document(texts), base.encode_document(texts), atol=1e-5)


def test_the_folder_opens_as_an_embedder_whose_documents_are_the_bases(tuned: Path, tiny_bert: Path) -> None:
    opened, base = open_embedder(tuned), open_embedder(str(tiny_bert), cache=False)
    texts = ["open the battery", "how to press a battery"]
    np.testing.assert_allclose(opened.embed_documents(texts), base.embed_documents(texts), atol=2e-3)
    model = SentenceTransformer(str(tuned))
    np.testing.assert_allclose(opened.embed_queries(texts), model.encode_query(texts), atol=2e-2)  # bf16 in one
    assert opened.fingerprint != base.fingerprint


def test_an_adapter_over_a_local_model_opens_in_sentence_transformers(
    dataset: RetrievalDataset, tiny_bert: Path, tmp_path: Path
) -> None:
    base = open_embedder(str(tiny_bert), cache=False)
    tune_adapter(dataset, tmp_path / "out", base)
    model, opened = SentenceTransformer(str(tmp_path / "out")), open_artifact(tmp_path / "out", lambda name: base)
    texts = ["open the battery", "how to press a battery"]
    np.testing.assert_allclose(model.encode_query(texts), opened.embed_queries(texts), atol=2e-2)
    np.testing.assert_allclose(model.encode_document(texts), opened.embed_documents(texts), atol=2e-2)
    weights = sorted(path.stat().st_size for path in (tmp_path / "out").rglob("model.safetensors"))
    assert sum(size > 100_000 for size in weights) == 1  # the encoder is stored once


@pytest.mark.parametrize("skip", [False, True])
def test_a_residual_mlp_is_exact_as_stock_dense_modules(skip: bool) -> None:
    import torch

    rng = np.random.default_rng(0)
    down, shift, up, matrix = (rng.normal(size=s).astype(np.float32) for s in ((3, 6), (3,), (6, 3), (6, 6)))
    adapter = Adapter("mlp", 6, 6, skip=matrix if skip else None, down=down, down_bias=shift, up=up, activation="relu")
    x = rng.normal(size=(5, 6)).astype(np.float32)
    features = {"sentence_embedding": torch.from_numpy(x)}
    for module in dense_modules(adapter):
        features = module(features)
    found = torch.nn.functional.normalize(features["sentence_embedding"], dim=1).detach().numpy()
    np.testing.assert_allclose(found, adapter.apply(x), atol=1e-5)


def test_keeping_the_index_takes_what_dev_likes_and_embeds_no_document_again(
    dataset: RetrievalDataset, tiny_bert: Path, tmp_path: Path
) -> None:
    embedder = open_embedder(str(tiny_bert))
    result = tune_keeping_index(dataset, tmp_path / "out", embedder, 0, QUICK)
    assert result.method in ("adapter", "query", "words") and result.dev_after >= result.dev_before
    folder = tmp_path / "out" / INNER if result.method == "words" else tmp_path / "out"
    contents = [chunk.content for chunk in dataset.corpus.values()]
    missed = embedder.misses  # type: ignore[attr-defined]
    open_artifact(folder, lambda name: embedder).embed_documents(contents)
    assert embedder.misses == missed  # type: ignore[attr-defined]


def test_a_base_behind_an_api_is_refused_for_the_query_method_only(dataset: RetrievalDataset, tmp_path: Path) -> None:
    from spaces import TableEmbedder, unit

    rng = np.random.default_rng(0)
    texts = [chunk.content for chunk in dataset.corpus.values()] + [query.text for query in dataset.queries.values()]
    remote = TableEmbedder("remote", {text: unit(rng.normal(size=8)) for text in texts})
    with pytest.raises(ModelError, match="'remote' is not one"):
        tune_query_encoder(dataset, tmp_path / "a", remote)
    kept = tune_keeping_index(dataset, tmp_path / "b", remote)
    assert kept.method in ("adapter", "words") and not any("opens elsewhere" in note for note in kept.notes)


def test_a_changed_base_is_refused(tuned: Path, tmp_path: Path) -> None:
    marker = json.loads((tuned / "vectune.json").read_text())
    write_json(tmp_path / "vectune.json", {**marker, "base_fingerprint": "0" * 64})
    with pytest.raises(FingerprintError, match="0000"):
        open_embedder(tmp_path)
