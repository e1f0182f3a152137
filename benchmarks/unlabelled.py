"""Without a label: each set's corpus alone is tuned on, its real test questions measure the result.

    python benchmarks/unlabelled.py ../shared/data [--weights 0.1 0.2 0.3] [--sets emanual squad]

Prints, for each set, nDCG@10 of the base, of BM25, of their fusion as two indexes, and of the blend (one vector, one
index). Queries and judgments are forgotten before tuning; they are read again only to score.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sets import SETS

from vectune.blend import Blend
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import DEFAULT_MODEL
from vectune.lexical import BM25, fuse, top_indices
from vectune.metrics import mean, per_query
from vectune.protocols import Embedder
from vectune.training.blend import UNLABELLED_WEIGHT, BlendOptions, tune_blend

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Result:
    name: str
    base: float
    bm25: float
    fused: float
    blend: dict[float, float]
    embedding: float
    fitting: float


def ndcg(dataset: RetrievalDataset, scores: NDArray[np.float32]) -> float:
    chunks = list(dataset.corpus)
    run = {}
    for query, row in zip(dataset.qrels["test"], scores, strict=True):
        best = top_indices(row, 10)
        run[query] = {chunks[index]: float(len(best) - rank) for rank, index in enumerate(best)}
    return mean(per_query(dataset.qrels["test"], run, [MEASURE])[MEASURE])


def measure(folder: Path, embedder: Embedder, weights: list[float], dimensions: int) -> Result:
    dataset = RetrievalDataset.read(folder)
    corpus = RetrievalDataset(dataset.corpus, {}, {}, {"name": folder.name, "generated": True})
    texts = [chunk.content for chunk in dataset.corpus.values()]
    started = time.perf_counter()
    documents = embedder.embed_documents(texts)
    embedded = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        tune_blend(corpus, Path(out) / "model", embedder, options=BlendOptions(dimensions))
        fitted = time.perf_counter()
        blend = Blend.load(Path(out) / "model")
    asked = [query.text for query in dataset.queries_of("test")]
    queries, lexical = embedder.embed_queries(asked), BM25(texts).all_scores(asked)
    cosines, blended = queries @ documents.T, blend.documents(documents, texts)
    return Result(
        folder.name,
        ndcg(dataset, cosines),
        ndcg(dataset, lexical),
        ndcg(dataset, fuse(cosines, lexical, UNLABELLED_WEIGHT)),
        {weight: ndcg(dataset, blend.weighing(weight).queries(queries, asked) @ blended.T) for weight in weights},
        embedded - started,
        fitted - embedded,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--weights", nargs="+", type=float, default=[UNLABELLED_WEIGHT])
    parser.add_argument("--dimensions", type=int, default=BlendOptions().dimensions)
    options = parser.parse_args()
    embedder = open_embedder(options.model)
    names = [f"blend {weight:g}" for weight in options.weights]
    print("| set | base | BM25 | two indexes |", " | ".join(names), "| change | embed s | fit s |")
    print("|---" * (7 + len(names)) + "|")
    results = []
    for name in options.sets:
        found = measure(options.data / name, embedder, options.weights, options.dimensions)
        results.append(found)
        blends = " | ".join(f"{value:.3f}" for value in found.blend.values())
        changes = ", ".join(f"{value - found.base:+.3f}" for value in found.blend.values())
        print(
            f"| {name} | {found.base:.3f} | {found.bm25:.3f} | {found.fused:.3f} | {blends} | {changes} "
            f"| {found.embedding:.0f} | {found.fitting:.0f} |",
            flush=True,
        )
    for weight in options.weights:
        gains = [found.blend[weight] - found.base for found in results]
        print(f"\nweight {weight:g}: mean change {np.mean(gains):+.4f}, worst {min(gains):+.4f}")


if __name__ == "__main__":
    main()
