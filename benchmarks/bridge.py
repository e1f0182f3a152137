"""How much of a tuned model's gain a bridge keeps, by sample size, and how fast stored vectors are moved.

    python benchmarks/bridge.py DATA TUNED [--sets emanual,…] [--shares 0.02,0.05,0.1,0.2,0.5] [--seeds 0,1]
    python benchmarks/bridge.py DATA TUNED --move

DATA holds folders in the BEIR layout; TUNED/NAME is what ``vectune tune --method full`` wrote for the set NAME.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from sets import load

from vectune.adapters import Adapter
from vectune.bridge import BridgeOptions, build_bridge
from vectune.embedders.factory import open_embedder
from vectune.training.problem import Positives, judged_rows, ndcg_at_10

MODEL = "all-MiniLM-L6-v2"


def quality(data: Path, tuned: Path, name: str, shares: list[float], seeds: list[int]) -> None:
    """Test nDCG@10 over the whole corpus: old, new; new queries on old vectors, with their words, on moved vectors."""
    dataset = load(data, name)  # with the dev split that fine-tuning had: the new model has learnt from all others
    old, new = open_embedder(MODEL), open_embedder(tuned / name)
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    positives = Positives.of(judged_rows(dataset.split("test"), rows))
    contents = [chunk.content for chunk in dataset.corpus.values()]
    texts = [query.text for query in dataset.queries_of("test")]
    stored, fresh = old.embed_documents(contents), new.embed_documents(contents)
    asked = new.embed_queries(texts)
    before = float(ndcg_at_10(old.embed_queries(texts) @ stored.T, positives).mean())
    after = float(ndcg_at_10(asked @ fresh.T, positives).mean())
    for share in shares:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                found = build_bridge(old, new, dataset, out, seed, BridgeOptions(sample=share))
            served = found.query.apply(asked) if found.gains else old.embed_queries(texts)
            bridged = float(ndcg_at_10(served @ stored.T, positives).mean())
            if found.words:
                served = found.words.apply(served, texts)
            worded = float(ndcg_at_10(served @ stored.T, positives).mean())
            moved = float(ndcg_at_10(found.moved.apply(asked) @ found.document.apply(stored).T, positives).mean())
            kept = [100 * (value - before) / (after - before) for value in (bridged, worded, moved)]
            print(
                f"| {name} | {len(contents)} | {share:.0%} ({found.sampled}) | {seed} | {before:.4f} | {after:.4f} | "
                f"{bridged:.4f} ({kept[0]:.0f} %) | {worded:.4f} ({kept[1]:.0f} %) | {moved:.4f} ({kept[2]:.0f} %) | "
                f"{found.chosen['pull']}, {found.chosen['rank']} | "
                f"{found.seconds:.0f} |",
                flush=True,
            )


def move(count: int = 1_000_000, dim: int = 384) -> None:
    """Seconds for a million stored vectors."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    adapter = Adapter("linear", dim, dim, skip=rng.normal(size=(dim, dim)).astype(np.float32))
    started = time.perf_counter()
    adapter.apply(vectors)
    print(f"{count:,} × {dim} moved in {time.perf_counter() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--sets", default="emanual,chunking_eval,lyft_uber,legalbenchrag,squad")
    parser.add_argument("--shares", default="0.02,0.05,0.1,0.2,0.5")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--move", action="store_true")
    given = parser.parse_args()
    if given.move:
        move()
        return
    columns = (
        "set | chunks | sample | seed | old | new | new queries on old vectors | and their words | on moved vectors"
    )
    print(f"| {columns} | map | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        shares = [float(share) for share in given.shares.split(",")]
        quality(given.data, given.tuned, name, shares, [int(seed) for seed in given.seeds.split(",")])


if __name__ == "__main__":
    main()
