"""Options for a tuning that takes seconds, and what became of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vectune.progress import Progress
from vectune.training.options import TuneOptions


def options(model: Path, **given: Any) -> TuneOptions:
    return TuneOptions(**{"model": str(model), "precision": "fp32", "epochs": 3, "rate": 1e-3, "batch": 16, **given})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def close(one: Path, two: Path, atol: float) -> bool:
    """Whether two models' weights agree. The biases of keys have no gradient but rounding, which Adam blows up."""
    first, second = weights(one), weights(two)
    names = [name for name in first if "key.bias" not in name]
    return all(torch.allclose(first[name], second[name], atol=atol) for name in names)


def events(progress: Progress, kind: str) -> list[dict[str, Any]]:
    assert progress.events is not None
    lines = [json.loads(line) for line in progress.events.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]
