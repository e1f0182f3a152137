"""Several processes on one global batch, started as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_dataset import small_dataset, stored_dataset
from tuning import close, options
from vectune.training.finetune import finetune

ON_DISK, FEW = "stored_dataset()", "small_dataset(6)"
RANK = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from tiny_dataset import small_dataset, stored_dataset
from vectune.config import Config
from vectune.pipeline import tune
from vectune.training.options import TuneOptions
options = TuneOptions(**{options!r})
tune({dataset}, Path({out!r}), Config(model=options.model, tune=options))  # as the command does: locks and all
torch.distributed.destroy_process_group()
"""


@pytest.mark.long
@pytest.mark.parametrize(("dataset", "count", "batch"), [(ON_DISK, 2, 16), (FEW, 3, 2)])
def test_several_processes_make_the_steps_of_one(
    tiny_bert: Path, tmp_path: Path, dataset: str, count: int, batch: int
) -> None:
    import socket

    refresh = 0 if dataset == ON_DISK else 1
    wanted = options(tiny_bert, epochs=1, patience=0, remember=30, refresh=refresh, batch=batch)
    data = stored_dataset() if dataset == ON_DISK else small_dataset(6)
    one = finetune(data, tmp_path / "one", wanted)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = RANK.format(
        tests=str(Path(__file__).parents[1]), options=vars(wanted), out=str(tmp_path / "two"), dataset=dataset
    )
    env = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen([sys.executable, "-c", script], env={**env, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(count)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=300)
        assert rank.returncode == 0, said.decode()[-2000:]
    marker = json.loads((tmp_path / "two" / "vectune.json").read_text())
    assert marker["dev"]["after"] == pytest.approx(one.dev_after, abs=1e-4)
    assert close(one.path, tmp_path / "two", atol=1e-4)
    assert not close(one.path, tiny_bert, atol=1e-3)
