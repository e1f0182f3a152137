"""open_embedder on folders that somebody edited; each kind's own files are in the tests of that kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vectune.embedders.factory import open_embedder
from vectune.errors import ModelError


def marked(folder: Path, **marker: Any) -> Path:
    folder.mkdir()
    (folder / "vectune.json").write_text(json.dumps(marker))
    return folder


def test_a_base_that_is_the_folder_itself(tmp_path: Path) -> None:
    folder = marked(tmp_path / "adapter", kind="adapter", base=str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="leads back to the folder itself"):
        open_embedder(folder)


def test_a_bridge_that_names_no_old_model(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="document_base is missing"):
        open_embedder(marked(tmp_path / "bridge", kind="bridge", base=str(tiny_bert)))


def test_settings_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models: is no table"):
        open_embedder(marked(tmp_path / "adapter", kind="adapter", base="openai:small", models=[1]))


def test_a_tuned_model_without_its_list_of_modules(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json is missing"):
        open_embedder(marked(tmp_path / "full", kind="full", base="any"))
