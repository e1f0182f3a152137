"""A lexical tail behind a tuned model's vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_dataset import small_dataset
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import INNER
from vectune.embedders.options import EmbedOptions
from vectune.errors import ModelError, UsageError
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.splits import with_dev
from vectune.training import blend
from vectune.training import finetune as module
from vectune.training.blend import UNLABELLED_WEIGHT
from vectune.training.finetune import finetune
from vectune.training.methods import checked_method
from vectune.training.options import TuneOptions


def options(model: Path, **given: Any) -> TuneOptions:
    plain = {"method": "full", "model": str(model), "precision": "fp32", "epochs": 0.5, "batch": 16, "tail": True}
    return TuneOptions(**{**plain, **given})


def worded() -> RetrievalDataset:
    """People who use the words of the chunk, which a model of random weights does not know to weigh."""
    dataset = small_dataset()
    for judged in dataset.qrels.values():
        for query, chunks in judged.items():
            text = " ".join(dataset.corpus[next(iter(chunks))].text.split()[:6])
            dataset.queries[query] = replace(dataset.queries[query], text=text)
    return dataset


def dev_score(dataset: RetrievalDataset, name: str) -> float:
    model = open_embedder(name, EmbedOptions(precision="fp32"))  # as it was trained
    found = evaluate(dataset, [model], "dev", EvaluateOptions(measures=("nDCG@10",), timed_queries=0))
    return found.rows[0].measures["nDCG@10"]


def test_the_tail_stands_behind_the_tuned_vectors_at_the_weight_that_dev_prefers(
    tiny_bert: Path, tmp_path: Path
) -> None:
    dataset, out = with_dev(worded(), 0), tmp_path / "out"
    result = finetune(dataset, out, options(tiny_bert))
    marker = json.loads((out / "vectune.json").read_text())
    assert (marker["kind"], marker["method"], result.method) == ("blend", "full", "full")
    assert marker["chosen"]["lexical_tail"]["weight"] > 0
    # what it tells is what an evaluation among all chunks finds
    assert result.dev_after == pytest.approx(dev_score(dataset, str(out)), abs=1e-4)
    assert result.dev_before == pytest.approx(dev_score(dataset, str(tiny_bert)), abs=1e-4)
    assert result.dev_after > dev_score(dataset, str(out / INNER)) + 0.05
    whole, inner = open_embedder(out), open_embedder(out / INNER)
    texts = [chunk.content for chunk in dataset.corpus.values()][:5]
    assert whole.dim == result.chosen["lexical_tail"]["dim"] > inner.dim
    part = whole.embed_documents(texts)[:, : inner.dim]
    radius = np.linalg.norm(part, axis=1, keepdims=True)
    assert np.allclose(part / radius, inner.embed_documents(texts), atol=1e-5)
    assert not list(tmp_path.glob(".out*")), "nothing is left beside the artifact"


def test_the_tuned_model_inside_opens_with_sentence_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    finetune(worded(), tmp_path / "out", options(tiny_bert))
    model = SentenceTransformer(str(tmp_path / "out" / INNER), device="cpu")
    ours = open_embedder(tmp_path / "out" / INNER, EmbedOptions(precision="fp32")).embed_queries(["a pump"])
    assert np.allclose(ours[0], model.encode_query("a pump", normalize_embeddings=True), atol=1e-5)


def test_where_words_add_nothing_the_tuned_model_alone_is_the_result(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = small_dataset()
    for number, query in enumerate(list(dataset.queries.values())):  # no word of the corpus
        dataset.queries[query.id] = replace(query, text=f"unheard{number} things")
    result = finetune(dataset, tmp_path / "out", options(tiny_bert))
    assert json.loads((tmp_path / "out" / "vectune.json").read_text())["kind"] == "full"
    assert result.notes[-1].endswith("it is left out.")
    assert "lexical_tail" not in result.chosen
    assert open_embedder(tmp_path / "out").dim == open_embedder(tiny_bert).dim


def test_large_corpora_are_judged_by_a_sample_that_holds_the_answers(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(worded(), tmp_path / "whole", options(tiny_bert))
    monkeypatch.setattr(blend, "MANY", 10)
    sampled = finetune(worded(), tmp_path / "sampled", options(tiny_bert))
    assert "among 96 chunks" in whole.notes[-1]
    dev = len(with_dev(worded(), 0).qrels["dev"])
    assert dev <= int(sampled.notes[-1].split("among ")[1].split()[0]) <= dev + 10
    assert sampled.dev_after >= whole.dev_after  # fewer chunks to be wrong about


def test_written_queries_take_the_constant(tiny_bert: Path, tmp_path: Path) -> None:
    dataset = worded()
    dataset.info["generated"] = True
    result = finetune(dataset, tmp_path / "out", options(tiny_bert))
    assert result.chosen["lexical_tail"]["weight"] == UNLABELLED_WEIGHT


def test_a_start_after_a_kill_goes_on_from_the_tuned_model_and_not_from_another_one(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = worded(), tmp_path / "out"
    tuned: list[str] = []
    into = module.Tuning.into

    def counted(self: module.Tuning, folder: Path) -> Any:
        tuned.append(self.options.method or "")
        return into(self, folder)

    def killed(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Tuning, "into", counted)
    with monkeypatch.context() as patch:
        patch.setattr(module, "tail_behind", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(dataset, out, options(tiny_bert))
    assert not out.exists()
    finetune(dataset, out, options(tiny_bert))
    assert tuned == ["full"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "tail_behind", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(dataset, out, options(tiny_bert))
    finetune(dataset, out, options(tiny_bert, seed=1))
    assert tuned == ["full"] * 3, "the seed is another: what was finished is not what is asked for"


def test_a_missing_tail_is_an_error_that_names_the_file(tiny_bert: Path, tmp_path: Path) -> None:
    finetune(worded(), tmp_path / "out", options(tiny_bert))
    (tmp_path / "out" / "blend.safetensors").unlink()
    with pytest.raises(ModelError, match=r"blend\.safetensors"):
        open_embedder(tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": "adapter"}, "not with 'adapter'"),
        ({"method": "query"}, "not with 'query'"),
        ({"method": "blend"}, "not with 'blend'"),
        ({"method": "lora", "keep_index": True}, "while the index is kept"),
        ({"model": "openai:some"}, "not with 'openai:some'"),
        ({"dimensions": (32, 16)}, "cannot be cut"),
    ],
)
def test_what_a_tail_does_not_go_with_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        checked_method(TuneOptions(tail=True, **given))
