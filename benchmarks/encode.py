"""Encoding a corpus: LocalEmbedder beside ``SentenceTransformer.encode`` at its defaults, alternating in one run.

    python benchmarks/encode.py ../shared/data/covid_qa ../shared/data/emanual --texts 512 --rounds 3

Rates are of the fastest round. The processor's seconds are printed beside the wall's: on a machine that others use at
the same time only they can be compared. Quality is nDCG@10 on the test split with all queries; the ratio is to
the fp32 vectors of sentence-transformers.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vectune.dataset import RetrievalDataset
from vectune.embedders.local import LocalEmbedder
from vectune.embedders.machine import bf16_speedup
from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import EmbedOptions
from vectune.metrics import per_query

Array = NDArray[np.float32]
MEASURE = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, help="dataset folders in the BEIR layout")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--texts", type=int, default=512, help="texts of each corpus that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precisions", nargs="+", default=["auto", "fp32"], choices=["auto", "fp32", "bf16"])
    parser.add_argument("--no-quality", action="store_true", help="only time")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{_processor()}, {given.threads} threads, torch {torch.__version__}, bf16 {bf16_speedup():.2f} × fp32")
    embedders = {
        precision: LocalEmbedder(given.model, EmbedOptions(precision=precision)) for precision in given.precisions
    }
    for folder in given.datasets:
        dataset = RetrievalDataset.read(folder)
        speed(dataset, embedders, given.texts, given.rounds)
        if not given.no_quality:
            quality(dataset, embedders)


def speed(dataset: RetrievalDataset, embedders: dict[str, LocalEmbedder], count: int, rounds: int) -> None:
    """Texts per second of each way, by the wall and by the processor; alternating."""
    texts = [chunk.content for chunk in dataset.corpus.values()]
    random.Random(0).shuffle(texts)
    texts = texts[:count]
    reference = next(iter(embedders.values())).model
    ways: dict[str, Callable[[], object]] = {
        "sentence-transformers": lambda: reference.encode(texts),
        **{
            f"vectune {name} ({embedder.precision})": partial(embedder.embed_documents, texts)
            for name, embedder in embedders.items()
        },
    }
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    reference.encode(texts[:8])  # the first calls set up kernels and copies of the weights
    for embedder in embedders.values():
        embedder.embed_documents(texts[:8])
    for _ in range(rounds):
        for way, encode in ways.items():
            seconds[way].append(timed(encode))
    one = next(iter(embedders.values()))
    tokens = float(np.minimum(one.token_lengths(texts), one.max_length or 10**9).mean())
    print(f"\n{dataset.name}: {len(texts)} texts, {tokens:.0f} tokens on average")
    base_wall, base_processor = (min(column) for column in zip(*seconds["sentence-transformers"], strict=True))
    for way, taken in seconds.items():
        wall, processor = (min(column) for column in zip(*taken, strict=True))
        print(
            f"  {way:<24} {len(texts) / wall:7.1f} texts/s  {base_wall / wall:5.2f} ×   "
            f"{len(texts) / processor:7.1f} texts/processor s  {base_processor / processor:5.2f} ×"
        )


def quality(dataset: RetrievalDataset, embedders: dict[str, LocalEmbedder]) -> None:
    """nDCG@10 of each embedder, and its share of what sentence-transformers' fp32 vectors reach."""
    texts = [chunk.content for chunk in dataset.corpus.values()]
    queries = dataset.queries_of("test")
    asked = [query.text for query in queries]
    reference = next(iter(embedders.values())).model
    found = {
        "sentence-transformers": (
            reference.encode_document(texts, normalize_embeddings=True),
            reference.encode_query(asked, normalize_embeddings=True),
        ),
        **{name: (one.embed_documents(texts), one.embed_queries(asked)) for name, one in embedders.items()},
    }
    scores = {name: ndcg(dataset, *vectors) for name, vectors in found.items()}
    for name, score in scores.items():
        print(f"  {MEASURE} {name:<24} {score:.4f}  {score / scores['sentence-transformers']:8.2%}")


def ndcg(dataset: RetrievalDataset, corpus: Array, queries: Array) -> float:
    """Mean nDCG@10 over the test queries."""
    ids, qrels = list(dataset.corpus), dataset.split("test")
    run = {}
    for query, scores in zip(qrels, queries @ corpus.T, strict=True):
        top = np.argsort(-scores, kind="stable")[:10]
        run[query] = {ids[place]: float(scores[place]) for place in top}
    return float(np.mean(list(per_query(qrels, run, [MEASURE])[MEASURE].values())))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall and of all the process's threads."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
