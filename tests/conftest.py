"""Fixtures that test modules share. ``tiny_bert``, ``tiny_decoder``, ``tiny_static``: folders of tiny models."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: tests never reach for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny products: more threads than that wait for each other

import models  # tests/models.py: pytest puts this folder on the path
from calling import Run, caller

gc.set_threshold(50_000, 20, 50)  # a tenth of the time went into looking again and again at what stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a cache folder of its own."""
    folder = tmp_path / "vectune-cache"
    monkeypatch.setenv("VECTUNE_CACHE", str(folder))
    yield folder


@pytest.fixture
def vectune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line; see ``calling.caller``."""
    return caller(monkeypatch, capsys)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_decoder(tmp_path_factory.mktemp("models") / "tiny-decoder")


@pytest.fixture(scope="session")
def tiny_static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_static(tmp_path_factory.mktemp("models") / "tiny-static")
