"""LlamaIndex's EmbeddingAdapterFinetuneEngine at its notebook's settings: linear, 4 epochs. Argument: job.json."""

from __future__ import annotations

import json
import sys
import time

started = time.perf_counter()
import torch  # noqa: E402 - the import is part of what is timed
from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # noqa: E402
from llama_index.finetuning import EmbeddingAdapterFinetuneEngine, EmbeddingQAFinetuneDataset  # noqa: E402

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
torch.manual_seed(job["seed"])
with open(job["pairs"], encoding="utf-8") as file:
    pairs = json.load(file)
dataset = EmbeddingQAFinetuneDataset(**{key: pairs[key] for key in ("queries", "corpus", "relevant_docs")})
base = HuggingFaceEmbedding(job["model"], device="cpu")
engine = EmbeddingAdapterFinetuneEngine(dataset, base, model_output_path=job["out"], epochs=4, verbose=False)
loaded = time.perf_counter()
engine.finetune()
stages = {"load": loaded - started, "train": time.perf_counter() - loaded}
with open(job["report"], "w", encoding="utf-8") as file:
    json.dump({"stages": stages}, file)
