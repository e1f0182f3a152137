"""The state of a run on disk: what a killed run needs to go on as if nothing had happened.

Tensors are in safetensors, the rest in JSON; a checkpoint is a folder that appears whole or not at all. Data order and
negatives need no random state: an epoch is a function of the seed and its number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vectune.runs import Json, restore, writing

STATE = "state.json"


def save_checkpoint(folder: Path, key: str, state: Json, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint in place of the one before.

    Args:
        folder: its folder.
        key: hash of everything the run depends on; another key makes it worthless.
        state: counters, scores, plans.
        tensors: weights and moments; the word before the first dot of a name is the file it goes into.
    """
    with writing(folder) as beside:
        beside.mkdir(parents=True)
        for kind in sorted({name.partition(".")[0] for name in tensors}):  # one at a time: each is copied to be written
            part = {name: t.detach().cpu().contiguous() for name, t in tensors.items() if name.startswith(f"{kind}.")}
            save_file(part, beside / f"{kind}.safetensors")
        (beside / STATE).write_text(json.dumps({"key": key, **state}), encoding="utf-8")


def load_checkpoint(
    folder: Path, key: str, device: torch.device | str = "cpu"
) -> tuple[Json, dict[str, Tensor]] | None:
    """The last checkpoint of this very run, its tensors on a device; None when there is none."""
    restore(folder, alone=True)  # killed between two renames: the older one is whole
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if state.pop("key", None) != key:
        return None
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file, device=str(device))
    return state, tensors


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of every parameter, under names by position."""
    found = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{number}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave, on the parameters' device: a fused step counts there, too."""
    for number, parameter in enumerate(_parameters(optimizer)):
        prefix = f"optimizer.{number}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if own:
            optimizer.state[parameter] = own


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
