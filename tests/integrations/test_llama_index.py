"""LlamaIndex's names over vectune's machinery: what they do, and what theirs ignore or get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_server import THINGS, USES, ServerLLM, serving

from vectune.adapters import Adapter, load_adapter
from vectune.embedders.factory import open_embedder
from vectune.errors import DatasetError, ModelError, OutputError, UsageError
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
    generate_qa_embedding_pairs,
)
from vectune.testing import hashed_embedding

THEIRS = Path(__file__).parent / "from_llama_index"


def nodes_about(things: list[str]) -> list[TextNode]:
    return [
        TextNode(id_=f"{thing}-{use}", text=f"you can {use} the {thing}, and you can sell the {thing}")
        for thing in things
        for use in USES[:3]
    ]


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


# Questions


def test_a_failed_node_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:4]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        server.fail("500")
        with pytest.warns(UserWarning, match="1 nodes have no questions"):
            first = generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False, retry_limit=1)
        assert len(first.corpus) == 11 and server.count() == 12
        second = generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
        assert server.count() == 13
        assert list(second.corpus) == [node.node_id for node in nodes]
        assert [second.queries[q] for q, docs in second.relevant_docs.items() if docs == ["apple-open"]] == [
            "how do I open a apple?",  # and not "Here are the questions:"
            "how do I sell a apple?",
        ]
        (tmp_path / "qa.json").unlink()  # the store alone is enough, also in another order and with more nodes
        more = [*reversed(nodes), *nodes_about([THINGS[5]])]
        third = generate_qa_embedding_pairs(more, llm, output_path=out, verbose=False)
        assert server.count() == 16 and set(second.queries.items()) <= set(third.queries.items())
        assert EmbeddingQAFinetuneDataset.from_json(out) == third


def test_another_prompt_or_model_asks_again(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:1]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
        template = 'Ask {num_questions_per_chunk} of {context_str} as {"q": "..."}'
        generate_qa_embedding_pairs(nodes, llm, template, output_path=out, verbose=False)
        assert server.count() == 6
        assert '{"q": "..."}' in server.asked[-1].body["messages"][0]["content"]
        other = ServerLLM(base_url=server.base_url, model="other")
        generate_qa_embedding_pairs(nodes, other, template, output_path=out, verbose=False)
        assert server.count() == 9


def test_concurrent_within_bounds(tmp_path: Path) -> None:
    with serving() as server:
        server.delay = 0.2
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(
            nodes_about(THINGS[:4]), llm, output_path=str(tmp_path / "a.json"), verbose=False, concurrency=4
        )
        assert 2 <= server.most_in_flight <= 4


def test_fail_is_a_runtime_error_and_keeps_what_came(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:2]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(nodes[:3], llm, output_path=out, verbose=False)
        server.fail("500", times=50)
        with pytest.raises(RuntimeError, match="after 2 tries"):
            generate_qa_embedding_pairs(
                nodes, llm, output_path=out, verbose=False, on_failure="fail", retry_limit=2, concurrency=1
            )
    assert len(EmbeddingQAFinetuneDataset.from_json(out).corpus) == 3
    with pytest.raises(UsageError, match="on_failure"):
        generate_qa_embedding_pairs(nodes, llm, on_failure="explode")


def test_goes_on_from_a_file_of_llama_index(tmp_path: Path) -> None:
    """Its ids are random; a node that it skipped is asked, although its corpus has as many nodes as come before it."""
    nodes, out = nodes_about(THINGS[:1]), tmp_path / "qa.json"
    done = EmbeddingQAFinetuneDataset(
        queries={"1b4e28ba-2fa1-11d2-883f-0016d3cca427": "a question"},
        corpus={nodes[1].node_id: nodes[1].text},
        relevant_docs={"1b4e28ba-2fa1-11d2-883f-0016d3cca427": [nodes[1].node_id]},
    )
    done.save_json(str(out))
    with serving() as server, pytest.warns(UserWarning, match="1 of 3 nodes have fewer than 2"):
        llm = ServerLLM(base_url=server.base_url)
        found = generate_qa_embedding_pairs(nodes, llm, output_path=str(out), verbose=False)
        assert server.count() == 2
    assert list(found.corpus) == [node.node_id for node in nodes]
    assert "a question" in found.queries.values() and not (tmp_path / "qa.old.json").exists()


def test_other_nodes_in_the_file_are_not_mixed_in(tmp_path: Path) -> None:
    """Theirs merges, so that a validation set made at the default path holds the training set."""
    out = str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        train = generate_qa_embedding_pairs(nodes_about(THINGS[:1]), llm, output_path=out, verbose=False)
        val = generate_qa_embedding_pairs(nodes_about(THINGS[1:2]), llm, output_path=out, verbose=False)
    assert not train.corpus.keys() & val.corpus.keys()
    assert EmbeddingQAFinetuneDataset.from_json(out) == val
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "qa.old.json")) == train


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
    """Their training: the dataset's order and batches of 10; the weights are those of the loop written out."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    dataset = dataset_about(THINGS[:4])
    engine = SentenceTransformersFinetuneEngine(
        dataset, str(tiny_bert), str(tmp_path / "m"), show_progress_bar=False, like_llama_index=True, epochs=1
    )
    torch.manual_seed(0)
    engine.finetune()
    assert engine.result is not None and "no dev split" in engine.result.notes[0]

    reference = SentenceTransformer(str(tiny_bert), device="cpu")
    loss = MultipleNegativesRankingLoss(reference)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=2e-5, weight_decay=0.01)
    pairs = [(query, dataset.corpus[docs[0]]) for query, docs in dataset.query_docid_pairs]
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


def test_own_loss_and_val(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

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


async def _both(model: VectuneEmbedding) -> tuple[Any, Any]:
    return await model.aget_query_embedding("beer"), await model.aget_text_embedding_batch(["car", "milk"])


def test_async_is_the_same(tiny_bert: Path) -> None:
    import asyncio

    model = VectuneEmbedding(tiny_bert)
    query, texts = asyncio.run(_both(model))
    assert query == model.get_query_embedding("beer")
    assert np.allclose(texts, model.get_text_embedding_batch(["car", "milk"]), atol=1e-6)
