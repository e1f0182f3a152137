from __future__ import annotations

import numpy as np
import pytest

from tiny_dataset import small_dataset, with_chunk
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.records import Chunk, Query
from vectune.splits import with_dev
from vectune.training.batches import Batches, Unit
from vectune.training.data import TrainingData


def training(dataset: RetrievalDataset | None = None) -> TrainingData:
    return TrainingData.of(with_dev(dataset or small_dataset()))


def none_mined(data: TrainingData) -> np.ndarray:
    return np.full((len(data.queries), 0), -1, dtype=np.int64)


def test_an_epoch_holds_every_pair_once_and_a_batch_every_chunk_and_query_once() -> None:
    data = training()
    batches = Batches(data, 8, none_mined(data), 0, seed=1)
    seen = []
    for units in batches.epoch(0):
        batch = batches.batch(units, 0)
        assert len(set(batch.chunks)) == len(batch.chunks)
        assert len(set(batch.queries)) == len(batch.queries)
        seen += list(zip(batch.queries.tolist(), batch.chunks[batch.targets].tolist(), strict=True))
    assert sorted(seen) == sorted((q, c) for q, chunks in enumerate(data.positives) for c in chunks)


def test_epochs_repeat_exactly_and_differ_from_each_other() -> None:
    data = training()
    one, two = (Batches(data, 8, none_mined(data), 0, seed=1) for _ in range(2))
    assert list(one.epoch(3)) == list(two.epoch(3))
    assert list(one.epoch(3)) != list(one.epoch(4))


def test_a_walk_from_the_middle_is_the_rest_of_the_walk() -> None:
    data = training()
    batches = Batches(data, 8, none_mined(data), 0, seed=1)
    whole, later = batches.walk(0, 0), batches.walk(0, 3)
    for _ in range(3):
        next(whole)
    for _ in range(8):
        (a, b, first), (c, d, second) = next(whole), next(later)
        assert (a, b) == (c, d)
        assert (first.chunks == second.chunks).all()


def test_queries_of_one_chunk_share_it() -> None:
    dataset = small_dataset()
    for chunk in list(dataset.corpus.values()):
        if f"q-{chunk.id}" in dataset.qrels["train"]:
            dataset.queries[f"r-{chunk.id}"] = Query(f"why {chunk.text}", id=f"r-{chunk.id}")
            dataset.qrels["train"][f"r-{chunk.id}"] = {chunk.id: 1}
    data = training(dataset)
    batches = Batches(data, 8, none_mined(data), 0, seed=1)
    batch = batches.batch(next(batches.epoch(0)), 0)
    assert len(batch.queries) == 2 * len(batch.chunks)


def test_masks_of_positives_siblings_and_word_for_word_copies() -> None:
    dataset = with_chunk(small_dataset(), "apple-open", document_id="elsewhere", id="copy")
    data = training(dataset)
    row = data.queries.index("how do I open a apple")
    ids = list(dataset.corpus)
    kin = data.kin(row, np.arange(len(ids)))
    assert {ids[i] for i in np.flatnonzero(kin)} == {"apple-open", "apple-close", "apple-heat", "apple-sell", "copy"}


def test_near_copies_are_kin_under_the_same_title_only() -> None:
    long = "the parties agree that notice must be given in writing thirty days before the end of the term by letter"
    corpus = {
        "one": Chunk(long, title="Acme", document_id="a", id="one"),
        "near": Chunk(f"{long} again", title="Acme", document_id="b", id="near"),
        "other": Chunk(f"{long} again", title="Bolt", document_id="c", id="other"),
        **{f"c{i}": Chunk(f"word{i} text", document_id=f"d{i}", id=f"c{i}") for i in range(8)},
    }
    queries = {"q": Query("notice to Acme", id="q"), **{f"q{i}": Query(f"about word{i}", id=f"q{i}") for i in range(8)}}
    train = {"q": {"one": 1}, **{f"q{i}": {f"c{i}": 1} for i in range(6)}}
    data = TrainingData.of(RetrievalDataset(corpus, queries, {"train": train, "dev": {"q7": {"c7": 1}}}))
    assert np.flatnonzero(data.kin(data.queries.index("notice to Acme"), np.arange(3))).tolist() == [0, 1]


def test_in_a_large_document_only_neighbours_are_kin() -> None:
    corpus = {f"c{i}": Chunk(f"word{i} text", document_id="long", start=i, id=f"c{i}") for i in range(40)}
    queries = {f"q{i}": Query(f"about word{i}", id=f"q{i}") for i in range(40)}
    qrels = {"train": {f"q{i}": {f"c{i}": 1} for i in range(30)}, "dev": {f"q{i}": {f"c{i}": 1} for i in range(35, 40)}}
    data = TrainingData.of(RetrievalDataset(corpus, queries, qrels))
    assert np.flatnonzero(data.kin(10, np.arange(40))).tolist() == [9, 10, 11]


def test_mined_negatives_are_in_the_batch_and_count() -> None:
    data = training()
    mined = np.array([[data.positives[(q + 8) % len(data.queries)][0]] for q in range(len(data.queries))])
    batches = Batches(data, 4, mined, 1, seed=0)
    batch = batches.batch(next(batches.epoch(0)), 0)
    for row, query in enumerate(batch.queries):
        (column,) = np.flatnonzero(batch.chunks == mined[query, 0])
        assert not batch.masked[row, column]


def test_a_mined_chunk_counts_for_the_query_that_it_was_mined_for_alone() -> None:
    """Of the unit's other query it is a neighbour, which mining has judged for the first one only."""
    data = training()
    query, sibling = next(
        (query, chunk)
        for query, chunks in enumerate(data.positives)
        for chunk in np.flatnonzero(data.neighbours(query, np.arange(len(data.chunks))))
        if chunk not in chunks
    )
    other = next(other for other in range(len(data.queries)) if other != query)
    mined = np.full((len(data.queries), 1), -1, dtype=np.int64)
    mined[[query, other], 0] = sibling
    batches = Batches(data, 8, mined, 1, seed=1)
    unit = Unit(int(data.positives[query][0]), (query, other))
    for epoch, asker in ((0, query), (1, other)):
        batch = batches.batch([unit], epoch)
        at = batch.chunks.tolist().index(sibling)
        assert batch.masked[batch.queries.tolist().index(query), at] == (asker != query)


def test_no_chunk_of_a_dev_or_test_document_is_in_the_pool() -> None:
    dataset = with_dev(small_dataset())
    data = TrainingData.of(dataset)
    held = dataset.documents_of("dev") | dataset.documents_of("test")
    allowed = {chunk.document_id for chunk, in_pool in zip(dataset.corpus.values(), data.pool, strict=True) if in_pool}
    assert not allowed & held


def test_another_split_is_another_run() -> None:
    """What a killed run keeps was chosen on its dev, and its negatives are of its pool."""
    dataset = with_dev(small_dataset())
    keys = {TrainingData.of(dataset).key}
    dev = dataset.qrels["dev"]
    dataset.qrels["dev"] = dict(zip(dev, reversed(list(dev.values())), strict=True))
    keys.add(TrainingData.of(dataset).key)
    dataset.qrels["test"] = {}
    keys.add(TrainingData.of(dataset).key)
    assert len(keys) == 3


def test_the_same_words_asked_twice_are_one_query() -> None:
    dataset = small_dataset()
    dataset.queries["again"] = Query("how do I open a apple", id="again")
    dataset.qrels["train"]["again"] = {"apple-heat": 1}
    data = training(dataset)
    assert len(data.positives[data.queries.index("how do I open a apple")]) == 2


def test_every_query_the_same_is_refused() -> None:
    dataset = with_dev(small_dataset())
    for query in dataset.qrels["train"]:
        dataset.queries[query] = Query("help", id=query)
    with pytest.raises(DatasetError, match="1 different quer"):
        TrainingData.of(dataset)
