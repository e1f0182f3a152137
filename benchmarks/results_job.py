"""One job of results.py, in a process of its own: ``pairs``, ``train`` (ours) or ``score`` (everybody's)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

STARTED = time.perf_counter()

from sets import load  # noqa: E402 - the imports are part of what is timed, as they are for the peers

from vectune.dataset import RetrievalDataset  # noqa: E402
from vectune.embedders.models import ARTIFACT_FILE, DEFAULT_MODEL, model_path  # noqa: E402
from vectune.runs import Json, write_json  # noqa: E402

if TYPE_CHECKING:
    from vectune.progress import Progress
    from vectune.training.options import TuneOptions
    from vectune.training.result import TuneResult

MEASURES = ("nDCG@10", "RR@10", "hit@1", "hit@5", "hit@10", "R@100")


def main() -> None:
    what, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    {"pairs": pairs, "train": train, "score": score}[what](spec)


def pairs(spec: Json) -> None:
    """Train and dev queries in LlamaIndex's words, and where the base model is."""
    file = Path(spec["pairs"])
    if not file.exists():
        dataset = load(Path(spec["data"]), spec["set"])
        judged = {**dataset.qrels["train"], **dataset.qrels["dev"]}
        used = {chunk for chunks in judged.values() for chunk in chunks}
        content = {
            "queries": {query: dataset.queries[query].text for query in judged},
            "corpus": {key: chunk.content for key, chunk in dataset.corpus.items() if key in used},
            "relevant_docs": {query: list(chunks) for query, chunks in judged.items()},
            "dev": list(dataset.qrels["dev"]),
        }
        write_json(file, content)
    print(json.dumps({"model": _reading(spec) if "reads" in spec else model_path(DEFAULT_MODEL)}))


def _reading(spec: Json) -> str:
    """The base model, set to read as far as the job says."""
    from vectune.embedders.loading import load_model

    model, folder = load_model(DEFAULT_MODEL), Path(spec["out"]).with_name("base")
    model.max_seq_length = spec["reads"]
    model.save(str(folder), create_model_card=False)
    return str(folder)


def train(spec: Json) -> None:
    """Ours, at its defaults but for the settings."""
    from vectune.progress import Progress
    from vectune.training.methods import tune_with
    from vectune.training.options import TuneOptions

    dataset = load(Path(spec["data"]), spec["set"])
    if spec["tool"] == "unlabelled":
        dataset = RetrievalDataset(dataset.corpus, {}, {}, {"name": dataset.name, "generated": True})
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in spec["settings"].items()
    }
    events = Path(spec["report"]).with_name("events.jsonl")
    loaded = time.perf_counter()
    options, progress = TuneOptions(seed=spec["seed"], **settings), Progress(events, terminal=False)
    if spec["tuned"]:
        result = tailed(dataset, Path(spec["tuned"]), Path(spec["out"]), options, progress)
    else:
        result = tune_with(dataset, Path(spec["out"]), options, progress)
    stages = {"load": loaded - STARTED, "tune": time.perf_counter() - loaded}
    done = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    parts: dict[str, float] = {}
    for event in done:
        if event["kind"] == "done":
            parts[event["task"]] = round(parts.get(event["task"], 0.0) + event["seconds"], 2)
    report = {"stages": stages, "parts": parts, "dev": [result.dev_before, result.dev_after], "chosen": result.chosen}
    write_json(Path(spec["report"]), report)


def tailed(dataset: RetrievalDataset, model: Path, out: Path, options: TuneOptions, progress: Progress) -> TuneResult:
    """What ``tail`` does to a model after the training that an earlier job has done."""
    from vectune.embedders.factory import open_embedder
    from vectune.training.blend import tail_behind
    from vectune.training.saving import read_result

    embedders = open_embedder(options.model), open_embedder(model)
    return tail_behind(dataset, read_result(model), out, embedders, options.seed, progress=progress)


def score(spec: Json) -> None:
    """The test split, alone, cut to 128 dimensions and with BM25; and the other sets."""
    from vectune.evaluation import EvaluateOptions, evaluate

    options = EvaluateOptions(measures=MEASURES, timed_queries=0)
    model, data = opened(spec), Path(spec["data"])
    names = {"test": model, "hybrid": f"hybrid:{model}"}
    if not spec["trains"] or (spec["whole"] and not spec["tuned"]):  # a tail is behind the first dimensions
        names["test@128"] = f"{model}@128"
    if spec["tool"] == "base":
        names["bm25"] = "bm25"
    dataset = load(data, spec["set"])
    found = {row.name: row.measures for row in evaluate(dataset, [*names.values()], "test", options).rows}
    scores = {key: dict(found[name]) for key, name in names.items()}
    if not spec["trains"] or spec["whole"]:  # the others are fitted on dev as well
        scores["dev"] = dict(evaluate(dataset, [model], "dev", options).rows[0].measures)
    others = {other: evaluate(load(data, other), [model], "test", options).rows[0].measures for other in spec["others"]}
    write_json(
        Path(spec["scores"]),
        {
            "scores": scores,
            "others": {other: dict(values) for other, values in others.items()},
        },
    )


def opened(spec: Json) -> str:
    """The name that vectune opens the result by; LlamaIndex's adapter becomes an artifact over the base model."""
    out = Path(spec["out"])
    if not spec["trains"]:
        return str(spec["model"]) if "reads" in spec else DEFAULT_MODEL
    if spec["peer"] != "llama_adapter":
        return str(out)
    from vectune.adapters import StoredAdapter, load_adapter
    from vectune.embedders.factory import open_embedder
    from vectune.training.folders import write_adapter
    from vectune.training.result import TuneResult

    base, folder = open_embedder(DEFAULT_MODEL), out.with_name("opened")
    if not (folder / ARTIFACT_FILE).exists():
        stored = StoredAdapter(load_adapter(out).adapter, None, base.name, base.fingerprint)
        write_adapter(folder, stored, base, TuneResult(folder, "adapter", base.name, base.fingerprint, 0.0, 0.0))
    return str(folder)


if __name__ == "__main__":
    main()
