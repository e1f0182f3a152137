from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boards import WordEmbedder, dataset
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.hybrid import choose_weight
from vectune.lexical import BM25, fuse
from vectune.metrics import mean, per_query
from vectune.retrieval import tie_order

QUICK = EvaluateOptions(timed_queries=0, cache=False, hybrid_step=0.25)


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> WordEmbedder:
    embedder = WordEmbedder("noisy", noise=3.0)
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: embedder)
    return embedder


def test_the_curve_is_what_ir_measures_gives_for_each_weight(noisy: WordEmbedder) -> None:
    data = dataset(15)
    ids, queries = list(data.corpus), data.queries_of("dev")
    place = {key: number for number, key in enumerate(ids)}
    bm25 = BM25([chunk.content for chunk in data.corpus.values()])
    corpus = noisy.embed_documents([chunk.content for chunk in data.corpus.values()])
    texts = [query.text for query in queries]
    vectors = noisy.embed_queries(texts)
    judged = [{place[chunk]: grade for chunk, grade in data.qrels["dev"][query.id].items()} for query in queries]
    found = choose_weight(bm25, corpus, texts, vectors, judged, tie_order(ids), 0.25)
    assert list(found.curve) == [0.0, 0.25, 0.5, 0.75, 1.0]
    for weight, value in found.curve.items():
        run = {
            query.id: dict(
                zip(ids, fuse(np.round(corpus @ vector, 6), bm25.scores(query.text), weight).tolist(), strict=True)
            )
            for query, vector in zip(queries, vectors, strict=True)
        }
        assert value == pytest.approx(mean(per_query(data.qrels["dev"], run, ("nDCG@10",))["nDCG@10"]), abs=1e-5)
    assert found.curve[found.value] == max(found.curve.values())
    assert found.queries == len(queries)


def test_the_weight_comes_from_dev_and_is_told(noisy: WordEmbedder) -> None:
    row = evaluate(dataset(15), ["hybrid:noisy"], options=QUICK).rows[0]
    assert row.kind == "hybrid" and row.details["chosen_on"] == "dev" and row.details["weight"] >= 0.25
    assert row.details["queries"] == 20


def test_without_dev_it_is_cut_from_train(noisy: WordEmbedder) -> None:
    data = dataset(30)
    del data.qrels["dev"]
    row = evaluate(data, ["hybrid:noisy"], options=QUICK).rows[0]
    assert row.details["chosen_on"] == "dev, cut from train" and 0 < row.details["queries"] < 40


def test_with_nothing_to_choose_on_it_is_a_half_and_says_so(noisy: WordEmbedder) -> None:
    data = dataset()
    board = evaluate(replace(data, qrels={"test": data.qrels["test"]}), ["hybrid:noisy"], options=QUICK)
    assert board.rows[0].details == {"weight": 0.5, "chosen_on": None, "language": "en"}
    assert any("weight is .5" in note for note in board.notes)
    assert "scored" in evaluate(data, ["hybrid:noisy"], "dev", QUICK).notes[0]


def test_a_hybrid_may_beat_both_parts(noisy: WordEmbedder) -> None:
    board = evaluate(dataset(30), ["bm25", "noisy", "hybrid:noisy"], options=QUICK)
    best = {row.kind: row.measures["nDCG@10"] for row in board.rows}
    assert best["hybrid"] >= max(best["bm25"], best["dense"]) - 0.02
