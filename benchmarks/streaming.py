"""Memory and time from opening a dataset of millions of pairs to the tenth training step.

    python benchmarks/streaming.py FOLDER PAIRS [MODEL]

Writes PAIRS chunks, queries and judgments of short made-up texts into FOLDER where it is empty (230 bytes a pair), then
opens it as ``vectune tune`` does and trains ten steps.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vectune.config import Config
from vectune.embedders.models import DEFAULT_MODEL
from vectune.pipeline import tune
from vectune.progress import Progress

WORDS = "apple battery beer bread bridge car cat city coffee contract court device dog door engine fire fish".split()
STEPS = 10
CHUNKS_A_DOCUMENT = 10


def write(folder: Path, pairs: int) -> None:
    """Chunks of eight words and a number, and of each one a query of four of its words."""
    (folder / "qrels").mkdir(parents=True)
    names = ("corpus.jsonl", "queries.jsonl", "documents.jsonl", "qrels/train.tsv")
    corpus, queries, documents, qrels = (open(folder / name, "w", encoding="utf-8") for name in names)
    qrels.write("query-id\tcorpus-id\tscore\n")
    draw = np.random.default_rng(0)
    for start in range(0, pairs, 10_000):
        picks = draw.integers(len(WORDS), size=(min(10_000, pairs - start), 8)).tolist()
        for number, pick in enumerate(picks, start=start):
            words = [WORDS[at] for at in pick]
            corpus.write(f'{{"_id": "c{number}", "title": "", "text": "{" ".join(words)} number {number}"}}\n')
            queries.write(f'{{"_id": "q{number}", "text": "what of {" ".join(words[::2])} and number {number}"}}\n')
            documents.write(f'{{"_id": "c{number}", "document": "d{number // CHUNKS_A_DOCUMENT}"}}\n')
            qrels.write(f"q{number}\tc{number}\t1\n")
    for file in (corpus, queries, documents, qrels):
        file.close()


class Reached(Exception):
    """The tenth step is done."""


class Watch(Progress):
    """Prints when what happens, and ends at the tenth step."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.started = time.perf_counter()

    def say_where(self, what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds, cpu = time.perf_counter() - self.started, time.process_time()
        print(json.dumps({"at": what, "peak_gib": round(peak, 2), "s": round(seconds, 1), "cpu_s": round(cpu, 1)}))
        sys.stdout.flush()

    def event(self, kind: str, **fields: Any) -> None:
        self.say_where(f"{kind} {fields.get('step', fields.get('task', ''))}")
        if kind == "train" and fields["step"] >= STEPS:
            raise Reached


def main() -> None:
    folder, pairs = Path(sys.argv[1]), int(sys.argv[2])
    model = sys.argv[3] if len(sys.argv) > 3 else DEFAULT_MODEL
    if not folder.exists():
        write(folder, pairs)
    config = Config(model=model)
    config = dataclasses.replace(config, tune=dataclasses.replace(config.tune, method="full", precision="fp32"))
    watch = Watch()
    watch.say_where("start")
    try:
        tune(folder, folder.with_name(f"{folder.name}-tuned"), config, progress=watch)
    except Reached:
        watch.say_where("end")


if __name__ == "__main__":
    main()
