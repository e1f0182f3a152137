"""LlamaIndex's notebooks "Finetune Embeddings" and "Finetuning an Adapter on Top of any Black-Box Embedding
Model" with their cells retyped: the imports are ours, and models' names are parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, Document, TextNode
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from torch import Tensor, nn

from vectune.integrations.llama_index import (
    AdapterEmbeddingModel,
    BaseAdapter,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    LinearAdapterEmbeddingModel,
    SentenceTransformersFinetuneEngine,
    TwoLayerNN,
    VectuneEmbedding,
    generate_qa_embedding_pairs,
)

Datasets = tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]


def load_corpus(files: list[str], chunk_size: int) -> Sequence[BaseNode]:
    docs = SimpleDirectoryReader(input_files=files, file_metadata=lambda path: {}).load_data()
    return split(docs, SentenceSplitter(chunk_size=chunk_size, chunk_overlap=0))


def split(docs: list[Document], parser: SentenceSplitter) -> Sequence[BaseNode]:
    nodes: Sequence[BaseNode] = parser.get_nodes_from_documents(docs)
    return nodes


def generate_datasets(train_nodes: Sequence[BaseNode], val_nodes: Sequence[BaseNode], llm: Any, at: Path) -> Datasets:
    train_dataset = generate_qa_embedding_pairs(
        llm=llm, nodes=train_nodes, output_path=str(at / "train.json"), verbose=False
    )
    val_dataset = generate_qa_embedding_pairs(llm=llm, nodes=val_nodes, output_path=str(at / "val.json"), verbose=False)

    train_dataset.save_json(str(at / "train_dataset.json"))
    val_dataset.save_json(str(at / "val_dataset.json"))

    train_dataset = EmbeddingQAFinetuneDataset.from_json(str(at / "train_dataset.json"))
    val_dataset = EmbeddingQAFinetuneDataset.from_json(str(at / "val_dataset.json"))
    return train_dataset, val_dataset


def evaluate(dataset: EmbeddingQAFinetuneDataset, embed_model: BaseEmbedding, top_k: int = 5) -> list[dict[str, Any]]:
    corpus = dataset.corpus
    queries = dataset.queries
    relevant_docs = dataset.relevant_docs

    nodes = [TextNode(id_=id_, text=text) for id_, text in corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=top_k)

    eval_results = []
    for query_id, query in queries.items():
        retrieved_nodes = retriever.retrieve(query)
        retrieved_ids = [node.node.node_id for node in retrieved_nodes]
        expected_id = relevant_docs[query_id][0]

        rank = retrieved_ids.index(expected_id) + 1 if expected_id in retrieved_ids else None
        eval_results.append(
            {
                "is_hit": expected_id in retrieved_ids,
                "mrr": 1 / rank if rank else 0.0,
                "retrieved": retrieved_ids,
                "expected": expected_id,
                "query": query_id,
            }
        )
    return eval_results


def hit_rate(results: list[dict[str, Any]]) -> float:
    return float(sum(result["is_hit"] for result in results) / len(results))


def evaluate_st(dataset: EmbeddingQAFinetuneDataset, model_id: str, name: str, at: Path) -> float:
    """The first notebook's second evaluation: sentence-transformers opens the tuned folder itself."""
    queries: Any = dataset.queries
    corpus: Any = dataset.corpus
    relevant_docs: Any = dataset.relevant_docs

    evaluator = InformationRetrievalEvaluator(queries, corpus, relevant_docs, name=name)
    model = SentenceTransformer(model_id, device="cpu")
    output_path = at / "results"
    output_path.mkdir(exist_ok=True)
    return float(evaluator(model, output_path=str(output_path))[f"{name}_cosine_accuracy@5"])


def finetune_embeddings(datasets: Datasets, model: str, at: Path, evaluation: int = 10_000) -> dict[str, float]:
    """The first notebook from its engine on; hit rates of base and tuned model."""
    train_dataset, val_dataset = datasets

    finetune_engine = SentenceTransformersFinetuneEngine(
        train_dataset,
        model_id=model,
        model_output_path=str(at / "test_model"),
        val_dataset=val_dataset,
    )

    finetune_engine.finetune()
    embed_model = finetune_engine.get_finetuned_model()

    val_dataset = _head(val_dataset, evaluation)
    return {
        "base": hit_rate(evaluate(val_dataset, VectuneEmbedding(model))),
        "tuned": hit_rate(evaluate(val_dataset, embed_model)),
        "tuned, opened by sentence-transformers": evaluate_st(val_dataset, str(at / "test_model"), "finetuned", at),
    }


def finetune_adapter(datasets: Datasets, base_embed_model: BaseEmbedding, at: Path) -> dict[str, float]:
    """The second notebook: the default adapter, two layers, and one of one's own; hit rates of all."""
    train_dataset, val_dataset = datasets

    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        model_output_path=str(at / "model_output_test"),
        epochs=4,
        verbose=True,
    )
    finetune_engine.finetune()
    embed_model = finetune_engine.get_finetuned_model()
    embed_model_2 = LinearAdapterEmbeddingModel(base_embed_model, str(at / "model_output_test"))

    dim = len(base_embed_model.get_text_embedding("hello world"))
    adapter_model = TwoLayerNN(dim, 2 * dim, dim, bias=True, add_residual=True)
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        model_output_path=str(at / "model5_output_test"),
        model_checkpoint_path=str(at / "model5_ck"),
        checkpoint_save_steps=2,
        adapter_model=adapter_model,
        epochs=25,
        verbose=True,
    )
    finetune_engine.finetune()
    embed_model_2layer = finetune_engine.get_finetuned_model(adapter_cls=TwoLayerNN)
    embed_model_checkpoint = AdapterEmbeddingModel(base_embed_model, str(at / "model5_ck" / "step_2"), TwoLayerNN)

    custom_adapter_model = CustomNN(dim, 2 * dim, dim, bias=True, add_residual=True)
    finetune_engine = EmbeddingAdapterFinetuneEngine(
        train_dataset,
        base_embed_model,
        model_output_path=str(at / "custom_model_output"),
        model_checkpoint_path=str(at / "custom_model_ck"),
        adapter_model=custom_adapter_model,
        epochs=25,
        verbose=True,
    )
    finetune_engine.finetune()
    embed_model_custom = finetune_engine.get_finetuned_model(adapter_cls=CustomNN)

    models = {
        "base": base_embed_model,
        "default": embed_model,
        "opened": embed_model_2,
        "two layers": embed_model_2layer,
        "checkpoint": embed_model_checkpoint,
        "custom": embed_model_custom,
    }
    return {name: hit_rate(evaluate(val_dataset, model)) for name, model in models.items()}


class CustomNN(BaseAdapter):
    """An adapter of a user's own."""

    def __init__(
        self, in_features: int, hidden_features: int, out_features: int, bias: bool = False, add_residual: bool = False
    ) -> None:
        super().__init__()
        self.sizes = (in_features, hidden_features, out_features)
        self.bias = bias
        self._add_residual = add_residual
        self.linear1 = nn.Linear(in_features, hidden_features, bias=True)
        self.linear2 = nn.Linear(hidden_features, hidden_features, bias=True)
        self.linear3 = nn.Linear(hidden_features, out_features, bias=True)
        self.residual_weight = nn.Parameter(torch.zeros(1))

    def forward(self, embed: Tensor) -> Tensor:
        hidden = torch.relu(self.linear2(torch.relu(self.linear1(embed))))
        output: Tensor = self.linear3(hidden)
        return self.residual_weight * output + embed if self._add_residual else output

    def get_config_dict(self) -> dict[str, Any]:
        names = ("in_features", "hidden_features", "out_features")
        return {**dict(zip(names, self.sizes, strict=True)), "bias": self.bias, "add_residual": self._add_residual}


def _head(dataset: EmbeddingQAFinetuneDataset, count: int) -> EmbeddingQAFinetuneDataset:
    kept = dict(list(dataset.queries.items())[:count])
    return EmbeddingQAFinetuneDataset(queries=kept, corpus=dataset.corpus, relevant_docs=dataset.relevant_docs)
