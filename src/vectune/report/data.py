"""The part of the report about the data: counts, what was filtered out and skipped, some queries with their chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectune.dataset import SPLITS
from vectune.report.changes import cut, shown_chunk
from vectune.report.material import Material
from vectune.runs import Json

MOST_LISTED = 50  # skipped files and near-duplicates; the rest is counted


def data_part(material: Material) -> Json | None:
    """What dataset.json tells, and a look at the queries; None without a dataset."""
    dataset = material.dataset
    if dataset is None:
        return None
    info = dataset.info
    filters: Any = info.get("filters") or {}
    skipped = [_skipped(item) for item in info.get("skipped") or ()]
    duplicates: Any = info.get("duplicates")
    duplicates = duplicates if isinstance(duplicates, list) else []
    return {
        "counts": {f"{name} queries" if name in SPLITS else name: value for name, value in dataset.counts().items()},
        "written": filters.get("written"),
        "kept": filters.get("kept"),
        "filters": _filters(filters),
        "skipped": skipped[:MOST_LISTED],
        "skipped_count": len(skipped),
        "duplicates": len(duplicates),
        "left_out": info.get("duplicates_left_out") or 0,
        "warnings": [str(text) for text in info.get("warnings") or ()],
        "examples": _examples(material),
    }


def _filters(filters: Mapping[str, Any]) -> list[Json]:
    """Each filter with how many queries it dropped and some of them, the largest first."""
    dropped, examples = filters.get("dropped") or {}, filters.get("examples") or {}
    return [
        {"name": name, "count": count, "examples": [cut(str(text), 160) for text in (examples.get(name) or ())[:3]]}
        for name, count in sorted(dropped.items(), key=lambda item: -item[1])
    ]


def _skipped(item: Any) -> Json:
    if isinstance(item, Mapping):
        return {"source": str(item.get("source", "")), "reason": str(item.get("reason", ""))}
    return {"source": str(item), "reason": ""}


def _examples(material: Material, most: int = 6) -> list[Json]:
    """Queries spread evenly over the test split, or over train where there is no test, each with its first chunk."""
    dataset = material.dataset
    split = next((name for name in ("test", "dev", "train") if dataset and dataset.qrels.get(name)), None)
    if dataset is None or split is None:
        return []
    ids = list(dataset.qrels[split])
    chosen = ids[:: max(1, len(ids) // most)][:most]
    return [
        {"text": cut(dataset.queries[query].text, 300), "style": dataset.queries[query].style,
         "chunk": shown_chunk(dataset.corpus.get(chunk), chunk, 260)}
        for query in chosen for chunk in list(dataset.qrels[split][query])[:1]
    ]  # fmt: skip
