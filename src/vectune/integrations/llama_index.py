"""LlamaIndex's embedding fine-tuning with an import changed: its names and files, vectune's machinery.

::

    from vectune.integrations.llama_index import SentenceTransformersFinetuneEngine, generate_qa_embedding_pairs

    dataset = generate_qa_embedding_pairs(nodes, llm=llm)
    engine = SentenceTransformersFinetuneEngine(dataset, model_id="all-MiniLM-L6-v2")
    engine.finetune()
    embed_model = engine.get_finetuned_model()      # a BaseEmbedding for VectorStoreIndex

Nodes, LLMs and embeddings are llama-index-core's; llama-index-finetuning is not needed. This door alone uses
LlamaIndex's words. Each docstring says where a default differs, and what restores LlamaIndex's.
"""

from __future__ import annotations

from vectune.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401 - asked for at the door, so that a missing package is one clear error
except ImportError:
    raise MissingExtraError("llama-index-core", "llama-index", "vectune.integrations.llama_index") from None

from vectune.integrations.llama_adapter_engine import EmbeddingAdapterFinetuneEngine
from vectune.integrations.llama_adapters import BaseAdapter, LinearLayer, TwoLayerNN
from vectune.integrations.llama_data import EmbeddingQAFinetuneDataset
from vectune.integrations.llama_embedding import AdapterEmbeddingModel, VectuneEmbedding
from vectune.integrations.llama_model import SentenceTransformersFinetuneEngine
from vectune.integrations.llama_questions import DEFAULT_QA_GENERATE_PROMPT_TMPL, generate_qa_embedding_pairs

LinearAdapterEmbeddingModel = AdapterEmbeddingModel  # LlamaIndex has both names

__all__ = [
    "DEFAULT_QA_GENERATE_PROMPT_TMPL",
    "AdapterEmbeddingModel",
    "BaseAdapter",
    "EmbeddingAdapterFinetuneEngine",
    "EmbeddingQAFinetuneDataset",
    "LinearAdapterEmbeddingModel",
    "LinearLayer",
    "SentenceTransformersFinetuneEngine",
    "TwoLayerNN",
    "VectuneEmbedding",
    "generate_qa_embedding_pairs",
]
