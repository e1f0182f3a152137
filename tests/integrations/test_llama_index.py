"""LlamaIndex's names over vectune's machinery: what they do, and what theirs ignore or get wrong."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_server import THINGS, USES
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from vectune.adapters import Adapter, load_adapter
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import EmbedOptions
from vectune.errors import DatasetError, FingerprintError, ModelError, OutputError, UsageError
from vectune.formats import open_dataset
from vectune.integrations.llama_adapters import torch_adapter
from vectune.integrations.llama_data import retrieval_dataset
from vectune.integrations.llama_index import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    LinearLayer,
    SentenceTransformersFinetuneEngine,
    TwoLayerNN,
    VectuneEmbedding,
)
from vectune.testing import hashed_embedding

THEIRS = Path(__file__).parent / "from_llama_index"


def dataset_about(things: list[str]) -> EmbeddingQAFinetuneDataset:
    pairs = [(f"{thing}-{use}", f"how do I {use} a {thing}", use, thing) for thing in things for use in USES]
    return EmbeddingQAFinetuneDataset(
        queries={f"q-{key}": query for key, query, *_ in pairs},
        corpus={key: f"you can {use} the {thing} with your hand" for key, _, use, thing in pairs},
        relevant_docs={f"q-{key}": [key] for key, *_ in pairs},
    )


class Hashed(BaseEmbedding):
    """A black box that counts what it is asked."""

    asked: dict[str, int]
    lists: list[int]

    def _vector(self, text: str) -> list[float]:
        self.asked[text] = self.asked.get(text, 0) + 1
        return [3.0 * value for value in hashed_embedding(text, 32)]  # not of unit norm

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.lists.append(len(texts))
        return [self._vector(text) for text in texts]


def hashed() -> Hashed:
    return Hashed(model_name="hashed", embed_batch_size=50, asked={}, lists=[])


# The dataset


def test_json_is_theirs(tmp_path: Path) -> None:
    dataset = dataset_about(THINGS[:2])
    dataset.save_json(str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()).keys() == {"queries", "corpus", "relevant_docs", "mode"}
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json")) == dataset
    assert dataset.query_docid_pairs[0] == ("how do I open a apple", ["apple-open"])
    assert len(open_dataset(tmp_path / "a.json").split("train")) == 8
    (tmp_path / "old.json").write_text('{"queries": {"a": "b"}, "corpus": {}, "relevant_docs": {"a": []}}')
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "old.json")).mode == "text"
    dataset.queries["q-apple-open"] = "wie öffne ich einen Apfel?"
    dataset.save_json(str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text(encoding="ascii"), "theirs reads in the machine's own encoding"
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json")) == dataset
    with pytest.raises(FileNotFoundError) as caught:  # what code around LlamaIndex's catches
        EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "none.json"))
    assert isinstance(caught.value, DatasetError)


def test_what_llama_index_wrote_opens() -> None:
    """Files of llama-index-finetuning 0.4.2 and llama-index-embeddings-adapter 0.4.1, with what those adapters gave."""
    dataset = EmbeddingQAFinetuneDataset.from_json(str(THEIRS / "dataset.json"))
    assert dataset.relevant_docs == {"q1": ["n1", "n2"], "q2": ["n2"]} and dataset.queries["q2"] == "wie heißt das?"
    vectors = json.loads((THEIRS / "vectors.json").read_text())
    for name, made in (("linear", LinearLayer), ("two-layers", TwoLayerNN)):
        adapter = made.load(str(THEIRS / name))
        assert torch.allclose(adapter(torch.tensor(vectors["x"])), torch.tensor(vectors[name]), atol=1e-6)
        unit = torch.nn.functional.normalize(torch.tensor(vectors[name]), dim=1).numpy()
        given = np.array(vectors["x"], np.float32)
        assert np.allclose(load_adapter(THEIRS / name).adapter.apply(given), unit, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "two-layers"])
def test_what_we_write_is_what_llama_index_wrote(name: str, tmp_path: Path) -> None:
    """The same keys, types and shapes, so that their ``load`` finds what it looks for."""
    made = LinearLayer(6, 6, bias=True) if name == "linear" else TwoLayerNN(6, 8, 6, True, "tanh", True)
    made.save(str(tmp_path))
    for file in (tmp_path, THEIRS / name):
        assert sorted(each.name for each in file.iterdir()) == ["config.json", "pytorch_model.bin"]
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, THEIRS / name))
    assert ours == theirs
    shapes = [
        {key: value.shape for key, value in torch.load(folder / "pytorch_model.bin", weights_only=True).items()}
        for folder in (tmp_path, THEIRS / name)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("content", ["{", "[]", '{"queries": {}}', '{"queries": 1, "corpus": {}, "relevant_docs": {}}'])
def test_broken_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.json"):
        EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "a.json"))


def test_all_positives_or_the_first() -> None:
    dataset = dataset_about(THINGS[:2])
    dataset.relevant_docs["q-apple-open"] = ["apple-open", "apple-close"]
    assert list(retrieval_dataset(dataset).split("train")["q-apple-open"]) == ["apple-open", "apple-close"]
    assert list(retrieval_dataset(dataset, all_docs=False).split("train")["q-apple-open"]) == ["apple-open"]
    dataset.relevant_docs["q-apple-open"] = ["nowhere"]
    with pytest.raises(DatasetError, match="nowhere"):
        retrieval_dataset(dataset)


def test_train_and_val_over_one_corpus_keep_their_questions() -> None:
    train, val = dataset_about(THINGS[:3]), dataset_about(THINGS[:3])
    val.queries = dict.fromkeys(val.queries, "another question")
    data = retrieval_dataset(train, val)
    assert len(data.corpus) == 12 and len(data.queries) == 24
    assert data.queries_of("train")[0].text == "how do I open a apple"
    assert {query.text for query in data.queries_of("dev")} == {"another question"}


# The model engine


def test_without_validation_and_with_keywords(tiny_bert: Path, tmp_path: Path) -> None:
    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:10]), str(tiny_bert), str(tmp_path / "m"), show_progress_bar=False
    )
    with pytest.raises(ModelError, match="no tuned model"):
        engine.get_finetuned_model()
    with pytest.raises(UsageError, match="warmup_step"):
        engine.finetune(warmup_step=3)
    engine.finetune(epochs=2, optimizer_params={"lr": 1e-3})
    assert engine.result is not None and engine.result.dev_after >= engine.result.dev_before
    marker = json.loads((tmp_path / "m" / "vectune.json").read_text())
    assert marker["options"]["epochs"] == 2 and marker["options"]["rate"] == 1e-3
    model = engine.get_finetuned_model(embed_batch_size=7)
    assert isinstance(model, BaseEmbedding) and model.embed_batch_size == 7
    theirs = engine.model.encode_query("how do I open a car"), engine.model.encode_document("you can open the car")
    assert np.dot(model.get_query_embedding("how do I open a car"), theirs[0]) > 0.999  # prompts of each role
    assert np.dot(model.get_text_embedding("you can open the car"), theirs[1]) > 0.999
    assert np.dot(engine.model.encode("how do I open a car"), theirs[0]) < 0.999


def test_the_keywords_of_fit(tiny_bert: Path, tmp_path: Path) -> None:
    """Those with a counterpart count; the others are named, and not swallowed."""
    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:10]), str(tiny_bert), str(tmp_path / "m"), show_progress_bar=False
    )
    for keywords in ({"scheduler": "constantlr"}, {"callback": print}, {"steps_per_epoch": 3}):
        with pytest.raises(UsageError, match="no counterpart"):
            engine.finetune(**keywords)
    with pytest.raises(UsageError, match="best state"):
        engine.finetune(save_best_model=False)
    engine.model.max_seq_length = 9
    kept = {"save_best_model": True, "checkpoint_save_steps": 5}
    engine.finetune(epochs=1, warmup_steps=1, optimizer_params={"lr": 1e-3, "weight_decay": 0.0}, **kept)
    options = json.loads((tmp_path / "m" / "vectune.json").read_text())["options"]
    assert options["rate"] == 1e-3 and options["weight_decay"] == 0.0 and options["max_length"] == 9
    assert 0.0 < options["warmup"] <= 1.0 and options["warmup"] != 0.1
    assert engine.model.max_seq_length == 9
    with pytest.raises(AttributeError):
        engine.evaluator = None  # type: ignore[misc]


def test_attributes_are_theirs(tiny_bert: Path) -> None:
    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:5]), str(tiny_bert), "there", 10, save_checkpoints=True, epochs=4
    )
    (first, second) = engine.loader
    assert [len(first), len(second)] == [10, 10] and first[0].texts[0] == "how do I open a apple"
    assert engine.warmup_steps == 0 and engine.checkpoint_path == str(Path("checkpoints") / "there")
    names = "dataset model_id model_output_path model use_all_docs examples loader evaluator loss epochs warmup_steps"
    more = "show_progress_bar evaluation_steps resume_from_checkpoint checkpoint_save_steps checkpoint_save_total_limit"
    assert all(hasattr(engine, name) for name in f"{names} {more}".split())

    adapting = EmbeddingAdapterFinetuneEngine(dataset_about(THINGS[:5]), hashed(), 8)
    queries, texts = next(iter(adapting.loader))
    assert queries.shape == texts.shape == (8, 32) and len(adapting.loader) == 3 and adapting.dim == 32
    assert all(hasattr(adapting, name) for name in ("dataset", "embed_model", "batch_size", "model"))


def test_like_llama_index(tiny_bert: Path, tmp_path: Path) -> None:
    """Their training: shuffled batches of 10; the weights are those of the loop written out."""
    from sentence_transformers import SentenceTransformer

    dataset = dataset_about(THINGS[:4])
    engine = SentenceTransformersFinetuneEngine(
        dataset, str(tiny_bert), str(tmp_path / "m"), show_progress_bar=False, like_llama_index=True, epochs=1
    )
    engine.finetune()
    assert engine.result is not None and "no dev split" in engine.result.notes[0]

    reference = SentenceTransformer(str(tiny_bert), device="cpu")
    loss = MultipleNegativesRankingLoss(reference)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=2e-5, weight_decay=0.01)
    pairs = [(query, dataset.corpus[docs[0]]) for query, docs in dataset.query_docid_pairs]
    pairs = [pairs[row] for row in torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()]
    torch.manual_seed(0)
    loss.train()
    for step, start in enumerate((0, 10)):
        features = [reference.preprocess([pair[side] for pair in pairs[start : start + 10]]) for side in (0, 1)]
        optimizer.param_groups[0]["lr"] = 2e-5 * (2 - step) / 2
        loss(features, None).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    before = dict(SentenceTransformer(str(tiny_bert), device="cpu").named_parameters())
    after, expected = dict(engine.model.named_parameters()), dict(reference.named_parameters())
    name = next(name for name in after if "word_embeddings" in name)
    assert not torch.allclose(after[name], before[name], atol=1e-6)
    assert torch.allclose(after[name], expected[name], atol=1e-6)


class Reading(MultipleNegativesRankingLoss):
    """A user's own loss; it notes what it is given."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.read: list[list[str]] = [[], []]  # questions, texts
        self.prompts: set[tuple[Any, Any]] = set()  # their lengths in tokens

    def forward(self, sentence_features: Any, labels: Any) -> Any:
        sides = list(sentence_features)
        for read, side in zip(self.read, sides, strict=True):
            read += self.model.tokenizer.batch_decode(side["input_ids"], skip_special_tokens=True)
        self.prompts.add((sides[0].get("prompt_length"), sides[1].get("prompt_length")))
        return super().forward(sides, labels)


@pytest.mark.parametrize("like", [False, True])
def test_a_loss_reads_what_is_served(like: bool, tiny_bert: Path, tmp_path: Path) -> None:
    """The prompts of both roles, which this model's pooling leaves out; LlamaIndex trains without."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_bert), device="cpu")
    model.set_pooling_include_prompt(False)
    loss = Reading(model)
    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:4]),
        str(tiny_bert),
        str(tmp_path / "m"),
        loss=loss,
        show_progress_bar=False,
        epochs=1,
        like_llama_index=like,
    )
    engine.finetune()
    query, document = ("", "") if like else ("query : ", "document : ")
    assert sorted(loss.read[0])[0] == f"{query}how do i close a apple"
    assert sorted(loss.read[1])[0] == f"{document}you can close the apple with your hand"
    assert loss.prompts == {(None, None) if like else (3, 3)}


UNREAD: list[dict[str, Any]] = [
    {"precision": "bf16"},
    {"use_amp": True},
    {"max_minutes": 0.1},
    {"negatives": 3},
    {"patience": 1},
    {"teacher": "lexical"},
    {"tail": True},
    {"method": "lora"},
    {"max_length": 9},
]


def test_what_a_loss_does_not_read_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    dataset, out = dataset_about(THINGS[:4]), tmp_path / "m"
    engine = SentenceTransformersFinetuneEngine(
        dataset, str(tiny_bert), str(out), loss=MultipleNegativesRankingLoss, show_progress_bar=False
    )
    for keywords in UNREAD:
        with pytest.raises(UsageError, match="is not read by training with a loss"):
            engine.finetune(**keywords)
    assert not out.exists()
    engine.method = "lora"
    with pytest.raises(UsageError, match="method='lora'"):
        engine.finetune()
    engine.method, engine.loss, engine.dataset = "full", None, few_questions()
    with pytest.raises(UsageError, match=r"max_minutes=1 .*without a dev split"):
        engine.finetune(max_minutes=1)
    engine.like_llama_index, engine.dataset = True, dataset
    with pytest.raises(UsageError, match=r"negatives=2 .*like LlamaIndex"):
        engine.finetune(negatives=2)
    assert not out.exists()
    engine.finetune(precision="fp32", epochs=0.5, batch=4, warmup_steps=1, trust_remote_code=False)
    assert engine.result is not None and engine.result.method == "full"


def few_questions() -> EmbeddingQAFinetuneDataset:
    """No dev split can be cut from them: all are asked about one node."""
    return EmbeddingQAFinetuneDataset(
        queries={"1": "how do I open a car", "2": "how do I heat milk"},
        corpus={"car": "you can open the car and heat the milk"},
        relevant_docs={"1": ["car"], "2": ["car"]},
    )


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("like", [False, True])
def test_one_question_trains_nothing(count: int, like: bool, tiny_bert: Path, tmp_path: Path) -> None:
    dataset, out = few_questions(), str(tmp_path / "m")
    dataset.queries = dict(list(dataset.queries.items())[:count])
    engine = SentenceTransformersFinetuneEngine(
        dataset, str(tiny_bert), out, show_progress_bar=False, like_llama_index=like
    )
    with pytest.raises(DatasetError, match=f"questions in the dataset: {count}"):
        engine.finetune()
    assert not (tmp_path / "m").exists() and engine.result is None


def test_the_seed_counts_with_a_loss(tiny_bert: Path, tmp_path: Path) -> None:
    """For the order, and for dropout, which this model's weights are trained with."""
    made = []
    for run, seed in enumerate((0, 0, 5)):
        losses: list[Reading] = []
        engine = SentenceTransformersFinetuneEngine(
            dataset_about(THINGS[:4]),
            str(tiny_bert),
            str(tmp_path / f"{run}"),
            loss=lambda model, losses=losses: losses.append(Reading(model)) or losses[0],
            show_progress_bar=False,
            epochs=1,
            seed=seed,
        )
        torch.manual_seed(run)
        engine.finetune(rate=1e-3)
        made.append((losses[0].read[0], engine.model.encode("how do I open a car")))
    assert made[0][0] == made[1][0] != made[2][0]
    assert np.array_equal(made[0][1], made[1][1])


def test_own_loss_and_val(tiny_bert: Path, tmp_path: Path) -> None:

    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:8]),
        str(tiny_bert),
        str(tmp_path / "m"),
        val_dataset=dataset_about(THINGS[8:12]),
        loss=lambda model: MultipleNegativesRankingLoss(model, scale=10.0),
        show_progress_bar=False,
    )
    engine.finetune(rate=1e-3)
    assert engine.result is not None and engine.result.dev_after > engine.result.dev_before
    assert len(engine.examples) == 32 and engine.evaluator is not None


def test_a_loss_that_harms_leaves_the_base(tmp_path: Path) -> None:

    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:8]),
        DEFAULT_MODEL,
        str(tmp_path / "m"),
        val_dataset=dataset_about(THINGS[8:12]),
        loss=MultipleNegativesRankingLoss,
        show_progress_bar=False,
        epochs=1,
    )
    before = engine.model.encode_query("how do I open a car")
    engine.finetune(rate=1.0)
    assert engine.result is not None and engine.result.dev_after == engine.result.dev_before > 0.5
    assert engine.result.notes == ("Nothing beat the base model on dev, so the result is the base model.",)
    assert np.allclose(engine.model.encode_query("how do I open a car"), before, atol=1e-6)


def test_looking_at_the_model_changes_nothing_and_freezing_it_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    engine = SentenceTransformersFinetuneEngine(
        dataset_about(THINGS[:6]), str(tiny_bert), str(tmp_path / "m"), show_progress_bar=False
    )
    assert engine.model.max_seq_length == 64
    engine.model[0].requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        engine.finetune()
    engine.method = "lora"  # which freezes it itself
    engine.finetune(epochs=1)
    engine.method = "full"
    engine.model[0].requires_grad_(True)
    engine.finetune(epochs=1)
    assert json.loads((tmp_path / "m" / "vectune.json").read_text())["options"]["max_length"] is None


def test_a_folder_of_llama_index_opens(tiny_bert: Path) -> None:
    engine = SentenceTransformersFinetuneEngine(dataset_about(THINGS[:4]), model_output_path=str(tiny_bert))
    assert engine.get_finetuned_model().get_text_embedding("milk") == VectuneEmbedding(tiny_bert).get_text_embedding(
        "milk"
    )


def test_ids_that_both_datasets_use_for_other_things() -> None:
    """As LlamaIndex's tutorials make them: numbers from 0 in each."""
    train, val = (
        EmbeddingQAFinetuneDataset(queries={"0": f"{word}?"}, corpus={"0": word}, relevant_docs={"0": ["0"]})
        for word in ("milk", "car")
    )
    found = retrieval_dataset(train, val)
    for split, word in (("train", "milk"), ("dev", "car")):
        ((query, chunks),) = found.split(split).items()
        assert found.queries[query].text == f"{word}?" and [found.corpus[key].text for key in chunks] == [word]


def test_foreign_output_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    engine = SentenceTransformersFinetuneEngine(dataset_about(THINGS[:4]), str(tiny_bert), str(tmp_path))
    with pytest.raises(OutputError):
        engine.finetune()
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith((".", "vectune"))] == ["thesis.txt"]


# Adapters


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
