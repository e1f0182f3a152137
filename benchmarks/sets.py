"""The seven sets that the benchmarks measure on, and how each is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vectune.dataset import RetrievalDataset
from vectune.splits import with_dev

SETS = ("lyft_uber", "legalbenchrag", "covid_qa", "emanual", "stackexchange", "chunking_eval", "squad")
SAMPLE = 2000  # train queries; only squad has more, and is cut to a fixed sample of so many for everybody


def load(data: Path, name: str) -> RetrievalDataset:
    """A set with its dev split, cut from train by document."""
    dataset = RetrievalDataset.read(data / name)
    train = dataset.split("train")
    if len(train) > SAMPLE:
        names = sorted(train)
        picked = np.random.default_rng(0).choice(len(names), SAMPLE, replace=False)
        dataset.qrels["train"] = {names[i]: train[names[i]] for i in sorted(picked)}
    return with_dev(dataset)
