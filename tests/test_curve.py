from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from boards import WordEmbedder, dataset
from vectune.curve import held_out, learning_curve, thinned
from vectune.dataset import RetrievalDataset
from vectune.evaluation import Model
from vectune.general import general_set
from vectune.records import Chunk, Query, WrittenQuery
from vectune.runs import write_json


@pytest.fixture(scope="module")
def data() -> RetrievalDataset:
    return dataset(60)


def test_thinning_leaves_queries_of_every_document_or_whole_documents(data: RetrievalDataset) -> None:
    documents = len(data.documents_of("train"))
    fewer = thinned(data, "queries", 0.5)
    assert len(fewer.split("train")) == len(data.split("train")) // 2 and len(fewer.documents_of("train")) == documents
    whole = thinned(data, "documents", 0.5)
    assert len(whole.split("train")) == len(data.split("train")) // 2
    assert len(whole.documents_of("train")) == documents // 2
    for part in (fewer, whole):
        assert part.split("dev") == data.split("dev") and part.corpus is data.corpus


def test_smaller_parts_lie_within_larger_ones(data: RetrievalDataset) -> None:
    for part in ("queries", "documents"):
        small, large = (set(thinned(data, part, share).split("train")) for share in (0.25, 0.5))
        assert small < large
    assert thinned(data, "queries", 0.25).split("train") != thinned(data, "queries", 0.25, seed=1).split("train")


@pytest.mark.parametrize(
    ("by", "told"), [("documents", "More documents"), ("queries", "More queries"), ("none", "little")]
)
def test_the_curve_tells_what_more_would_pay(data: RetrievalDataset, by: str, told: str) -> None:
    names: list[str] = []

    def tune(thin: RetrievalDataset, name: str) -> Model:
        """A model that gets better with what ``by`` counts."""
        names.append(name)
        queries, documents = len(thin.split("train")), len(thin.documents_of("train"))
        amount = {"documents": documents / 20, "queries": queries / documents / 4, "none": 1.0}[by]
        return WordEmbedder(name, noise=6.0 * (1.05 - amount))

    curve = learning_curve(data, WordEmbedder("base", noise=6.0), tune)
    assert names == ["queries-25", "documents-25", "queries-50", "documents-50", "all-100"]
    assert told in curve.advice, curve
    assert [point.queries for point in curve.points] == [20, 20, 40, 40, 80]
    assert curve.base < curve.points[-1].score


class Writer:
    name = fingerprint = "plain"

    def write(self, chunks: Sequence[Chunk]) -> Iterator[WrittenQuery]:
        for chunk in chunks:
            yield WrittenQuery(Query(f"about {chunk.text}"), (chunk.id,))


@pytest.mark.parametrize(("kind", "score"), [("adapter", (0.2, 0.31)), ("query", (0.2, 0.31)), ("full", None)])
def test_what_was_fitted_on_dev_is_scored_by_what_was_not(
    kind: str, score: tuple[float, float] | None, tmp_path: Path
) -> None:
    write_json(tmp_path / "vectune.json", {"kind": kind, "dev": {"before": 0.2, "after": 0.31}})
    assert held_out(str(tmp_path)) == score and held_out("all-MiniLM-L6-v2") is None


def test_base_and_points_of_a_curve_come_from_one_search(data: RetrievalDataset, tmp_path: Path) -> None:
    write_json(tmp_path / "vectune.json", {"kind": "adapter", "dev": {"before": 0.2, "after": 0.2}})
    curve = learning_curve(data, WordEmbedder("base", noise=6.0), lambda thin, name: str(tmp_path))
    assert {curve.base, *(point.score for point in curve.points)} == {0.2}


def test_the_general_set_is_made_of_untouched_documents(data: RetrievalDataset) -> None:
    train_only = replace(data, qrels={"train": data.qrels["train"]})
    found = general_set(train_only, Writer(), queries=50)
    assert found is not None and found.generated and len(found.split("test")) == 50
    assert not found.documents_of("test") & train_only.documents_of("train")
    assert general_set(train_only, Writer(), queries=50, seed=1) != found
    assert general_set(data, Writer()) is None  # every document is touched
