"""SentenceTransformersFinetuneEngine over vectune's training, and what LlamaIndex's ignores or gets wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_made import dataset_about, hashed
from llama_server import THINGS
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from vectune.embedders.models import DEFAULT_MODEL
from vectune.errors import DatasetError, ModelError, OutputError, UsageError
from vectune.integrations.llama_index import (
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    SentenceTransformersFinetuneEngine,
    VectuneEmbedding,
)


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


def test_foreign_output_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    engine = SentenceTransformersFinetuneEngine(dataset_about(THINGS[:4]), str(tiny_bert), str(tmp_path))
    with pytest.raises(OutputError):
        engine.finetune()
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith((".", "vectune"))] == ["thesis.txt"]
