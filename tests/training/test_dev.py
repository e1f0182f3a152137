from __future__ import annotations

import numpy as np

from tiny_dataset import small_dataset
from vectune.lexical import BM25
from vectune.metrics import per_query
from vectune.splits import with_dev
from vectune.training.data import TrainingData
from vectune.training.dev import dev_sample, ndcg


def test_ndcg_is_that_of_ir_measures() -> None:
    draw = np.random.default_rng(0)
    scores = draw.random((6, 30)).astype(np.float32)
    grades = np.where(draw.random((6, 30)) < 0.1, draw.integers(1, 4, (6, 30)), 0).astype(np.int16)
    grades[:, 0] = 1
    qrels = {f"q{q}": {f"c{c}": int(g) for c, g in enumerate(row) if g} for q, row in enumerate(grades)}
    run = {f"q{q}": {f"c{c}": float(s) for c, s in enumerate(row)} for q, row in enumerate(scores)}
    expected = per_query(qrels, run, ["nDCG@10"])["nDCG@10"]
    assert np.allclose(ndcg(scores, grades), [expected[f"q{q}"] for q in range(6)])


def test_the_sample_holds_every_positive_and_no_more_than_asked() -> None:
    data = TrainingData.of(with_dev(small_dataset()))
    draw = np.random.default_rng(0)
    corpus, queries = draw.random((len(data.chunks), 4)), draw.random((len(data.dev_queries), 4))
    sample = dev_sample(data, queries.astype(np.float32), corpus.astype(np.float32), BM25(data.chunks), most=40, seed=0)
    positives = {chunk for grades in data.dev_grades for chunk in grades}
    assert positives <= set(sample.chunks.tolist())
    assert len(sample.chunks) == 40
    assert sample.grades.sum() == sum(sum(grades.values()) for grades in data.dev_grades)
