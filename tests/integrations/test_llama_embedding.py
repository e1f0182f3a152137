"""vectune's artifacts as LlamaIndex's embeddings."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

from llama_made import Hashed, dataset_about, hashed
from llama_server import THINGS

from vectune.adapters import Adapter, StoredAdapter, save_adapter
from vectune.embedders.options import EmbedOptions
from vectune.errors import FingerprintError, ModelError, UsageError
from vectune.integrations.llama_embedding import as_embedder
from vectune.integrations.llama_index import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    LinearLayer,
    VectuneEmbedding,
)


def test_no_argument_of_an_embedding_is_swallowed(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="embed_bach_size"):
        VectuneEmbedding(tiny_bert, embed_bach_size=3)
    LinearLayer(32, 32).save(str(tmp_path / "a"))
    with pytest.raises(UsageError, match="devise"):
        AdapterEmbeddingModel(hashed(), tmp_path / "a", devise="cpu")
    assert AdapterEmbeddingModel(hashed(), tmp_path / "a", num_workers=2).num_workers == 2


def test_an_embedding_is_restored_from_its_fields(tiny_bert: Path) -> None:
    model = VectuneEmbedding(tiny_bert)
    again = VectuneEmbedding.from_dict(model.to_dict())
    assert again.get_query_embedding("beer") == model.get_query_embedding("beer")


def test_an_embedding_in_another_process_has_its_options(tiny_bert: Path) -> None:
    """LlamaIndex's pipelines with ``num_workers`` pickle it."""
    model = VectuneEmbedding(tiny_bert, options=EmbedOptions(max_length=4, query_prompt="ask: ", api_key="secret"))
    text = "the beer is in the cat with the dog"
    assert "secret" not in model.to_json()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), VectuneEmbedding.from_json(model.to_json())):
        assert again.get_text_embedding(text) == model.get_text_embedding(text)
        assert again.get_query_embedding(text) == model.get_query_embedding(text)
    with pytest.raises(UsageError, match="another process"):
        pickle.dumps(VectuneEmbedding(embedder=model.embedder))


def test_an_adapter_over_another_base_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    engine = EmbeddingAdapterFinetuneEngine(
        dataset_about(THINGS[:8]), VectuneEmbedding(tiny_bert), model_output_path=str(tmp_path / "a")
    )
    engine.finetune()
    other = VectuneEmbedding(tiny_bert, options=EmbedOptions(query_prompt="another: "))
    with pytest.raises(FingerprintError, match="does not fit"):
        AdapterEmbeddingModel(other, tmp_path / "a")


async def _both(model: VectuneEmbedding) -> tuple[Any, Any]:
    return await model.aget_query_embedding("beer"), await model.aget_text_embedding_batch(["car", "milk"])


def test_async_is_the_same(tiny_bert: Path) -> None:
    import asyncio

    model = VectuneEmbedding(tiny_bert)
    query, texts = asyncio.run(_both(model))
    assert query == model.get_query_embedding("beer")
    assert np.allclose(texts, model.get_text_embedding_batch(["car", "milk"]), atol=1e-6)


class Own(LinearLayer):
    """An adapter of somebody's own."""


def test_an_own_adapter_over_another_base_is_refused_too(tiny_bert: Path, tmp_path: Path) -> None:
    base = VectuneEmbedding(tiny_bert)
    engine = EmbeddingAdapterFinetuneEngine(
        dataset_about(THINGS[:6]), base, adapter_model=Own(32, 32), model_output_path=str(tmp_path / "a"), epochs=1
    )
    engine.finetune()
    assert AdapterEmbeddingModel(base, tmp_path / "a", Own).get_query_embedding("beer")
    other = VectuneEmbedding(tiny_bert, options=EmbedOptions(query_prompt="another: "))
    with pytest.raises(FingerprintError):
        AdapterEmbeddingModel(other, tmp_path / "a", Own)


def test_a_folder_with_more_than_an_adapter_for_queries_is_refused(tmp_path: Path) -> None:
    eye = Adapter("linear", 32, 32, skip=np.eye(32, dtype=np.float32))
    (tmp_path / "both").mkdir()
    save_adapter(tmp_path / "both", StoredAdapter(eye, eye))
    with pytest.raises(ModelError, match="map of stored vectors besides") as raised:
        AdapterEmbeddingModel(hashed(), tmp_path / "both")
    assert "VectuneEmbedding(" in raised.value.hint


def test_models_of_other_settings_share_no_vectors() -> None:
    """Their vectors for a short text are the same where only a length differs."""

    class Cut(Hashed):
        max_length: int = 10

    short, again, long = (Cut(asked={}, lists=[], max_length=length) for length in (10, 10, 20))
    keys = Cut(asked={}, lists=[], max_length=10, embed_batch_size=3)
    assert as_embedder(short).fingerprint == as_embedder(again).fingerprint == as_embedder(keys).fingerprint
    assert len({as_embedder(model).fingerprint for model in (short, long, hashed())}) == 3


def test_what_came_before_a_failure_is_kept_and_nothing_is_asked_after_it() -> None:
    class Failing(Hashed):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            if len(self.lists) == 2:
                self.lists.append(0)
                raise ConnectionError("429")
            return super()._get_text_embeddings(texts)

    model, texts = (
        Failing(model_name="failing", embed_batch_size=5, asked={}, lists=[]),
        [f"text {n}" for n in range(20)],
    )
    with pytest.raises(ConnectionError):
        as_embedder(model).embed_documents(texts)
    as_embedder(model).embed_documents(texts)
    assert {model.asked[text] for text in texts} == {1}
