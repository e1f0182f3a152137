"""Fine-tuning on labelled data: vectune at its defaults beside LlamaIndex's engine at its own.

    python benchmarks/finetune.py ../shared/data --sets emanual legalbenchrag --seeds 0 1 2 --out /tmp/finetune
    python benchmarks/finetune.py ../shared/data --peers --llama-python VENV/bin/python     # all sets, with the peer
    python benchmarks/finetune.py ../shared/data --method lora
    python benchmarks/finetune.py ../shared/data --sets lyft_uber --published               # LlamaIndex's own JSON

One set of defaults for all; dev, cut from train by document, decides everything; test is scored once. Every result is
kept in ``--out`` and not made again, so a run can be stopped and continued. ``--others`` scores each tuned model on the
other sets, too. squad is cut to a fixed sample of 2,000 queries for everybody.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vectune.dataset import RetrievalDataset
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.formats import open_dataset
from vectune.progress import Progress
from vectune.runs import write_json
from vectune.splits import with_dev
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions

SETS = ("legalbenchrag", "emanual", "lyft_uber", "covid_qa", "stackexchange", "chunking_eval", "squad")
BASE = "all-MiniLM-L6-v2"
SAMPLE = 2000
MEASURE = "nDCG@10"

LLAMA = """
import json, sys
from llama_index.core.evaluation import EmbeddingQAFinetuneDataset
from llama_index.finetuning import SentenceTransformersFinetuneEngine
given = json.load(open(sys.argv[1]))
dataset = EmbeddingQAFinetuneDataset(**given["data"])
SentenceTransformersFinetuneEngine(dataset, model_id=given["model"], model_output_path=given["out"]).finetune()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--method", default="full", choices=("full", "lora", "auto"))
    parser.add_argument("--options", type=json.loads, default={}, help="further TuneOptions as JSON")
    parser.add_argument("--peers", action="store_true", help="train with LlamaIndex as well")
    parser.add_argument("--llama-python", default=sys.executable)
    parser.add_argument("--others", action="store_true", help="score each tuned model on the other sets")
    parser.add_argument("--published", action="store_true", help="lyft_uber as LlamaIndex published it")
    parser.add_argument("--out", type=Path, default=Path("finetune-benchmark"))
    given = parser.parse_args()
    rows = [run(given, name, seed) for name in given.sets for seed in given.seeds]
    print(f"\n{'set':16} seed   base   bm25  tuned hybrid  llama   dev seconds")
    for row in rows:
        print(
            f"{row['set']:16} {row['seed']:4} "
            + " ".join(f"{row.get(key, float('nan')):6.3f}" for key in ("base", "bm25", "tuned", "hybrid", "llama"))
            + f" {row['dev_after']:5.3f} {row['seconds']:7.0f}"
        )
    gains = [row["tuned"] - row["base"] for row in rows]
    print(f"mean gain over base {np.mean(gains):+.3f}, lowest {min(gains):+.3f}")
    if losses := [loss for row in rows for loss in row.get("others", {}).values()]:
        print(f"mean change on the other sets {np.mean(losses):+.4f}")


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
    if given.peers and "llama" not in row:
        row |= llama(dataset, given, tag)
    if given.others and "others" not in row:
        row["others"] = {other: change(given.data, other, model) for other in SETS if other != name}
    write_json(kept, row)
    print(json.dumps({key: value for key, value in row.items() if key != "chosen"}), flush=True)
    return row


def load(data: Path, name: str, published: bool) -> RetrievalDataset:
    """A set with its dev split; squad cut to a fixed sample of train queries."""
    if published:
        folder = data / name / "original"
        train, test = open_dataset(folder / "train_dataset.json"), open_dataset(folder / "val_dataset.json")
        qrels = {"train": train.qrels["train"], "test": next(iter(test.qrels.values()))}
        both = RetrievalDataset(train.corpus | test.corpus, train.queries | test.queries, qrels, {"name": name})
        return with_dev(both)
    dataset = RetrievalDataset.read(data / name)
    train_qrels = dataset.split("train")
    if len(train_qrels) > SAMPLE:
        names = sorted(train_qrels)
        picked = np.random.default_rng(0).choice(len(names), SAMPLE, replace=False)
        dataset.qrels["train"] = {names[i]: train_qrels[names[i]] for i in sorted(picked)}
    return with_dev(dataset)


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


def llama(dataset: RetrievalDataset, given: argparse.Namespace, tag: str) -> dict[str, Any]:
    """LlamaIndex's engine at its defaults, on the same train queries and dev's besides: it has no use for dev."""
    from vectune.embedders.models import model_path

    qrels = {**dataset.qrels["train"], **dataset.qrels["dev"]}
    data = {
        "queries": {query: dataset.queries[query].text for query in qrels},
        "corpus": {key: chunk.content for key, chunk in dataset.corpus.items()},
        "relevant_docs": {query: list(judged) for query, judged in qrels.items()},
    }
    out = given.out / "llama" / tag
    write_json(out.with_suffix(".json"), {"data": data, "model": model_path(BASE), "out": str(out)})
    started = time.perf_counter()
    subprocess.run([given.llama_python, "-c", LLAMA, str(out.with_suffix(".json"))], check=True)
    seconds = time.perf_counter() - started
    (row,) = evaluate(dataset, [str(out)], "test", EvaluateOptions(timed_queries=0)).rows
    return {"llama": row.measures[MEASURE], "llama_seconds": round(seconds, 1)}


def change(data: Path, other: str, model: Path) -> float:
    """Tuned minus base on a set that the model has not seen."""
    rows = evaluate(load(data, other, False), [BASE, str(model)], "test", EvaluateOptions(timed_queries=0)).rows
    return rows[1].measures[MEASURE] - rows[0].measures[MEASURE]


if __name__ == "__main__":
    main()
