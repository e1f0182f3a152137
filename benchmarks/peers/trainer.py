"""sentence-transformers' trainer as its documentation recommends. Argument: job.json.

MultipleNegativesRankingLoss, mined hard negatives (relative margin 0.05, the documentation's), no duplicates in a
batch, bf16, batch 16, rate 2e-5, warm-up 0.1, which are the training overview's values. With ``dev`` the job asks for
``epochs`` passes, an evaluator over dev, and the best state.
"""

from __future__ import annotations

import json
import sys
import time

started = time.perf_counter()
from datasets import Dataset  # noqa: E402 - the import is part of what is timed
from sentence_transformers import (  # noqa: E402
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator  # noqa: E402
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: E402
from sentence_transformers.sentence_transformer.training_args import BatchSamplers  # noqa: E402
from sentence_transformers.util import mine_hard_negatives  # noqa: E402

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
with open(job["pairs"], encoding="utf-8") as file:
    pairs = json.load(file)
best = bool(job["dev"])
kept = [query for query in pairs["queries"] if not (best and query in pairs["dev"])]
rows = [(pairs["queries"][query], pairs["corpus"][chunk]) for query in kept for chunk in pairs["relevant_docs"][query]]
data = Dataset.from_dict({"query": [query for query, _ in rows], "answer": [chunk for _, chunk in rows]})
model = SentenceTransformer(job["model"], device="cpu")
loaded = time.perf_counter()

# Without a corpus the chunks of the pairs are mined: no chunk of a test document is ever a negative.
mined = mine_hard_negatives(
    data,
    model,
    relative_margin=0.05,
    num_negatives=job["negatives"],
    sampling_strategy="top",
    output_format="n-tuple",
    verbose=False,
)
prepared = time.perf_counter()

evaluator = None
if best:
    asked = {query: pairs["queries"][query] for query in pairs["dev"]}
    relevant = {query: set(pairs["relevant_docs"][query]) for query in asked}
    evaluator = InformationRetrievalEvaluator(asked, pairs["corpus"], relevant, name="dev")
keeping = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_dev_cosine_ndcg@10",
}
arguments = SentenceTransformerTrainingArguments(
    output_dir=job["out"] + "-checkpoints",
    num_train_epochs=job["epochs"],
    per_device_train_batch_size=16,
    learning_rate=2e-5,
    warmup_steps=0.1,
    bf16=True,
    use_cpu=True,
    batch_sampler=BatchSamplers.NO_DUPLICATES,
    seed=job["seed"],
    report_to=[],
    disable_tqdm=True,
    **(keeping if best else {"save_strategy": "no"}),
)
SentenceTransformerTrainer(
    model=model,
    args=arguments,
    train_dataset=mined,
    loss=MultipleNegativesRankingLoss(model),
    evaluator=evaluator,
).train()
model.save_pretrained(job["out"])
stages = {"load": loaded - started, "mine": prepared - loaded, "train": time.perf_counter() - prepared}
with open(job["report"], "w", encoding="utf-8") as file:
    json.dump({"stages": stages}, file)
