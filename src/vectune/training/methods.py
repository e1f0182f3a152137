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
