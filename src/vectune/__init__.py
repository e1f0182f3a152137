"""From a folder of documents to an embedding model that retrieves them better, with proof.

The stages as functions: ``prepare``, ``tune``, ``evaluate``, and ``run`` for all of them. Nothing heavy is
loaded before one of them is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectune.config import Config
    from vectune.dataset import RetrievalDataset
    from vectune.errors import VectuneError
    from vectune.pipeline import evaluate, prepare, run, tune

__version__ = "0.1.0"

_HOMES = {
    "Config": "vectune.config",
    "RetrievalDataset": "vectune.dataset",
    "VectuneError": "vectune.errors",
    "evaluate": "vectune.pipeline",
    "prepare": "vectune.pipeline",
    "run": "vectune.pipeline",
    "tune": "vectune.pipeline",
}

__all__ = ["Config", "RetrievalDataset", "VectuneError", "__version__", "evaluate", "prepare", "run", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vectune' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
