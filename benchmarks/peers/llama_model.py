"""LlamaIndex's SentenceTransformersFinetuneEngine at its defaults: batch 10, 2 epochs. Argument: job.json.

With ``dev`` in the job as in its notebook: dev is the ``val_dataset`` and the best state is kept.
"""

from __future__ import annotations

import json
import sys
import time

started = time.perf_counter()
import torch  # noqa: E402 - the import is part of what is timed
from llama_index.finetuning import EmbeddingQAFinetuneDataset, SentenceTransformersFinetuneEngine  # noqa: E402

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
torch.manual_seed(job["seed"])
with open(job["pairs"], encoding="utf-8") as file:
    pairs = json.load(file)


def dataset(queries: list[str]) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={query: pairs["queries"][query] for query in queries},
        corpus=pairs["corpus"],
        relevant_docs={query: pairs["relevant_docs"][query] for query in queries},
    )


dev = pairs["dev"] if job["dev"] else []
engine = SentenceTransformersFinetuneEngine(
    dataset([query for query in pairs["queries"] if query not in dev]),
    model_id=job["model"],
    model_output_path=job["out"],
    val_dataset=dataset(dev) if dev else None,
)
loaded = time.perf_counter()
engine.finetune()
stages = {"load": loaded - started, "train": time.perf_counter() - loaded}
with open(job["report"], "w", encoding="utf-8") as file:
    json.dump({"stages": stages}, file)
