"""Speed of evaluation on stored vectors, beside LlamaIndex's notebook loop and sentence-transformers' evaluator.

    python benchmarks/evaluate.py peers --llama-python VENV/bin/python     # bars: 20 times, 3 times
    python benchmarks/evaluate.py large                                    # bar: 60 s and 4 GiB

All three get the same vectors through their own interface, so that no model's time counts: LlamaIndex by an embedding
class that looks vectors up, as in its fine-tuning notebook (an index over all nodes, then one ``retrieve`` a query and
hit rate), sentence-transformers by a model that does the same. Each runs in processes of its own, three in turn with
the others; vectune and sentence-transformers six times in each, of which the best of the last five counts: first runs
compile, and the memory that they take anew is kept by later ones. llama-index-core may be in another environment.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SIZES = ((2_000, 1_000), (2_000, 4_000), (20_000, 1_000), (100_000, 1_000))  # chunks × queries
LLAMA_CHUNKS = 2_000  # above, its loop takes minutes
DIM = 384
LLAMA_QUERIES = 50  # its loop is timed on so many and multiplied, index included as it is: every query costs the same


def unit(rng: np.random.Generator, rows: int, dim: int) -> Floats:
    found = rng.standard_normal((rows, dim), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def write_vectors(folder: Path, rows: int, queries: int, dim: int = DIM) -> None:
    """corpus.npy, written block by block, and queries.npy, each near one chunk: query i is answered by chunk i·step."""
    rng = np.random.default_rng(0)
    corpus = np.lib.format.open_memmap(folder / "corpus.npy", mode="w+", dtype=np.float32, shape=(rows, dim))
    for start in range(0, rows, 50_000):
        corpus[start : start + 50_000] = unit(rng, min(50_000, rows - start), dim)
    asked = np.asarray(corpus[answers(rows, queries)]) + 1.6 * unit(rng, queries, dim)
    np.save(folder / "queries.npy", asked / np.linalg.norm(asked, axis=1, keepdims=True))


def answers(rows: int, queries: int) -> NDArray[np.int64]:
    return np.arange(queries, dtype=np.int64) * (rows // queries)


def clock() -> float:
    """Now, with what was made before the clock starts swept up: Python would do so some time later."""
    gc.collect()
    return time.perf_counter()


def read_vectors(folder: Path) -> tuple[Floats, Floats]:
    return np.load(folder / "corpus.npy", mmap_mode="r"), np.load(folder / "queries.npy")


def table(vectors: Floats, prefix: str) -> dict[str, Floats]:
    return {f"{prefix}{place}": vector for place, vector in enumerate(vectors)}


def ours(folder: Path) -> tuple[float, float]:
    """``evaluate`` itself: board, per-query values of all default measures, ranks and rankings."""
    import ir_measures  # noqa: F401 - loaded before the clock starts, as the peers' packages are

    import vectune.encoding  # noqa: F401
    from vectune.dataset import RetrievalDataset
    from vectune.evaluation import EvaluateOptions, evaluate
    from vectune.records import Chunk, Query

    corpus, queries = read_vectors(folder)
    known = {**table(np.asarray(corpus), "c"), **table(queries, "q"), "vectune asks: what is this model?": queries[0]}
    right = answers(len(corpus), len(queries))
    dataset = RetrievalDataset(
        {f"c{place}": Chunk(f"c{place}", id=f"c{place}") for place in range(len(corpus))},
        {f"q{place}": Query(f"q{place}", id=f"q{place}") for place in range(len(queries))},
        {"test": {f"q{place}": {f"c{chunk}": 1} for place, chunk in enumerate(right)}},
    )

    def look_up(texts: Sequence[str]) -> Floats:
        return np.stack([known[text] for text in texts])

    options = EvaluateOptions(timed_queries=0, cache=False)
    started = clock()
    board = evaluate(dataset, [(look_up, look_up)], options=options)
    return time.perf_counter() - started, board.rows[0].measures["hit@10"]


def sentence_transformers(folder: Path) -> tuple[float, float]:
    """InformationRetrievalEvaluator with its default measures."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    corpus, queries = read_vectors(folder)
    known = {**table(np.asarray(corpus), "c"), **table(queries, "q")}

    class Stored:
        """What the evaluator asks of a model."""

        similarity_fn_name = "cosine"
        similarity = staticmethod(cos_sim)

        class model_card_data:
            @staticmethod
            def set_evaluation_metrics(*args: object, **kwargs: object) -> None: ...

        def encode_query(self, texts: Sequence[str], **kwargs: object) -> torch.Tensor:
            return torch.from_numpy(np.stack([known[text] for text in texts]))

        encode_document = encode_query
        encode = encode_query

    right = answers(len(corpus), len(queries))
    evaluator = InformationRetrievalEvaluator(
        {f"q{place}": f"q{place}" for place in range(len(queries))},
        {f"c{place}": f"c{place}" for place in range(len(corpus))},
        {f"q{place}": {f"c{chunk}"} for place, chunk in enumerate(right)},
        score_functions={"cosine": cos_sim},
        write_csv=False,
    )
    started = clock()
    metrics = evaluator(Stored())  # type: ignore[arg-type]
    return time.perf_counter() - started, float(metrics["cosine_accuracy@10"])


def llama_index(folder: Path) -> tuple[float, float]:
    """The loop of LlamaIndex's fine-tuning notebook: an index, then each query alone."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.schema import TextNode

    corpus, queries = read_vectors(folder)
    known = {**table(np.asarray(corpus), "c"), **table(queries, "q")}

    class Stored(BaseEmbedding):  # type: ignore[misc]
        def _get_query_embedding(self, query: str) -> list[float]:
            found: list[float] = known[query].tolist()
            return found

        _get_text_embedding = _get_query_embedding

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    right, asked = answers(len(corpus), len(queries)), min(LLAMA_QUERIES, len(queries))
    started = clock()
    nodes = [TextNode(id_=f"c{place}", text=f"c{place}") for place in range(len(corpus))]
    retriever = VectorStoreIndex(nodes, embed_model=Stored()).as_retriever(similarity_top_k=10)
    indexed = time.perf_counter() - started
    started, hits = time.perf_counter(), 0
    for place in range(asked):
        found = [node.node.node_id for node in retriever.retrieve(f"q{place}")]
        hits += f"c{right[place]}" in found
    return indexed + (time.perf_counter() - started) * len(queries) / asked, hits / asked


def large(folder: Path) -> tuple[float, float]:
    """``top_k`` over a memory map: the best 100 of every query."""
    from vectune.retrieval import top_k

    corpus, queries = read_vectors(folder)
    started = clock()
    indices, _ = top_k(queries, corpus, 100)
    seconds = time.perf_counter() - started
    return seconds, float((indices[:, :10] == answers(len(corpus), len(queries))[:, None]).any(axis=1).mean())


WORK: dict[str, Callable[[Path], tuple[float, float]]] = {
    "vectune": ours, "sentence-transformers": sentence_transformers, "llama-index": llama_index, "large": large,
}  # fmt: skip

WARM = ("vectune", "sentence-transformers")  # short enough to be done again in a warm process
AGAIN = 5  # times


def measured(name: str, folder: Path, python: str = sys.executable) -> dict[str, Any]:
    """Seconds, hit@10 and peak memory of one work in a process of its own."""
    done = subprocess.run([python, __file__, "work", name, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def best(pythons: dict[str, str], folder: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """The fastest of some runs of each, in turn; of LlamaIndex's long one a single one."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for turn in range(repeats):
        for name, python in pythons.items():
            if turn == 0 or name != "llama-index":
                runs[name].append(measured(name, folder, python))
    return {name: min(found, key=lambda run: float(run["seconds"])) for name, found in runs.items()}


def peers(llama_python: str | None, repeats: int) -> None:
    print("| chunks × queries | vectune | sentence-transformers | llama-index | times faster | hit@10 |")
    print("|---|---:|---:|---:|---:|---:|")
    for rows, queries in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_vectors(Path(folder), rows, queries)
            pythons = {"vectune": sys.executable, "sentence-transformers": sys.executable}
            if llama_python and rows <= LLAMA_CHUNKS:
                pythons["llama-index"] = llama_python
            found = best(pythons, Path(folder), repeats)
        ours = found["vectune"]["seconds"]
        cells = [f"{found[name]['seconds']:.2f} s" if name in found else "" for name in list(WORK)[:3]]
        times = " and ".join(f"{found[name]['seconds'] / ours:.1f}" for name in list(found)[1:])
        hits = ", ".join(f"{each['hit']:.3f}" for each in found.values())
        print(f"| {rows:,} × {queries:,} | {' | '.join(cells)} | {times} | {hits} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    beside = commands.add_parser("peers")
    beside.add_argument("--llama-python", help="a Python that has llama-index-core; without it that column is empty")
    beside.add_argument("--repeats", type=int, default=3)
    big = commands.add_parser("large")
    big.add_argument("--chunks", type=int, default=1_000_000)
    big.add_argument("--queries", type=int, default=1_000)
    work = commands.add_parser("work")
    work.add_argument("name", choices=list(WORK))
    work.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.command == "work":
        seconds, hit = WORK[asked.name](asked.folder)
        if asked.name in WARM:
            seconds, hit = min(WORK[asked.name](asked.folder) for _ in range(AGAIN))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "hit": hit, "peak_gib": peak}))
    elif asked.command == "peers":
        peers(asked.llama_python, asked.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_vectors(Path(folder), asked.chunks, asked.queries)
            found = measured("large", Path(folder))
        what = f"{asked.chunks:,} × {asked.queries:,} × {DIM}"
        print(f"{what}: {found['seconds']:.1f} s, peak {found['peak_gib']:.2f} GiB, hit@10 {found['hit']:.3f}")


if __name__ == "__main__":
    main()
