"""open_embedder on folders that somebody edited; each kind's own files are in the tests of that kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets_made import make_dataset
from vectune.bridge import build_bridge
from vectune.embedders.factory import open_embedder
from vectune.errors import ModelError
from vectune.training.adapter import tune_adapter
from vectune.training.blend import tune_blend
from vectune.training.query import tune_keeping_index, tune_query_encoder
from vectune.words import WordFit


def marked(folder: Path, **marker: Any) -> Path:
    folder.mkdir()
    (folder / "vectune.json").write_text(json.dumps(marker))
    return folder


def test_a_base_that_is_the_folder_itself(tmp_path: Path) -> None:
    folder = marked(tmp_path / "adapter", kind="adapter", base=str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="leads back to the folder itself"):
        open_embedder(folder)


@pytest.mark.parametrize("first", [tune_adapter, tune_blend], ids=["adapter", "blend"])
def test_what_is_made_over_an_artifact_opens_from_anywhere(
    first: Any, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset()
    contents = [chunk.content for chunk in dataset.corpus.values()]
    plain = open_embedder(str(tiny_bert))
    monkeypatch.chdir(tmp_path)
    first(dataset, Path("first"), plain, 0)
    base = open_embedder("first")
    for tune in (tune_adapter, tune_blend, tune_keeping_index):
        tune(dataset, tmp_path / tune.__name__, base, 0)
    build_bridge(plain, base, dataset, tmp_path / "bridge")
    build_bridge(base, plain, dataset, tmp_path / "back")
    monkeypatch.chdir("/")
    for tune in (tune_adapter, tune_keeping_index):
        over = open_embedder(tmp_path / tune.__name__)
        np.testing.assert_allclose(over.embed_documents(contents), base.embed_documents(contents), atol=1e-6)
        assert not list((tmp_path / tune.__name__).rglob("modules.json"))  # a model without the first artifact
    assert open_embedder(tmp_path / "tune_blend").embed_queries(["river"]).shape[1] > base.dim
    assert open_embedder(tmp_path / "bridge").dim == plain.dim
    assert open_embedder(tmp_path / "back").dim == base.dim


def test_a_query_encoder_is_not_trained_under_an_artifact(tmp_path: Path, tiny_bert: Path) -> None:
    """It would be the base's, and the artifact's vectors another's."""
    tune_adapter(make_dataset(), tmp_path / "first", open_embedder(str(tiny_bert)), 0)
    with pytest.raises(ModelError, match="trains a local model's weights"):
        tune_query_encoder(make_dataset(), tmp_path / "out", open_embedder(tmp_path / "first"), 0)


def test_a_bridge_that_names_no_old_model(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="document_base is missing"):
        open_embedder(marked(tmp_path / "bridge", kind="bridge", base=str(tiny_bert)))


def test_a_bridge_whose_queries_words_count(tmp_path: Path, tiny_bert: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "other")
    prompts = tmp_path / "other" / "config_sentence_transformers.json"
    prompts.write_text(prompts.read_text().replace('"query": "', '"query": "please '))
    base, other = open_embedder(str(tiny_bert)), open_embedder(str(tmp_path / "other"))
    dataset, folder = make_dataset(), tmp_path / "bridge"
    build_bridge(base, other, dataset, folder)
    marker = json.loads((folder / "vectune.json").read_text())
    (folder / "vectune.json").write_text(json.dumps({**marker, "words": False}))
    plain = open_embedder(folder)
    (folder / "vectune.json").write_text(json.dumps({**marker, "words": True}))
    (folder / "words.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"words\.json"):
        open_embedder(folder)
    contents = [chunk.content for chunk in dataset.corpus.values()]
    words = WordFit(contents, base.embed_documents(contents)).fit(0.4)
    words.save(folder)
    served, asked = open_embedder(folder), ["the bridge over the river", "invoice tax"]
    np.testing.assert_allclose(served.embed_queries(asked), words.apply(plain.embed_queries(asked), asked), atol=1e-6)
    np.testing.assert_array_equal(served.embed_documents(asked), base.embed_documents(asked))
    assert served.fingerprint != plain.fingerprint


def test_settings_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models: is no table"):
        open_embedder(marked(tmp_path / "adapter", kind="adapter", base="openai:small", models=[1]))


def test_a_tuned_model_without_its_list_of_modules(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json is missing"):
        open_embedder(marked(tmp_path / "full", kind="full", base="any"))


def test_a_base_that_was_typed_relatively_or_moved_along_is_found(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(tiny_bert, project / "mini")
    monkeypatch.chdir(project)
    tune_adapter(make_dataset(), project / "out" / "tuned", open_embedder("./mini", cache=False))
    expected = open_embedder("out/tuned", cache=False).embed_queries(["a question"])
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(open_embedder(project / "out" / "tuned", cache=False).embed_queries(["a question"]), expected)
    project.rename(tmp_path / "moved")
    tuned = tmp_path / "moved" / "out" / "tuned"
    assert np.array_equal(open_embedder(tuned, cache=False).embed_queries(["a question"]), expected)
    shutil.rmtree(tmp_path / "moved" / "mini")
    with pytest.raises(ModelError, match=r"tuned/vectune\.json: its base, .*/project/mini, is gone"):
        open_embedder(tuned, cache=False)
