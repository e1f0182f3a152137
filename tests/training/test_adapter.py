from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spaces import TableEmbedder, turned_space, unit
from vectune.adapters import Adapter, load_adapter, open_artifact
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError, OutputError
from vectune.training.adapter import average, climb, embed_dataset, tune_adapter
from vectune.training.ladder import CLOSED, TRAINED, Geometry, Rung, mean_positives, procrustes, ridge, train
from vectune.training.problem import Positives, judged_rows, ndcg_at_10, problem_of


def test_score(dataset: RetrievalDataset, embedder: TableEmbedder, adapter: Adapter | None = None) -> float:
    """Test nDCG@10 over the whole corpus."""
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    documents = embedder.embed_documents([chunk.content for chunk in dataset.corpus.values()])
    queries = embedder.embed_queries([query.text for query in dataset.queries_of("test")])
    queries = queries if adapter is None else adapter.apply(queries)
    return float(ndcg_at_10(queries @ documents.T, Positives.of(judged_rows(dataset.split("test"), rows))).mean())


test_score.__test__ = False  # type: ignore[attr-defined]


def test_ndcg_is_that_of_ir_measures() -> None:
    from vectune.metrics import per_query

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 40))
    qrels = {
        f"q{i}": {f"c{c}": int(rng.integers(1, 4)) for c in rng.choice(40, 1 + i, replace=False)} for i in range(6)
    }
    run = {f"q{i}": {f"c{c}": float(scores[i, c]) for c in range(40)} for i in range(6)}
    expected = list(per_query(qrels, run, ["nDCG@10"])["nDCG@10"].values())
    positives = Positives.of([{int(c[1:]): grade for c, grade in judged.items()} for judged in qrels.values()])
    np.testing.assert_allclose(ndcg_at_10(scores, positives), expected, atol=1e-9)


def test_ties_count_against_the_positive() -> None:
    """All vectors in one point, or no numbers: nothing was found. Two positives alike are still two found."""
    positives = Positives.of([{3: 1, 8: 1}, {5: 1}])
    for nothing in (np.ones((2, 40)), np.full((2, 40), np.nan)):
        assert not ndcg_at_10(nothing, positives).any()
    scores = np.zeros((2, 40))
    scores[0, [3, 8]], scores[1, 5] = 1.0, 1.0
    np.testing.assert_allclose(ndcg_at_10(scores, positives), 1.0)
    scores[1, 6] = 1.0 - 1e-7  # rounding
    np.testing.assert_allclose(ndcg_at_10(scores, positives)[1], 1 / np.log2(3))


@pytest.mark.parametrize("count", [5, 40], ids=["dual", "primal"])
def test_ridge_is_the_minimum_of_what_it_says(count: int) -> None:
    rng = np.random.default_rng(0)
    x, targets = unit(rng.normal(size=(count, 12))), unit(rng.normal(size=(count, 12)))
    ((_, change),) = ridge(x, targets, [2.0])
    gram = x @ x.T if count <= 12 else x.T @ x
    pull = 2.0 * float(np.trace(gram)) / len(gram)
    rest = (targets - x) - (targets - x).mean(axis=0)
    assert change.matrix is not None

    def loss(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return float(((x @ matrix.T - rest) ** 2).sum() + pull * (matrix**2).sum())

    best = loss(change.matrix.astype(np.float64))
    for step in rng.normal(size=(20, 12, 12)):
        assert loss(change.matrix + 0.01 * step) > best


def test_procrustes_finds_the_rotation() -> None:
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    x = unit(rng.normal(size=(30, 8)))
    change = procrustes(x, (x @ rotation.T).astype(np.float32))
    np.testing.assert_allclose(x + change.of(x), x @ rotation.T, atol=1e-5)


def test_whitening_evens_out_the_directions() -> None:
    rng = np.random.default_rng(0)
    documents = (rng.normal(size=(3000, 6)) * [9, 5, 3, 2, 1, 1]).astype(np.float32)
    geometry = Geometry.of(documents)
    np.testing.assert_array_equal(geometry.whitening(0), np.eye(6))
    spread = np.linalg.eigvalsh(np.cov((documents @ geometry.whitening(0.5, shrink=0)).T))
    np.testing.assert_allclose(spread / spread.mean(), 1, atol=1e-3)
    same = Geometry.of(np.ones((5, 6), np.float32))
    np.testing.assert_allclose(same.whitening(0.25), np.eye(6), atol=1e-5)


@pytest.mark.parametrize("rung", [*CLOSED, *TRAINED], ids=lambda rung: rung.name)
def test_each_rung_learns_and_is_stored_as_it_was_fitted(rung: Rung) -> None:
    dataset, embedder = turned_space()
    queries, documents = embed_dataset(dataset, embedder)
    problem = problem_of(dataset, queries, documents, 0, 0)
    rows = np.arange(len(queries))
    if rung.trained:
        # 16 dimensions let the rate grow 24-fold: few steps, small rate
        slow = replace(rung, rate=rung.rate / 10)
        *_, (_, change) = train(queries, problem.positives, documents, problem.pool, slow, 0, (10, 40))
    elif rung.kind == "ridge":
        ((_, change),) = ridge(queries, mean_positives(problem, rows), [0.3])
    else:
        change = procrustes(queries, mean_positives(problem, rows))
    adapter = change.adapter(rung.kind, np.eye(16, dtype=np.float32), 0.7)
    expected = queries + np.float32(0.7) * change.of(queries)
    np.testing.assert_allclose(adapter.apply(queries), unit(expected), atol=1e-5)
    assert test_score(dataset, embedder, adapter) > test_score(dataset, embedder) + 0.02


def test_the_sampled_softmax_learns_from_a_memory_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectune.training.ladder.EXACT", 64)
    dataset, embedder = turned_space()
    queries, documents = embed_dataset(dataset, embedder)
    np.save(tmp_path / "documents.npy", documents)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    problem = problem_of(dataset, queries, mapped, 0, 0)
    *_, (_, change) = train(queries, problem.positives, mapped, problem.pool, Rung("linear", 0.05, 1e-4), 0, (60,))
    adapter = change.adapter("linear", np.eye(16, dtype=np.float32), 1.0)
    assert test_score(dataset, embedder, adapter) > test_score(dataset, embedder) + 0.02


def test_chunks_of_held_out_and_test_documents_are_no_negatives() -> None:
    dataset, embedder = turned_space()
    problem = problem_of(dataset, *embed_dataset(dataset, embedder), folds=3, seed=0)
    documents = [chunk.document_id for chunk in dataset.corpus.values()]
    asked = dataset.documents_of("test")
    assert len(problem.folds) == 3
    assert not asked & {documents[row] for row in problem.pool}
    for fold in problem.folds:
        held = {documents[row] for row in problem.positives.take(fold.held).rows.ravel()}
        assert not (asked | held) & {documents[row] for row in fold.pool}
        assert not held & {documents[row] for row in problem.positives.take(fold.train).rows.ravel()}
    assert sorted(np.concatenate([fold.held for fold in problem.folds])) == list(range(len(problem.queries)))


def test_an_average_is_the_mean_of_outputs() -> None:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    parts = [
        Adapter("linear", 6, 6, skip=draw(6, 6)),
        Adapter("low-rank", 6, 6, down=draw(2, 6), up=draw(6, 2)),
        Adapter("mlp", 6, 6, down=draw(3, 6), down_bias=draw(3), up=draw(6, 3), activation="relu"),
    ]
    x = draw(7, 6)
    low, mlp = parts[1].matrix(), parts[2]
    assert mlp.down is not None and mlp.up is not None and mlp.down_bias is not None
    hidden = np.maximum(x @ mlp.down.T + mlp.down_bias, 0)
    outputs = [x @ parts[0].matrix().T, x @ low.T, x + hidden @ mlp.up.T]
    np.testing.assert_allclose(average(parts).apply(x), unit(np.mean(outputs, axis=0)), atol=1e-5)
    np.testing.assert_allclose(average(parts[:2]).apply(x), unit(np.mean(outputs[:2], axis=0)), atol=1e-5)


def test_the_ladder_helps_where_there_is_something_to_learn(tmp_path: Path) -> None:
    dataset, embedder = turned_space()
    result = tune_adapter(dataset, tmp_path / "out", embedder)
    adapter = load_adapter(tmp_path / "out").adapter
    assert result.dev_after > result.dev_before
    assert test_score(dataset, embedder, adapter) > test_score(dataset, embedder) + 0.05
    marker = json.loads((tmp_path / "out" / "vectune.json").read_text())
    assert (marker["kind"], marker["base"], marker["base_fingerprint"]) == ("adapter", "table", embedder.fingerprint)
    opened = open_artifact(tmp_path / "out", lambda name: embedder)
    text = next(iter(dataset.queries.values())).text
    np.testing.assert_allclose(opened.embed_queries([text]), adapter.apply(embedder.embed_queries([text])))


def test_the_same_seed_gives_the_same_adapter() -> None:
    dataset, embedder = turned_space()
    queries, documents = embed_dataset(dataset, embedder)
    first, second = (climb(dataset, queries, documents, seed=3).adapter for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_where_nothing_can_be_learnt_the_base_is_the_result() -> None:
    dataset, embedder = turned_space()
    rng = np.random.default_rng(1)
    for query in dataset.queries.values():  # queries that have nothing to do with their chunks
        embedder.table[query.text] = unit(rng.normal(size=embedder.dim))
    climbed = climb(dataset, *embed_dataset(dataset, embedder))
    assert climbed.after >= climbed.before and climbed.dev_after >= climbed.dev_before


def test_few_pairs_get_closed_forms_and_are_told_so(tmp_path: Path) -> None:
    dataset, embedder = turned_space(documents=9, chunks=2, queries=1)
    assert len(dataset.split("train")) < 20
    result = tune_adapter(dataset, tmp_path / "out", embedder)
    assert any("under 20" in note for note in result.notes)
    assert {s["rung"] for s in result.chosen["settings"]} <= {"identity", "whitening", "ridge"}
    assert result.dev_after >= result.dev_before


@pytest.mark.parametrize("pairs", [1, 2])
def test_one_or_two_pairs_do_not_break_it(pairs: int, tmp_path: Path) -> None:
    dataset, embedder = turned_space(documents=9, chunks=2, queries=1)
    train_pairs = dict(list(dataset.split("train").items())[:pairs])
    result = tune_adapter(replace(dataset, qrels={"train": train_pairs}), tmp_path / "out", embedder)
    assert any(f"only {pairs} queries" in note for note in result.notes)


def test_queries_that_are_all_alike_are_told() -> None:
    dataset, embedder = turned_space()
    for query in dataset.queries.values():
        embedder.table[query.text] = unit(np.ones(embedder.dim))
    climbed = climb(dataset, *embed_dataset(dataset, embedder))
    assert all(setting.rung is None for setting in climbed.settings)


def test_without_train_judgments_it_says_so(tmp_path: Path) -> None:
    dataset, embedder = turned_space()
    with pytest.raises(DatasetError, match="no judgments for the split 'train'"):
        tune_adapter(replace(dataset, qrels={"test": dataset.qrels["test"]}), tmp_path / "out", embedder)
    assert not list(tmp_path.glob("*out*"))


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    dataset, embedder = turned_space(documents=12)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="vectune did not write it"):
        tune_adapter(dataset, tmp_path, embedder)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_each_text_is_embedded_once() -> None:
    dataset, embedder = turned_space()
    embed_dataset(dataset, embedder)
    asked = len(embedder.asked)
    climb(dataset, *embed_dataset(dataset, embedder))
    assert len(embedder.asked) == 2 * asked  # climbing itself asks for nothing


def test_small_matrices_take_one_thread_and_the_number_before_comes_back() -> None:
    import torch

    from vectune.training.ladder import SMALL, few_threads

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), few_threads(np.arange(10), 384):
            assert torch.get_num_threads() == 1
            raise KeyError
        with few_threads(np.arange(SMALL), 2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(4))
def test_documents_that_are_alike_but_for_rounding_have_no_directions(seed: int) -> None:
    one = np.random.default_rng(seed).normal(size=384).astype(np.float32)
    geometry = Geometry.of(np.tile(one / np.linalg.norm(one), (5, 1)))
    np.testing.assert_array_equal(geometry.variances, 1)
    np.testing.assert_allclose(geometry.whitening(0.5), np.eye(384), atol=1e-6)
