"""Fine-tuning on labelled data with any options; results.py is the comparison with the peers at the defaults.

    python benchmarks/finetune.py ../shared/data --sets emanual legalbenchrag --seeds 0 1 2 --out finetune
    python benchmarks/finetune.py ../shared/data --method lora --options '{"rate": 1e-4}'
    python benchmarks/finetune.py ../shared/data --sets lyft_uber --published               # LlamaIndex's own JSON

Dev, cut from train by document, decides everything; test is scored once. Every result is kept in ``--out`` and not made
again, so a run can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sets import SETS
from sets import load as load_set

from vectune.dataset import RetrievalDataset
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.formats import open_dataset
from vectune.progress import Progress
from vectune.runs import write_json
from vectune.splits import with_dev
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions

BASE = "all-MiniLM-L6-v2"
MEASURE = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--method", default="full", choices=("full", "lora", "auto"))
    parser.add_argument("--options", type=json.loads, default={}, help="further TuneOptions as JSON")
    parser.add_argument("--published", action="store_true", help="lyft_uber as LlamaIndex published it")
    parser.add_argument("--out", type=Path, default=Path("finetune-benchmark"))
    given = parser.parse_args()
    rows = [run(given, name, seed) for name in given.sets for seed in given.seeds]
    print(f"\n{'set':16} seed   base   bm25  tuned hybrid   dev seconds")
    for row in rows:
        print(
            f"{row['set']:16} {row['seed']:4} "
            + " ".join(f"{row.get(key, float('nan')):6.3f}" for key in ("base", "bm25", "tuned", "hybrid"))
            + f" {row['dev_after']:5.3f} {row['seconds']:7.0f}"
        )
    gains = [row["tuned"] - row["base"] for row in rows]
    print(f"mean gain over base {np.mean(gains):+.3f}, lowest {min(gains):+.3f}")


def run(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """One set, one seed: tune, score on test, and keep the row."""
    tag = f"{name}{'-published' if given.published else ''}-{given.method}-{seed}"
    if given.options:
        tag += "-" + "-".join(f"{key}={value}" for key, value in sorted(given.options.items()))
    kept = given.out / f"{tag}.json"
    row: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"set": name, "seed": seed}
    dataset = load(given.data, name, given.published)
    model = given.out / "models" / tag
    if "tuned" not in row:
        row |= tuned(dataset, model, TuneOptions(method=given.method, seed=seed, **given.options), given.out / tag)
    write_json(kept, row)
    print(json.dumps({key: value for key, value in row.items() if key != "chosen"}), flush=True)
    return row


def load(data: Path, name: str, published: bool) -> RetrievalDataset:
    """A set with its dev split; squad cut to a fixed sample of train queries."""
    if published:
        folder = data / name / "original"
        train, test = open_dataset(folder / "train_dataset.json"), open_dataset(folder / "val_dataset.json")
        qrels = {"train": train.qrels["train"], "test": next(iter(test.qrels.values()))}
        both = RetrievalDataset(
            {**train.corpus, **test.corpus}, {**train.queries, **test.queries}, qrels, {"name": name}
        )
        return with_dev(both)
    return load_set(data, name)


def tuned(dataset: RetrievalDataset, out: Path, options: TuneOptions, events: Path) -> dict[str, Any]:
    """Tune, then look at test once: base, BM25, the tuned model, and both together at the weight dev prefers."""
    result = finetune(dataset, out, options, Progress(events.with_suffix(".events.jsonl")))
    names = {"base": BASE, "bm25": "bm25", "tuned": str(out), "hybrid": f"hybrid:{out}"}
    board = evaluate(dataset, list(names.values()), "test", EvaluateOptions(timed_queries=0))
    scores = {row.name: row.measures[MEASURE] for row in board.rows}
    return {
        **{key: scores[name] for key, name in names.items()},
        "dev_before": result.dev_before,
        "dev_after": result.dev_after,
        "seconds": result.seconds,
        "chosen": result.chosen,
    }


if __name__ == "__main__":
    main()
