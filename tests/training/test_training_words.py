"""How much words count beside vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spaces import TableEmbedder, unit
from vectune.dataset import Qrels, RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import INNER
from vectune.records import Chunk, Query
from vectune.training.blend import UNLABELLED_WEIGHT
from vectune.training.problem import Problem, problem_of, trained_queries
from vectune.training.query import tune_keeping_index
from vectune.training.words import HeldOut, Worded, _choose, add_words

NAMES = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "heron", "iris", "jade", "kelp", "lotus"]
PARTS = ["pump", "valve", "motor", "sensor", "filter", "switch"]


def made(shared_words: bool) -> RetrievalDataset:
    """A chunk for each part of each thing; queries name both, or use words that are in other chunks alone."""
    corpus, queries, qrels = {}, {}, {}
    for number, name in enumerate(NAMES):
        for place, part in enumerate(PARTS):
            chunk = Chunk(f"the {part} of {name}", document_id=name, id=f"{name}-{part}")
            other = (NAMES[number - 1], PARTS[place - 1])
            query = Query(f"where is the {part} of {name}?" if shared_words else f"which {other[1]} {other[0]}?")
            corpus[chunk.id], queries[query.id] = chunk, query
            qrels[query.id] = {chunk.id: 1}
    cut: dict[str, Qrels] = {"train": {}, "test": {}}
    for key, judged in qrels.items():
        cut["test" if next(iter(judged)).split("-")[0] in NAMES[:3] else "train"][key] = judged
    return RetrievalDataset(corpus, queries, cut, {"name": "parts"})


def near(dataset: RetrievalDataset, noise: float) -> TableEmbedder:
    """Vectors of chunks at random, and queries near their chunk's."""
    draw = np.random.default_rng(0)
    table = {chunk.content: unit(draw.normal(size=32)) for chunk in dataset.corpus.values()}
    for judged in dataset.qrels.values():
        for query, chunks in judged.items():
            right = table[dataset.corpus[next(iter(chunks))].content]
            table[dataset.queries[query].text] = unit(right + noise * draw.normal(size=32))
    return TableEmbedder("remote", table)


def worded(dataset: RetrievalDataset, noise: float, generated: bool = False) -> Worded:
    embedder = near(dataset, noise)
    texts = [dataset.queries[key].text for key in trained_queries(dataset)]
    contents = [chunk.content for chunk in dataset.corpus.values()]
    problem: Problem = problem_of(
        dataset, embedder.embed_queries(texts), embedder.embed_documents(contents), folds=3, seed=0
    )
    held = [HeldOut(fold.held, problem.queries[fold.held]) for fold in problem.folds]
    documents = [chunk.document_id for chunk in dataset.corpus.values()]
    return add_words(problem, texts, contents, documents, held, generated=generated)


def test_words_count_where_queries_use_the_chunks_words() -> None:
    found = worded(made(shared_words=True), noise=0.4)
    assert found.gains and found.map.weight > 0
    assert found.after.mean() > found.before.mean() + 0.05
    np.testing.assert_array_equal(found.base, found.before)  # nothing was tuned here
    assert "words count" in found.note


def test_words_do_not_count_where_they_mislead() -> None:
    found = worded(made(shared_words=False), noise=0.2)
    assert found.map.weight == 0 and not found.gains
    assert "added nothing" in found.note


def test_generated_queries_choose_no_more_than_the_cautious_weight() -> None:
    assert worded(made(shared_words=True), noise=0.4, generated=True).map.weight <= UNLABELLED_WEIGHT


ONES = np.ones(50)
SEEN = {0.0: 0.5 * ONES, 0.1: 0.6 * ONES, 0.2: 0.7 * ONES, 0.3: 0.8 * ONES}


@pytest.mark.parametrize(
    ("later", "base", "weight"),
    [
        ((0.5, 0.5, 0.5, 0.5), 0.4, 0.3),
        ((0.5, 0.45, 0.39, 0.5), 0.4, 0.1),  # worse there than the untuned model: no weight from here on
        ((0.5, 0.5, 0.48, 0.05), 0.0, 0.2),  # above the untuned model, but a fifth of the questions lose too much
        ((0.5, 0.0, 0.0, 0.0), 0.4, 0.0),
    ],
)
def test_chunks_that_come_later_limit_the_weight(later: tuple[float, ...], base: float, weight: float) -> None:
    assert _choose(SEEN, {w: value * ONES for w, value in zip(SEEN, later, strict=True)}, base * ONES) == weight


@pytest.fixture
def dataset() -> RetrievalDataset:
    return made(shared_words=True)


def test_keeping_the_index_adds_words_over_any_embedder(
    dataset: RetrievalDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = near(dataset, noise=0.6)
    result = tune_keeping_index(dataset, tmp_path / "out", embedder)
    assert result.method == "words" and result.dev_after > result.dev_before
    marker = json.loads((tmp_path / "out" / "vectune.json").read_text())
    assert marker["kind"] == "words" and marker["options"]["added_words"]["weight"] > 0
    assert json.loads((tmp_path / "out" / INNER / "vectune.json").read_text())["kind"] == "adapter"

    import vectune.embedders.factory as factory

    opened = factory._open
    monkeypatch.setattr(
        factory, "_open", lambda source, options: embedder if source == "remote" else opened(source, options)
    )
    found = open_embedder(tmp_path / "out", cache=False)
    contents = [chunk.content for chunk in dataset.corpus.values()]
    np.testing.assert_array_equal(found.embed_documents(contents), embedder.embed_documents(contents))
    texts = [dataset.queries[query].text for query in dataset.qrels["test"]]
    right = [contents.index(dataset.corpus[next(iter(j))].content) for j in dataset.qrels["test"].values()]
    hits = [
        np.mean((each.embed_queries(texts) @ each.embed_documents(contents).T).argmax(1) == right)
        for each in (embedder, found)
    ]
    assert hits[1] > hits[0]
