"""The methods by name: what ``tune`` does for each."""

from __future__ import annotations

from pathlib import Path

from vectune.dataset import RetrievalDataset
from vectune.progress import SILENT, Progress
from vectune.training.options import TuneOptions
from vectune.training.result import TuneResult


def tune_with(
    dataset: RetrievalDataset,
    out: Path,
    options: TuneOptions = TuneOptions(),
    progress: Progress = SILENT,
    work: Path | None = None,
) -> TuneResult:
    """Tune by the method that the options name; arguments, result and errors as in ``finetune``."""
    from vectune.training.finetune import finetune

    return finetune(dataset, out, options, progress, work)


def explain(dataset: RetrievalDataset, options: TuneOptions) -> list[tuple[str, str, str]]:
    """What would be chosen for this dataset: what, its value, and why; trains nothing."""
    from vectune.splits import with_dev
    from vectune.training.data import TrainingData
    from vectune.training.defaults import settle

    data = TrainingData.of(with_dev(dataset, options.seed))
    return list(settle(options, len(data.queries), sum(map(len, data.positives)), int(data.pool.sum())).why)
