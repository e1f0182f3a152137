"""Pairs trained per second: vectune's loop beside sentence-transformers' trainer and LlamaIndex's settings.

Each contender runs in a process of its own, alternated over rounds, on the same pairs at the same maximum length:

    python benchmarks/train_speed.py ../shared/data/legalbenchrag --rounds 3

``llamaindex`` is what its SentenceTransformersFinetuneEngine does: sentence-transformers' trainer at batch 10 in fp32
with the model's own dropout. ``trainer`` is the same trainer at batch 64 with bf16=True. ``ours`` trains in-batch at
batch 64. The first step warms up and is not counted. CPU seconds are told besides wall seconds, because they do not
grow when other processes want the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CONTENDERS = ("ours", "trainer", "llamaindex")
PAIRS = {"ours": 256, "trainer": 192, "llamaindex": 60}  # about as many seconds for each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=CONTENDERS, help="run one contender in this process and print its JSON")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.dataset)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(given.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, str(given.dataset), "--only", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(number, name, found[name][-1], flush=True)
    print(f"\n{given.dataset.name}: medians of {given.rounds} rounds")
    print(f"{'':12} {'pairs/s':>9} {'pairs/CPU-s':>12} {'peak GiB':>9}")
    for name, rounds in found.items():
        rates = [median(one[key] for one in rounds) for key in ("pairs_per_second", "pairs_per_cpu_second", "peak_gib")]
        print(f"{name:12} {rates[0]:9.2f} {rates[1]:12.2f} {rates[2]:9.2f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


def measure(name: str, dataset: Path) -> dict[str, float]:
    """Train a few steps; the rates without the first one."""
    marks = ours(dataset) if name == "ours" else trainer(dataset, name)
    (wall, cpu, pairs), (wall_end, cpu_end, pairs_end) = marks[0], marks[-1]
    return {
        "pairs_per_second": round((pairs_end - pairs) / (wall_end - wall), 3),
        "pairs_per_cpu_second": round((pairs_end - pairs) / (cpu_end - cpu), 3),
        "pairs": pairs_end - pairs,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def mark(marks: list[tuple[float, float, int]], pairs: int) -> None:
    marks.append((time.perf_counter(), time.process_time(), pairs))


def ours(dataset: Path) -> list[tuple[float, float, int]]:
    import torch

    from vectune.dataset import RetrievalDataset
    from vectune.embedders.machine import fast_bf16
    from vectune.splits import with_dev
    from vectune.training.batches import Batches
    from vectune.training.data import TrainingData
    from vectune.training.encoder import Encoder
    from vectune.training.objectives import info_nce
    from vectune.training.opening import dropout_at, open_model
    from vectune.training.options import TuneOptions

    data = TrainingData.of(with_dev(RetrievalDataset.read(dataset)))
    model, *_ = open_model(TuneOptions())
    marks: list[tuple[float, float, int]] = []
    with dropout_at(model, 0.0):
        encoder = Encoder(model, torch.bfloat16 if fast_bf16("cpu") else torch.float32)
        queries, chunks = encoder.tokenize(data.queries, "query"), encoder.tokenize(data.chunks, "document")
        batches = Batches(data, 64, np.full((len(data.queries), 0), -1), 0, 0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        done = 0
        for _, _, batch in batches.walk(0, 0):
            loss = info_nce(
                encoder.vectors(queries, batch.queries),
                encoder.vectors(chunks, batch.chunks),
                torch.from_numpy(batch.targets),
                torch.from_numpy(batch.masked),
            )
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += len(batch.queries)
            mark(marks, done)
            if done >= PAIRS["ours"] + 64:
                return marks
    return marks


def trainer(dataset: Path, name: str) -> list[tuple[float, float, int]]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from vectune.dataset import RetrievalDataset
    from vectune.embedders.models import DEFAULT_MODEL, model_path
    from vectune.splits import with_dev

    read = with_dev(RetrievalDataset.read(dataset))
    pairs = [(read.queries[query].text, read.corpus[c].content) for query, j in read.split("train").items() for c in j]
    batch = 10 if name == "llamaindex" else 64
    marks: list[tuple[float, float, int]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            mark(marks, state.global_step * batch)

    model = SentenceTransformer(model_path(DEFAULT_MODEL), device="cpu")
    data = Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [c for _, c in pairs]})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=1 + max(1, PAIRS[name] // batch),
            bf16=name == "trainer",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[Clock()],
        ).train()
    return marks


if __name__ == "__main__":
    main()
