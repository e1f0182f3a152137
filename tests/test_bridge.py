from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spaces import TableEmbedder, turned_space, unit
from vectune.adapters import AdaptedEmbedder, SplitEmbedder, identity, load_adapter, open_artifact
from vectune.bridge import MOVED, BridgeOptions, _Dev, build_bridge
from vectune.dataset import RetrievalDataset
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import DatasetError, FingerprintError, UsageError
from vectune.runs import write_json
from vectune.splits import with_dev
from vectune.training.problem import Positives, judged_rows, ndcg_at_10, trained_queries
from vectune.training.spaces import TwoSpaces, _fold_score, pieces_of
from vectune.words import WordMap

HALF = BridgeOptions(sample=0.5)


def moved(old: TableEmbedder, dim: int, seed: int = 1, noise: float = 0.1) -> TableEmbedder:
    """The same texts in another space: a linear image of the old one, and noise."""
    rng = np.random.default_rng(seed)
    near = np.eye(old.dim) if dim == old.dim else np.zeros((dim, old.dim))
    image = near + rng.normal(size=(dim, old.dim)) / old.dim**0.5
    table = {text: unit(image @ v + noise * rng.normal(size=dim) / dim**0.5) for text, v in old.table.items()}
    return TableEmbedder(f"new-{dim}", table)


@pytest.mark.parametrize(("dim", "share"), [(16, 0.8), (24, 0.8), (12, 0.7)], ids=["same", "wider", "narrower"])
def test_new_queries_find_what_they_are_to_find(dim: int, share: float, tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.1)
    new = moved(old, dim)
    found = build_bridge(old, new, dataset, tmp_path / "out", 0, HALF)
    contents = [chunk.content for chunk in dataset.corpus.values()]
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    positives = Positives.of(judged_rows(dataset.split("test"), rows))
    queries = new.embed_queries([query.text for query in dataset.queries_of("test")])
    stored, all_new = old.embed_documents(contents), new.embed_documents(contents)
    truth = ndcg_at_10(queries @ all_new.T, positives).mean()
    assert ndcg_at_10(found.query.apply(queries) @ stored.T, positives).mean() > share * truth
    moved_index = found.document.apply(stored)
    assert ndcg_at_10(found.moved.apply(queries) @ moved_index.T, positives).mean() > 0.85 * truth
    assert (found.moved.dim_in, found.moved.dim_out) == (dim, dim)
    assert found.query.dim_out == old.dim and found.document.dim_out == dim
    if dim != old.dim:
        assert any("has not been measured" in note for note in found.notes)


def test_only_the_sample_is_embedded_by_the_new_model(tmp_path: Path) -> None:
    dataset, old = turned_space(documents=120)
    new = moved(old, 16)
    found = build_bridge(old, new, dataset, tmp_path / "out", 0, BridgeOptions(sample=0.2))
    contents = {chunk.content for chunk in dataset.corpus.values()}
    asked = [text for text in new.asked if text in contents]
    assert len(asked) == len(set(asked)) == found.sampled == round(0.2 * len(contents))


def test_its_folder_serves_new_queries_on_the_old_index(tmp_path: Path) -> None:
    dataset, old = turned_space()
    new = moved(old, 24)
    found = build_bridge(old, new, dataset, tmp_path / "out", 0, HALF)
    served = open_artifact(tmp_path / "out", lambda name: {"table": old, "new-24": new}[name])
    assert isinstance(served, SplitEmbedder) and served.untuned is old  # the map was fitted on dev as well
    text = next(iter(dataset.queries.values())).text
    np.testing.assert_allclose(served.embed_queries([text]), found.query.apply(new.embed_queries([text])))
    np.testing.assert_array_equal(served.embed_documents([text]), old.embed_documents([text]))
    stored = load_adapter(tmp_path / "out").document
    assert stored is not None and stored.fingerprint == found.document.fingerprint
    beside = load_adapter(tmp_path / "out" / MOVED)
    assert beside.adapter.fingerprint == found.moved.fingerprint and beside.document is not None
    with pytest.raises(FingerprintError):
        open_artifact(tmp_path / "out", lambda name: moved(old, 24, seed=9) if name == "new-24" else old)


def test_dev_says_what_is_kept_and_what_is_weak(tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.1)
    found = build_bridge(old, moved(old, 16), dataset, tmp_path / "out", 0, BridgeOptions(sample=0.9))
    assert set(found.dev) == {"old", "new", "bridge", "moved"}
    assert set(found.weak["chunks"]) <= set(dataset.corpus)
    same = replace(found, dev={"old": 0.5, "new": 0.7, "bridge": 0.6, "moved": 0.4})
    assert same.kept() == pytest.approx(0.5) and same.kept("moved") == pytest.approx(-0.5)
    assert replace(found, dev={"old": 0.5, "new": 0.5, "bridge": 0.5, "moved": 0.5}).kept() is None


def test_a_new_model_of_noise_is_told_and_old_queries_serve_on(tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.05)
    rng = np.random.default_rng(0)
    new = TableEmbedder("noise", {text: unit(rng.normal(size=16)) for text in old.table})
    found = build_bridge(old, new, dataset, tmp_path / "out", 0, HALF)
    assert not found.gains and any("serves old queries" in note for note in found.notes)
    served = open_artifact(tmp_path / "out", lambda name: {"table": old, "noise": new}[name])
    assert isinstance(served, SplitEmbedder) and served.untuned is None
    text = next(iter(dataset.queries.values())).text
    np.testing.assert_array_equal(served.embed_queries([text]), old.embed_queries([text]))


def named(dataset: RetrievalDataset, old: TableEmbedder, rare: bool) -> tuple[RetrievalDataset, TableEmbedder]:
    """The same vectors, and a word that chunks share with their queries (``rare``: each chunk has its own)."""
    table = {}

    def word(key: str) -> str:
        return "".join(chr(ord("a") + int(digit)) for digit in key if digit.isdigit()) + "q" if rare else "thing"

    corpus, queries = {}, {}
    for key, chunk in dataset.corpus.items():
        corpus[key] = replace(chunk, text=f"{chunk.text} {word(key)}")
        table[corpus[key].content] = old.table[chunk.content]
    for judged in dataset.qrels.values():
        for query, grades in judged.items():
            text = f"{dataset.queries[query].text} {word(next(iter(grades)))}"
            queries[query] = replace(dataset.queries[query], text=text)
            table[text] = old.table[dataset.queries[query].text]
    return replace(dataset, corpus=corpus, queries=queries), TableEmbedder("table", table)


@pytest.mark.parametrize("rare", [True, False], ids=["telling words", "words that tell nothing"])
def test_words_of_queries_count_where_dev_gains_by_them(rare: bool, tmp_path: Path) -> None:
    dataset, old = named(*turned_space(dim=48, noise=1.5), rare)
    new = moved(old, 48, noise=1.0)
    out = tmp_path / "out"
    found = build_bridge(old, new, dataset, out, 0, HALF)
    assert (found.words is not None) == rare == ("words" in found.index) == (out / "words.json").exists()
    if found.words is None:
        return
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    positives = Positives.of(judged_rows(dataset.split("test"), rows))
    texts = [query.text for query in dataset.queries_of("test")]
    stored = old.embed_documents([chunk.content for chunk in dataset.corpus.values()])
    plain = found.query.apply(new.embed_queries(texts))
    worded = found.words.apply(plain, texts)
    assert ndcg_at_10(worded @ stored.T, positives).mean() > ndcg_at_10(plain @ stored.T, positives).mean() + 0.1
    loaded = WordMap.load(out)
    np.testing.assert_array_equal(loaded.apply(plain, texts), worded)


def test_a_corpus_of_a_few_chunks_is_refused(tmp_path: Path) -> None:
    dataset, old = turned_space(documents=3, chunks=3)
    with pytest.raises(DatasetError, match="9 chunks are too few"):
        build_bridge(old, moved(old, 16), dataset, tmp_path / "out")


def test_pieces_are_sentences_and_windows_but_never_the_text_itself() -> None:
    text = "Press the red key twice. Then hold it for ten seconds.\nNo."
    assert pieces_of(text) == ["Press the red key twice.", "Then hold it for ten seconds."]
    words = [f"word{i}" for i in range(100)]
    windows = pieces_of(" ".join(words))
    assert windows[0] == " ".join(words[:40]) and windows[-1] == " ".join(words[90:]) and len(windows) == 4
    assert pieces_of("three short words") == [] == pieces_of("")


def test_pieces_teach_what_a_small_sample_cannot(tmp_path: Path) -> None:
    """Chunks of two sentences, whose vectors are the sentences' sum: the sample's sentences double what is known."""
    rng = np.random.default_rng(0)
    dataset, _ = turned_space(documents=40, chunks=2)
    old_table: dict[str, Any] = {}
    image = np.eye(48) + rng.normal(size=(48, 48)) / 48**0.5
    renamed = {}
    for key, chunk in dataset.corpus.items():
        first, second = (f"{chunk.content} says thing {part}." for part in "ab")
        a, b = rng.normal(size=(2, 48))
        old_table |= {first: unit(a), second: unit(b), f"{first} {second}": unit(a + b)}
        renamed[key] = replace(chunk, text=f"{first} {second}")
    for query, judged in [*dataset.qrels["train"].items(), *dataset.qrels["test"].items()]:
        content = renamed[next(iter(judged))].content
        old_table[dataset.queries[query].text] = unit(old_table[content] + 0.3 * rng.normal(size=48) / 48**0.5)
    dataset = replace(dataset, corpus=renamed)
    old = TableEmbedder("table", old_table)
    new = TableEmbedder("new", {text: unit(image @ vector) for text, vector in old_table.items()})
    contents = [chunk.content for chunk in renamed.values()]
    stored, fresh = old.embed_documents(contents), new.embed_documents(contents)
    faithful = [
        float((found.document.apply(stored) * fresh).sum(axis=1).mean())
        for pieces in (0, 2000)
        for found in [build_bridge(old, new, dataset, tmp_path / str(pieces), 0, BridgeOptions(0.5, pieces=pieces))]
    ]
    assert 1 - faithful[1] < 0.5 * (1 - faithful[0])


def test_one_model_needs_no_bridge_to_itself(tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.1)
    with pytest.raises(UsageError, match="are one model"):
        build_bridge(old, old, dataset, tmp_path / "out", 0, HALF)


@pytest.mark.parametrize("both", [False, True], ids=["queries", "both sides"])
@pytest.mark.parametrize("own", [False, True], ids=["dev is cut", "own dev"])
def test_dev_tells_nothing_of_a_model_that_was_fitted_on_it(own: bool, both: bool, tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.1)
    dataset = with_dev(dataset) if own else dataset
    new = AdaptedEmbedder(moved(old, 16), identity(16), identity(16) if both else None)
    found = build_bridge(old, new, dataset, tmp_path / "out", 0, HALF)
    assert found.dev == found.index == {} and found.gains and found.words is None
    assert any("fitted on dev's queries as well" in note for note in found.notes)
    assert not any("rough guess" in note for note in found.notes)


def test_dev_is_cut_as_the_new_models_tuning_cut_it(tmp_path: Path) -> None:
    dataset, old = turned_space(noise=0.1)
    new = moved(old, 16)
    new.name = str(tmp_path)
    write_json(tmp_path / ARTIFACT_FILE, {"kind": "full", "options": {"seed": 1}})
    wanted, other = (with_dev(dataset, seed).qrels["dev"] for seed in (1, 0))
    ground = TwoSpaces.of(old, new, dataset, 0, HALF)
    assert ground.dataset.qrels["dev"] == wanted != other
    assert "by seed 1" in ground.told[0]
    assert TwoSpaces.of(old, new, with_dev(dataset, 0), 0, HALF).told == ()


def test_memory_does_not_grow_as_queries_times_chunks() -> None:
    dataset, old = turned_space(documents=300, queries=4)
    ground = TwoSpaces.of(old, moved(old, 16), with_dev(dataset, most=1600, share=0.5), 0, BridgeOptions(sample=1.0))
    rows = {key: row for row, key in enumerate(ground.dataset.corpus)}
    positives = Positives.of(judged_rows(trained_queries(ground.dataset), rows))
    board, one = _Dev(ground, positives), np.zeros(len(positives), dtype=np.int64)
    whole = 4 * len(ground.dev) * len(ground.old)  # bytes of all scores of dev
    tracemalloc.start()
    board.of(board.new_queries, ground.new)
    _fold_score(ground, positives, np.zeros(len(ground.old), dtype=np.int64), one, 0, np.eye(16, dtype=np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ground.dev) > 1000 and peak < whole
