"""Curves as TensorBoard itself reads them back."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiny_dataset import small_dataset
from vectune.progress import Progress
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions


def test_the_second_training_of_auto_follows_the_first(tiny_bert: Path, tmp_path: Path) -> None:
    options = TuneOptions(
        model=str(tiny_bert), method="auto", precision="fp32", epochs=1, rate=1e-3, batch=16, track=("tensorboard",)
    )
    finetune(small_dataset(), tmp_path / "out", options, Progress(terminal=False))
    written = EventAccumulator(str(tmp_path / "tensorboard" / "out"))
    written.Reload()
    assert {"train/loss", "train/rate", "train/pairs", "dev/value"} <= set(written.Tags()["scalars"])
    steps = [point.step for point in written.Scalars("train/loss")]
    assert len(steps) == len(set(steps)) > 2
    assert steps == list(range(1, len(steps) + 1))  # no step twice, none before an earlier one
    looks = [point.step for point in written.Scalars("dev/value")]
    assert looks == sorted(looks) and len(steps) // 2 in looks
