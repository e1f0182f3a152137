"""The adapter ladder and the query encoder on retrieval sets.

    python benchmarks/adapters.py DATA [--sets emanual,…] [--seeds 0,1,2] [--query]   quality and training time
    python benchmarks/adapters.py DATA --apply                                         one query, NumPy alone
    python benchmarks/adapters.py DATA --scale                                         1,000,000 × 768, 100,000 pairs

DATA holds folders in the BEIR layout with train and test. LlamaIndex's engine on the same pairs is in results.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from sets import SETS

from vectune.adapters import open_artifact
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.protocols import Embedder
from vectune.training.adapter import solve, tune_adapter
from vectune.training.problem import Fold, Positives, Problem, judged_rows, ndcg_at_10
from vectune.training.query import tune_keeping_index

MODEL = "all-MiniLM-L6-v2"


def test_score(dataset: RetrievalDataset, embedder: Embedder) -> float:
    """Mean test nDCG@10 over the whole corpus."""
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    documents = embedder.embed_documents([chunk.content for chunk in dataset.corpus.values()])
    queries = embedder.embed_queries([query.text for query in dataset.queries_of("test")])
    return float(ndcg_at_10(queries @ documents.T, Positives.of(judged_rows(dataset.split("test"), rows))).mean())


def quality(data: Path, sets: list[str], seeds: list[int], query: bool) -> None:
    """Test nDCG@10 of base and result, and training time given vectors, for each set and seed."""
    embedder = open_embedder(MODEL)
    print("| set | seed | base | result | gain | method | training s |\n|---|---|---|---|---|---|---|")
    gains: list[float] = []
    for name in sets:
        dataset = RetrievalDataset.read(data / name)
        base = test_score(dataset, embedder)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                tune = tune_keeping_index if query else tune_adapter
                result = tune(dataset, out, embedder, seed)
                score = test_score(dataset, open_artifact(out, lambda _: embedder))
            seconds = result.chosen["training_seconds"]
            print(f"| {name} | {seed} | {base:.4f} | {score:.4f} | {score - base:+.4f} | {result.method} | {seconds} |")
            gains.append(score - base)
    print(f"mean gain {np.mean(gains):+.4f}, least {min(gains):+.4f}")


def apply_time(data: Path) -> None:
    """Microseconds for one query through each kind of adapter of 384 dimensions."""
    from vectune.adapters import Adapter

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    kinds = [
        Adapter("linear", 384, 384, skip=draw(384, 384)),
        Adapter("low-rank", 384, 384, down=draw(64, 384), up=draw(384, 64)),
        Adapter("mlp", 384, 384, draw(384, 384), None, draw(64, 384), draw(64), draw(384, 64), "relu"),
    ]
    for adapter in kinds:
        x, times = draw(384), []
        for _ in range(2000):
            started = time.perf_counter()
            adapter.apply(x)
            times.append(time.perf_counter() - started)
        middle, late = np.median(times) * 1e6, np.quantile(times, 0.99) * 1e6
        print(f"{adapter.kind:10s} median {middle:.1f} µs, 99th percentile {late:.1f} µs")


def _write_vectors(file: Path, documents: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(file, "w+", np.float32, (documents, dim))
    for start in range(0, documents, 50_000):
        block = rng.normal(size=(min(50_000, documents - start), dim)).astype(np.float32)
        stored[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    stored.flush()


def scale(documents: int = 1_000_000, pairs: int = 100_000, dim: int = 768) -> None:
    """Train over a memory map on disk; random vectors, queries near their documents."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        file = Path(folder) / "vectors.npy"
        writer = multiprocessing.Process(target=_write_vectors, args=(file, documents, dim))
        writer.start()  # in a process of its own: what it touches is not training's memory
        writer.join()
        mapped = np.load(file, mmap_mode="r")
        rows = np.sort(rng.choice(documents, pairs, replace=False))
        turn = np.eye(dim, dtype=np.float32) + 3 * rng.normal(size=(dim, dim)).astype(np.float32) / dim**0.5
        queries = np.concatenate([mapped[part] @ turn.T for part in np.array_split(rows, 20)])
        queries += 8 * rng.normal(size=queries.shape).astype(np.float32) / dim**0.5
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        positives = Positives(rows[:, None], np.ones((pairs, 1), np.float32))
        third = rng.permutation(pairs)
        folds = [third[i::3] for i in range(3)]
        everything = np.arange(documents)
        held = [Fold(np.setdiff1d(third, fold), fold, np.setdiff1d(everything, rows[fold])) for fold in folds]
        problem = Problem(queries, mapped, positives, everything, everything, tuple(held), folds[0])
        started = time.perf_counter()
        climbed = solve(problem)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{documents:,} × {dim}, {pairs:,} pairs: {seconds:.0f} s, peak {peak:.1f} GiB")
    print(f"held-out nDCG@10 among 10,000: {climbed.before:.3f} → {climbed.after:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--query", action="store_true", help="climb on to the query encoder")
    parser.add_argument("--apply", action="store_true")
    parser.add_argument("--scale", action="store_true")
    given = parser.parse_args()
    if given.apply:
        apply_time(given.data)
    elif given.scale:
        scale()
    else:
        quality(given.data, given.sets.split(","), [int(seed) for seed in given.seeds.split(",")], given.query)


if __name__ == "__main__":
    main()
