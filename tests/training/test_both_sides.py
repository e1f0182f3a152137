"""Maps of queries and of stored vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spaces import TableEmbedder, turned_space, unit
from vectune.adapters import load_adapter
from vectune.dataset import RetrievalDataset
from vectune.errors import UsageError
from vectune.training.adapter import LadderOptions, tune_adapter
from vectune.training.methods import method_for
from vectune.training.options import TuneOptions
from vectune.training.problem import Positives, judged_rows, ndcg_at_10

BOTH = LadderOptions(both_sides=True)


def shared_direction() -> tuple[RetrievalDataset, TableEmbedder]:
    """Documents with different amounts of a direction that tells nothing, and so with different lengths of the rest.

    A map of queries can only leave the direction out; a map of documents brings the rest to one length.
    """
    dataset, plain = turned_space(dim=16, noise=0.4)
    rng = np.random.default_rng(3)
    contents = {chunk.content for chunk in dataset.corpus.values()}
    table = {}
    for text, vector in plain.table.items():
        amount = rng.choice([0.0, 1.0, 4.0]) if text in contents else 1.0
        table[text] = unit(np.append(vector, amount))
    return dataset, TableEmbedder("shared", table)


def on_test(dataset: RetrievalDataset, embedder: TableEmbedder, folder: Path, sides: int) -> float:
    stored = load_adapter(folder)
    rows = {key: row for row, key in enumerate(dataset.corpus)}
    positives = Positives.of(judged_rows(dataset.split("test"), rows))
    queries = embedder.embed_queries([query.text for query in dataset.queries_of("test")])
    documents = embedder.embed_documents([chunk.content for chunk in dataset.corpus.values()])
    if sides == 2:
        assert stored.document is not None
        documents = stored.document.apply(documents)
    return float(ndcg_at_10(stored.adapter.apply(queries) @ documents.T, positives).mean())


def test_stored_vectors_are_mapped_where_that_finds_more(tmp_path: Path) -> None:
    dataset, embedder = shared_direction()
    alone = tune_adapter(dataset, tmp_path / "alone", embedder)
    both = tune_adapter(dataset, tmp_path / "both", embedder, options=BOTH)
    assert both.dev_after >= alone.dev_after
    assert any("must pass through the adapter's document side" in note for note in both.notes)
    found = on_test(dataset, embedder, tmp_path / "both", 2)
    assert found > on_test(dataset, embedder, tmp_path / "alone", 1) + 0.02


def test_they_stay_where_queries_alone_do_as_well(tmp_path: Path) -> None:
    dataset, embedder = turned_space(noise=0.1)
    result = tune_adapter(dataset, tmp_path / "out", embedder, options=BOTH)
    assert load_adapter(tmp_path / "out").document is None
    assert any("stored vectors may stay as they are" in note for note in result.notes)


def test_with_too_few_pairs_it_is_not_tried(tmp_path: Path) -> None:
    dataset, embedder = turned_space()
    few = dict(list(dataset.qrels["train"].items())[:12])
    tune_adapter(replace(dataset, qrels={"train": few}), tmp_path / "out", embedder, options=BOTH)
    assert load_adapter(tmp_path / "out").document is None


def test_queries_of_one_chunk_leave_nothing_to_hold_out(tmp_path: Path) -> None:
    dataset, embedder = turned_space(documents=2, chunks=1, queries=30)
    tune_adapter(dataset, tmp_path / "out", embedder, options=BOTH)
    assert load_adapter(tmp_path / "out").document is None


@pytest.mark.parametrize("options", [TuneOptions(method="full"), TuneOptions(method="adapter", keep_index=True)])
def test_other_methods_have_no_second_side(options: TuneOptions) -> None:
    dataset, _ = turned_space()
    with pytest.raises(UsageError, match="--both-sides"):
        method_for(dataset, replace(options, both_sides=True))
