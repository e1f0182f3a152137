"""Runs that are killed and started again end as if nobody had killed them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiny_dataset import small_dataset, stored_dataset
from tuning import events, options, weights
from vectune.progress import Progress
from vectune.training import opening
from vectune.training.checkpoints import save_checkpoint
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions

KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny_dataset import small_dataset, stored_dataset
from vectune.progress import Progress
from vectune.training.finetune import finetune
from vectune.training.options import TuneOptions
import vectune.training.opening
vectune.training.opening.fast_bf16 = lambda device: {bf16!r}

class Killer(Progress):
    def event(self, kind, **fields):
        if kind == "train" and fields["step"] == 7:
            os.kill(os.getpid(), signal.SIGKILL)

options = TuneOptions(**{options!r})
finetune({dataset}, Path({out!r}), options, Killer(terminal=False))
"""
IN_MEMORY, ON_DISK = "small_dataset()", "stored_dataset()"


def test_killed_and_started_again_it_ends_with_the_same_bits(tiny_bert: Path, tmp_path: Path) -> None:
    kill(options(tiny_bert, checkpoint_seconds=0.0, remember=30, refresh=3), tmp_path, bf16=False)


def test_killed_with_dropout_it_draws_what_it_would_have_drawn(tiny_bert: Path, tmp_path: Path) -> None:
    kill(options(tiny_bert, checkpoint_seconds=0.0, dropout=0.1, memory_gib=0.0), tmp_path, bf16=False)


def test_killed_with_its_data_on_disk_it_ends_with_the_same_bits(tiny_bert: Path, tmp_path: Path) -> None:
    kill(options(tiny_bert, checkpoint_seconds=0.0), tmp_path, bf16=False, dataset=ON_DISK)


def test_a_second_start_keeps_the_arithmetic_that_the_first_one_measured(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([True, False])  # the clock of a loaded machine: bf16 when the whole run starts, fp32 at the end
    monkeypatch.setattr(opening, "fast_bf16", lambda device: next(measured))
    kill(options(tiny_bert, checkpoint_seconds=0.0, precision="auto"), tmp_path, bf16=True)


def kill(wanted: TuneOptions, tmp_path: Path, bf16: bool, dataset: str = IN_MEMORY) -> None:
    """Compare a run that is killed in its seventh step and started again with one that is left alone."""
    data = small_dataset() if dataset == IN_MEMORY else stored_dataset()
    whole = finetune(data, tmp_path / "whole", wanted)
    script = KILLED.format(
        tests=str(Path(__file__).parents[1]), options=vars(wanted), out=str(tmp_path / "killed"), bf16=bf16,
        dataset=dataset,
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, timeout=300)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    assert (tmp_path / ".killed.work" / "checkpoint").is_dir()
    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    again = finetune(data, tmp_path / "killed", wanted, progress)
    assert events(progress, "train")[0]["step"] == 7  # six steps were not done again
    assert (again.dev_after, again.chosen) == (whole.dev_after, whole.chosen)
    one, two = weights(whole.path), weights(again.path)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_of_other_options_is_said_to_be_dropped(tiny_bert: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "work" / "checkpoint", "another key", {"state": {}}, {"model.a": torch.zeros(1)})
    progress = Progress(tmp_path / "events.jsonl", terminal=False)
    finetune(small_dataset(), tmp_path / "out", options(tiny_bert, epochs=1), progress, work=tmp_path / "work")
    assert any("other data, options or weights: training anew" in one["text"] for one in events(progress, "message"))
