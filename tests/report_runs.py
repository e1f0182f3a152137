"""A run folder for the report's tests, with text that tries to break out of the page."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from vectune.board import Board, Costs, Row
from vectune.dataset import RetrievalDataset
from vectune.records import Chunk, Query
from vectune.runs import Json, write_json
from vectune.verdict import VerdictOptions, verdict

MEASURES = ("nDCG@10", "RR@10", "hit@1", "hit@5", "hit@10", "R@10")
HOSTILE = (
    "<script>window.broken = true</script>",
    "{{7*7}} {% for x in y %} ${1+1}",
    "</script><script>window.broken = true</script>",
    "--><img src=x onerror='window.broken = true'><!--",
    "كيف أعيد ضبط التلفاز؟ ‮ override",
    "Wie ändere ich 👩🏽‍🔧 die Uhrzeit? 時計を合わせる",
    "]]> &lt;b&gt;bold&lt;/b&gt; \u2028 \u0000 \\u003cscript\\u003e",
    "x" * 5000,
)
ARTIFACT = {"kind": "full", "base": "all-MiniLM-L6-v2", "base_fingerprint": "8f2c11d09a", "method": "full"}
SUBJECTS = (
    "subtitles",
    "the clock",
    "Wi-Fi",
    "the remote",
    "picture size",
    "parental lock",
    "firmware",
    "surround sound",
)
WISHES = ("How do I change {0}?", "{0} not working", "Where is the setting for {0} on the TV?", "reset {0} to default")


def make_dataset(queries: int, lengthen: str = "", seed: int = 0) -> RetrievalDataset:
    """Chunks of 24 manuals and queries with one right chunk each; the first queries and chunks are hostile."""
    random_ = random.Random(seed)
    corpus = {}
    for number in range(min(max(60, queries), 5000)):
        subject = SUBJECTS[number % len(SUBJECTS)]
        text = f"Press the home button and open Settings. To change {subject}, choose General and press OK ({number}). "
        if number < len(HOSTILE):
            text = HOSTILE[number] + " " + text
        text += lengthen
        chunk = Chunk(
            text * random_.randint(1, 5), title=f"Manual {number % 24}: {subject}",
            source=f"manuals/tv-{number % 24}.pdf", document_id=f"document-{number % 24}",
            page=number % 40 + 1, id=f"c{number}",
        )  # fmt: skip
        corpus[chunk.id] = chunk
    texts = [
        *HOSTILE,
        *(WISHES[i % 4].format(SUBJECTS[i % 8]) + f" ({i})" for i in range(max(queries - len(HOSTILE), 0))),
    ]
    found = {
        f"q{i}": Query(text, style=("question", "keywords", "title")[i % 3], writer="extractive", id=f"q{i}")
        for i, text in enumerate(texts[:queries])
    }
    qrels = {query: {f"c{i % len(corpus)}": 1} for i, query in enumerate(found)}
    info: Json = {
        "name": "manuals",
        "generated": True,
        "filters": {
            "written": 5048,
            "kept": 5000,
            "dropped": {"duplicate": 7, "names no subject": 41},
            "examples": {"names no subject": ["<b>what</b> is it", "page 12"]},
        },
        "duplicates": [{"source": "a.md", "of": "b.md", "similarity": 1.0}],
        "duplicates_left_out": 74,
        "skipped": [{"source": "manuals/<broken>.pdf", "reason": "encrypted"}],
        "warnings": ["3 documents hold no text."],
    }
    return RetrievalDataset(corpus, found, {"test": qrels}, info)


def make_row(name: str, dataset: RetrievalDataset, skill: float, seed: int, kind: str = "dense") -> Row:
    """A row whose first right chunk stands at a random rank; higher ``skill`` puts it further up.

    How hard a query is, is the same in all rows; the seed moves it a little.
    """
    random_, hardness = random.Random(seed), random.Random(99)
    ids = list(dataset.corpus)
    per_query, rankings, ranks = {}, {}, {}
    for query, judged in dataset.qrels["test"].items():
        rank = int((hardness.expovariate(1.0) * random_.lognormvariate(0, 0.35)) ** 3 * 22 * (1 - skill)) + 1
        right = next(iter(judged))
        others = [chunk for chunk in random_.sample(ids, 11) if chunk != right][:10]
        if rank <= 10:
            others.insert(rank - 1, right)
        rankings[query] = [(chunk, round(1 - i / 20, 3)) for i, chunk in enumerate(others[:10])]
        ranks[query] = rank if rank <= 100 else 0
        per_query[query] = _measures(rank)
    costs = Costs(384, len(ids) * 1536, 140.0, {"median": 9.1, "p95": 12.4}, 0, None, 12)
    return Row(name, kind, per_query, rankings, ranks, 1, costs)


def _measures(rank: int) -> dict[str, float]:
    found = rank <= 10
    return {
        "nDCG@10": 1 / math.log2(rank + 1) if found else 0.0,
        "RR@10": 1 / rank if found else 0.0,
        "hit@1": float(rank == 1),
        "hit@5": float(rank <= 5),
        "hit@10": float(found),
        "R@10": float(found),
    }


CURVE = {
    "measure": "nDCG@10",
    "base": 0.41,
    "points": [
        {"part": part, "fraction": fraction, "queries": queries, "documents": documents, "score": score}
        for part, fraction, queries, documents, score in (
            ("queries", 0.25, 50, 40, 0.45), ("documents", 0.25, 51, 10, 0.43), ("queries", 0.5, 100, 40, 0.47),
            ("documents", 0.5, 99, 20, 0.46), ("all", 1.0, 200, 40, 0.5),
        )
    ],
    "queries_gain": 0.025,
    "documents_gain": 0.035,
    "advice": "More documents would pay: twice as many, about +.035 nDCG@10; more queries +.025.",
}  # fmt: skip


def make_run(folder: Path, queries: int = 160, judged: bool = True, lengthen: str = "") -> Path:
    """Write a run folder as ``vectune run`` leaves it, without the report.

    Args:
        folder: where; its row on the board is ``folder/model``.
        queries: how many; as many chunks, from 60 to 5,000.
        judged: with verdict.json, and with more rows than base and tuned.
        lengthen: text that makes each chunk longer.
    """
    dataset = make_dataset(queries, lengthen)
    folder.mkdir(parents=True, exist_ok=True)
    dataset.write(folder / "dataset")
    tuned = str(folder / "model")
    rows: tuple[Row, ...] = (
        make_row("bm25", dataset, 0.7, 1, "bm25"),
        make_row("all-MiniLM-L6-v2", dataset, 0.5, 2),
        make_row(tuned, dataset, 0.75, 3),
        make_row("hybrid:<i>all</i>-MiniLM-L6-v2", dataset, 0.72, 4, "hybrid"),
    )
    write_json(folder / "model" / "vectune.json", ARTIFACT)
    if not judged:
        rows = rows[1:3]
    clusters = {query: f"document-{i % 24}" for i, query in enumerate(dataset.queries)}
    board = Board("manuals", "test", len(dataset.corpus), queries, rows, MEASURES, True, clusters=clusters, depth=100)
    board.write(folder / "board.json")
    if judged:
        found = verdict(board, dataset, "all-MiniLM-L6-v2", tuned, VerdictOptions(draws=500))
        write_json(folder / "verdict.json", found.to_json())
    write_json(folder / "run.json", run_json())
    curve = {f"{weight / 20:g}": round(0.6 + 0.2 * math.sin(weight / 9), 4) for weight in range(21)}
    facts = {"kind": "hybrid", "weight": 0.7, "chosen_on": "dev", "queries": 80, "curve": curve}
    write_json(folder / "retriever" / "retriever.json", facts)
    for name, seconds in (("documents", 4.2), ("chunks", 1.1), ("queries", 12.5), ("tune", 184.0), ("evaluate", 22.4)):
        write_json(folder / "stages" / f"{name}.json", {"key": name * 4, "seconds": seconds, "summary": {}})
    lines = [*events(), '{"kind": "train", "st']  # a killed run leaves a broken last line
    (folder / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def run_json() -> Json:
    return {
        "vectune": "0.1.0",
        "created": "2026-11-23T07:00:00",
        "command": "vectune run manuals --out run",
        "config": {"model": "all-MiniLM-L6-v2", "seed": 0, "tune": {"epochs": 3, "rate": 1e-4, "note": "<b>x</b>"}},
        "versions": {"vectune": "0.1.0", "torch": "2.13.0"},
        "seed": 0,
        "inputs": {"paths": ["manuals"], "hash": "a" * 64},
        "machine": {"cpu": "2 cores", "memory": "24 GiB"},
    }


def events() -> list[str]:
    random_ = random.Random(5)
    found: list[dict[str, Any]] = []
    for step in range(1, 301):
        loss = 0.35 + 2.1 * math.exp(-step / 60) + random_.gauss(0, 0.09)
        found.append({"time": 1.0, "kind": "train", "step": step, "loss": loss})
        if step % 50 == 0:
            value = 0.55 + 0.1 * (1 - math.exp(-step / 80)) - (0.01 if step > 250 else 0)
            found.append({"time": 1.0, "kind": "dev", "step": step, "value": value})
    return [json.dumps(event) for event in found]
