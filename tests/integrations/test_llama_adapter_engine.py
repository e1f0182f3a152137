"""EmbeddingAdapterFinetuneEngine over vectune's adapters, and what LlamaIndex's ignores or gets wrong."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import torch
from llama_made import Hashed, dataset_about, hashed
from llama_server import THINGS

from vectune.adapters import Adapter, load_adapter
from vectune.embedders.factory import open_embedder
from vectune.errors import ModelError, UsageError
from vectune.integrations.llama_adapters import torch_adapter
from vectune.integrations.llama_index import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    LinearLayer,
    TwoLayerNN,
    VectuneEmbedding,
)
from vectune.testing import hashed_embedding


@pytest.mark.parametrize("residual", [False, True])
def test_two_layers_are_saved_as_theirs(residual: bool, tmp_path: Path) -> None:
    layer = TwoLayerNN(8, 16, 8, bias=True, activation_fn_str="tanh", add_residual=residual)
    torch.nn.init.constant_(layer.residual_weight, 0.5)
    layer.save(str(tmp_path / "a"))
    again = TwoLayerNN.load(str(tmp_path / "a"))
    x = torch.randn(3, 8)
    assert torch.equal(again(x), layer(x)) and again.get_config_dict() == layer.get_config_dict()
    applied = load_adapter(tmp_path / "a").adapter.apply(x.numpy())
    assert np.allclose(applied, torch.nn.functional.normalize(layer(x), dim=1).detach().numpy(), atol=1e-5)
    with pytest.raises(ModelError, match="LinearLayer"):
        LinearLayer.load(str(tmp_path / "a"))


def test_vectunes_adapters_as_theirs() -> None:
    rng = np.random.default_rng(0)
    part = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 6), (6,), (4, 6), (4,), (6, 4))]
    for adapter in (
        Adapter("linear", 6, 6, skip=part[0], bias=part[1]),
        Adapter("mlp", 6, 6, part[0], part[1], part[2], part[3], part[4], activation="relu"),
    ):
        x = rng.normal(size=(5, 6)).astype(np.float32)
        mapped = torch.nn.functional.normalize(torch_adapter(adapter)(torch.from_numpy(x)), dim=1).detach().numpy()
        assert np.allclose(adapter.apply(x), mapped, atol=1e-5)


def test_each_text_is_embedded_once_in_whole_lists(tmp_path: Path) -> None:
    base, dataset = hashed(), dataset_about(THINGS[:12])
    adapter = TwoLayerNN(32, 32, 32, add_residual=True)
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, base, adapter_model=adapter, model_output_path=str(tmp_path / "a"), epochs=5
    )
    engine.finetune()
    texts = {*dataset.queries.values(), *dataset.corpus.values()}
    assert {base.asked[text] for text in texts & base.asked.keys()} == {1}
    assert len(texts - base.asked.keys()) < 8  # questions that lie between train and dev are left out
    assert max(base.lists) == 48
    model = engine.get_finetuned_model()
    assert model.get_text_embedding("you can") == base.get_text_embedding("you can")
    opened = AdapterEmbeddingModel(base, str(tmp_path / "a"), TwoLayerNN)
    assert opened.get_query_embedding("open a car") == model.get_query_embedding("open a car")
    assert engine.result is not None and engine.result.dev_after >= engine.result.dev_before
    again = EmbeddingAdapterFinetuneEngine.from_model_path(dataset, base, str(tmp_path / "a"))
    assert isinstance(again.model, TwoLayerNN)


class SyncOnly(Hashed):
    """As many have it who need no async way; two calls at once would harm it."""

    def _get_query_embedding(self, query: str) -> list[float]:
        assert ALONE.acquire(blocking=False)
        try:
            time.sleep(0.001)  # others may run
            return self._vector(query)
        finally:
            ALONE.release()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise NotImplementedError("async not supported")


ALONE = threading.Lock()


def test_an_embedding_without_an_async_way(tmp_path: Path) -> None:
    base, dataset = SyncOnly(model_name="sync", embed_batch_size=50, asked={}, lists=[]), dataset_about(THINGS[:12])
    engine = EmbeddingAdapterFinetuneEngine(dataset, base, model_output_path=str(tmp_path / "a"))
    engine.finetune()
    assert {base.asked[text] for text in dataset.queries.values() if text in base.asked} == {1}
    assert len(engine.get_finetuned_model().get_query_embedding("how do I open a car")) == 32


def test_the_ladder_over_a_model_of_vectunes(tiny_bert: Path, tmp_path: Path) -> None:
    base, out = VectuneEmbedding(tiny_bert), tmp_path / "a"
    engine = EmbeddingAdapterFinetuneEngine(dataset_about(THINGS[:12]), base, model_output_path=str(out))
    engine.finetune()
    query = np.asarray(engine.get_finetuned_model().get_query_embedding("how do I open a car"))
    assert {"config.json", "pytorch_model.bin", "adapter.json", "vectune.json"} <= {f.name for f in out.iterdir()}
    opened = open_embedder(str(out), cache=False)  # vectune's own door reads it, too
    assert np.allclose(opened.embed_queries(["how do I open a car"])[0], query, atol=1e-5)
    (out / "adapter.json").unlink()  # what LlamaIndex would read
    theirs = AdapterEmbeddingModel(base, out).get_query_embedding("how do I open a car")
    assert np.allclose(theirs, query, atol=1e-5)


class Doubled(torch.nn.Module):
    """A user's own: what LlamaIndex asks of it is ``save`` alone; ``load`` opens it again."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, dim)

    def forward(self, embed: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(embed)) + embed

    def save(self, folder: str) -> None:
        torch.save(self.state_dict(), Path(folder) / "weights.pt")

    @classmethod
    def load(cls, folder: str) -> Doubled:
        found = cls()
        found.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
        return found


@pytest.mark.parametrize("name", ["Doubled", "LinearLayer"])  # the latter's name is not LlamaIndex's class
def test_a_torch_module_of_ones_own(name: str, tmp_path: Path) -> None:
    adapter = type(name, (Doubled,), {})()
    engine = EmbeddingAdapterFinetuneEngine(
        dataset_about(THINGS[:6]), hashed(), adapter_model=adapter, model_output_path=str(tmp_path / "a"), epochs=1
    )
    engine.finetune()
    vector = torch.tensor(hashed_embedding("milk", 32))[None]
    mapped = torch.nn.functional.normalize(adapter(torch.nn.functional.normalize(vector, dim=1)), dim=1)
    assert np.allclose(engine.get_finetuned_model().get_query_embedding("milk"), mapped.detach().numpy()[0], atol=1e-5)


def test_an_adapter_that_cannot_serve_is_refused_before_training(tmp_path: Path) -> None:
    dataset, out = dataset_about(THINGS[:6]), str(tmp_path / "a")
    for adapter, message in (
        (LinearLayer(31, 31), "takes no vectors of 32"),
        (LinearLayer(32, 31), "makes \\(2, 31\\)"),
        (torch.nn.Identity(), "no save"),
    ):
        with pytest.raises(UsageError, match=message):
            EmbeddingAdapterFinetuneEngine(dataset, hashed(), adapter_model=adapter, model_output_path=out).finetune()
    assert not (tmp_path / "a").exists()


def test_adapter_like_llama_index_and_keywords(tmp_path: Path) -> None:
    dataset = dataset_about(THINGS[:5])
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, hashed(), model_output_path=str(tmp_path / "a"), like_llama_index=True
    )
    engine.finetune()
    moved = (engine.model.linear.weight - torch.eye(32)).abs().max()
    assert 0 < moved < 2 * 2e-5 + 1e-7  # two steps of AdamW at 2e-5
    with pytest.raises(UsageError, match="optimiser_params"):
        EmbeddingAdapterFinetuneEngine(dataset, hashed(), optimiser_params={})
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, hashed(), 10, 1, model_output_path=str(tmp_path / "b"), optimizer_class=torch.optim.SGD
    )
    engine.finetune(optimizer_params={"lr": 0.0})
    assert torch.equal(engine.model.linear.weight.data, torch.eye(32))


def test_like_llama_index_with_all_nodes(tmp_path: Path) -> None:
    """Each of a question's nodes is a pair, in the dataset's order; the weights are those of the loop written out."""
    dataset = dataset_about(THINGS[:3])
    dataset.relevant_docs["q-apple-heat"] = ["apple-heat", "beer-heat"]
    made = {}
    for all_docs in (False, True):
        engine = EmbeddingAdapterFinetuneEngine(
            dataset, hashed(), 5, like_llama_index=True, use_all_docs=all_docs, model_output_path=str(tmp_path / "a")
        )
        engine.finetune(optimizer_class=torch.optim.SGD, optimizer_params={"lr": 1.0}, warmup_steps=0)
        made[all_docs] = engine.model.linear.weight.data

    pairs = [(query, node) for query, nodes in dataset.query_docid_pairs for node in nodes]
    layer = LinearLayer(32, 32)
    optimizer = torch.optim.SGD(layer.parameters())
    for step, start in enumerate(range(0, len(pairs), 5)):
        batch = pairs[start : start + 5]
        texts = [query for query, _ in batch], [dataset.corpus[node] for _, node in batch]
        vectors = [torch.tensor([hashed_embedding(text, 32) for text in side]) for side in texts]
        scores = torch.nn.functional.normalize(layer(vectors[0]), dim=1) @ vectors[1].T * 20
        optimizer.param_groups[0]["lr"] = (3 - step) / 3
        torch.nn.functional.cross_entropy(scores, torch.arange(len(batch))).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert len(pairs) == 13 and torch.allclose(made[True], layer.linear.weight.data, atol=1e-5)
    assert not torch.allclose(made[False], made[True], atol=1e-3)


def test_like_llama_index_learns_nothing_from_val(tmp_path: Path) -> None:
    made = []
    for val in (None, dataset_about(THINGS[5:10])):
        engine = EmbeddingAdapterFinetuneEngine(
            dataset_about(THINGS[:5]),
            hashed(),
            val_dataset=val,
            like_llama_index=True,
            model_output_path=str(tmp_path / "a"),
        )
        engine.finetune()
        made.append(engine.model.linear.weight.data)
    assert torch.equal(*made)


class Noting(torch.optim.SGD):
    """A user's own optimizer; it notes the rate of each step."""

    rates: ClassVar[list[float]] = []

    def step(self, closure: Any = None) -> Any:
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def test_warmup_steps_are_steps(tmp_path: Path) -> None:
    """Although dev is cut from the questions, and fewer steps are left than all questions would make."""
    Noting.rates.clear()
    out = str(tmp_path / "a")
    engine = EmbeddingAdapterFinetuneEngine(dataset_about(THINGS[:12]), hashed(), 10, 5, model_output_path=out)
    engine.finetune(warmup_steps=7, optimizer_class=Noting, patience=0)
    assert len(Noting.rates) < 25 and int(np.argmax(Noting.rates)) == 7


def test_no_adapter_yet(tmp_path: Path) -> None:
    engine = EmbeddingAdapterFinetuneEngine(dataset_about(THINGS[:4]), hashed(), model_output_path=str(tmp_path / "a"))
    with pytest.raises(ModelError, match="no adapter"):
        engine.get_finetuned_model()


def test_a_call_after_the_ladder_heeds_its_words(tmp_path: Path) -> None:
    engine = EmbeddingAdapterFinetuneEngine(
        dataset_about(THINGS[:6]), hashed(), model_output_path=str(tmp_path / "a"), checkpoint_save_steps=1
    )
    engine.finetune(epochs=1)  # which the ladder has none of
    assert engine.result is not None and "settings" in engine.result.chosen
    engine.finetune(optimizer_class=torch.optim.SGD, epochs=1)
    assert "adapter" in engine.result.chosen
    for wrong in ({"epochs": 0}, {"batch_size": -1}):
        with pytest.raises(UsageError, match="expected at least 1"):
            engine.finetune(**wrong)
