from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from datasets_made import make_dataset
from vectune.errors import DatasetError
from vectune.records import Query
from vectune.training.teacher import TeacherOptions, dataset_of_log, label_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectune.protocols import Vectors

DATASET = make_dataset(20, 2)
CHUNKS = list(DATASET.corpus.values())
LOG = [Query(" ".join(chunk.text.split()[:8]), "log") for chunk in CHUNKS[:10]]


class Pointing:
    """An embedder that finds the chunk each logged query was cut from, or the one after it."""

    name, dim, fingerprint = "pointing", len(CHUNKS), "pointing"

    def __init__(self, off: int = 0) -> None:
        self.off = off

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return np.eye(self.dim, dtype=np.float32)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        places = [next((i for i, query in enumerate(LOG) if query.text == text), 30) for text in texts]
        return np.eye(self.dim, dtype=np.float32)[[(place + self.off) % self.dim for place in places]]


def test_agreement_gives_the_label() -> None:
    found = label_queries(DATASET.corpus, LOG, Pointing())
    assert found == {query.id: {CHUNKS[place].id: 1} for place, query in enumerate(LOG)}


def test_no_agreement_gives_none() -> None:
    assert label_queries(DATASET.corpus, LOG, Pointing(off=20), TeacherOptions(agree=1)) == {}
    with pytest.raises(DatasetError, match="agree on none of the 1 queries"):
        dataset_of_log(DATASET.corpus, [Query("unheard of")], Pointing())


def test_a_log_becomes_a_train_split() -> None:
    dataset = dataset_of_log(DATASET.corpus, [*LOG, Query("unheard of")], Pointing())
    assert dataset.generated and len(dataset.split("train")) == 10
    assert dataset.info["log"] == {"queries": 11, "labelled": 10}
    assert set(dataset.queries) == set(dataset.qrels["train"])
