"""Settings of models behind an API: checked in a table, kept with what was tuned over them, put together again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiny_dataset import small_dataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.embedders.settings import check_models, decisive, kept_settings, options_from, settings_of, to_keep
from vectune.errors import FingerprintError, ModelError, UsageError
from vectune.testing import OpenAIServer
from vectune.training.methods import tune_with
from vectune.training.options import TuneOptions

NAME = "openai:small"
ROLES = EmbedOptions(query_fields={"input_type": "query"}, document_fields={"input_type": "passage", "cut": False})
FILE = Path("my-adapter/vectune.json")


def test_a_model_has_the_line_of_its_name_in_a_table() -> None:
    assert settings_of(NAME, {NAME: ROLES}) is ROLES
    assert settings_of("openai:other", {NAME: ROLES}) == DEFAULTS
    assert settings_of("openai:other", ROLES) is ROLES


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small", ROLES, "begin with openai:"),
        (NAME, EmbedOptions(api_key="secret"), "a key is not read from a configuration"),
        (NAME, EmbedOptions(max_length=9), "max_length: is a local model's"),
    ],
)
def test_a_table_that_makes_no_sense(name: str, options: EmbedOptions, message: str) -> None:
    check_models({NAME: ROLES})
    with pytest.raises(UsageError, match=message):
        check_models({name: options})


def test_what_is_kept_comes_back_but_for_the_key() -> None:
    kept = json.loads(json.dumps(to_keep(EmbedOptions(**{**vars(ROLES), "api_key": "secret", "dimensions": 8}))))
    assert "secret" not in str(kept)
    assert options_from(kept, "") == EmbedOptions(**{**vars(ROLES), "dimensions": 8})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "holds no settings"),
        ({"dimension": 8}, "no setting dimension; did you mean dimensions"),
        ({"dimensions": "many"}, "dimensions: "),
    ],
)
def test_settings_edited_by_hand(values: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        options_from(values, "here")


def test_what_is_given_goes_over_what_is_kept() -> None:
    marker = {"models": {NAME: {**to_keep(ROLES), "base_url": "http://127.0.0.1:1/v1", "timeout": 9.0}}}
    found = kept_settings(NAME, marker, {NAME: EmbedOptions(timeout=5.0)}, FILE)
    assert isinstance(found, EmbedOptions)
    assert (found.base_url, found.timeout, found.query_fields) == ("http://127.0.0.1:1/v1", 5.0, ROLES.query_fields)
    assert kept_settings("openai:other", marker, ROLES, FILE) is ROLES


def test_an_address_elsewhere_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    marker = {"models": {NAME: {"base_url": "https://elsewhere.example/v1"}}}
    with pytest.raises(UsageError, match=r"at https://elsewhere\.example/v1\. A key is not sent"):
        kept_settings(NAME, marker, {}, FILE)
    given = kept_settings(NAME, marker, EmbedOptions(base_url="https://mine.example/v1"), FILE)
    assert given == EmbedOptions(base_url="https://mine.example/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://mine.example/v1")
    assert kept_settings(NAME, marker, {}, FILE) == DEFAULTS


def test_only_what_changes_vectors_decides_about_a_stage() -> None:
    assert decisive(NAME, {}) == decisive("", {}) == ()
    assert decisive(NAME, {NAME: ROLES}) == decisive(NAME, {NAME: EmbedOptions(**{**vars(ROLES), "concurrency": 1})})
    assert decisive(NAME, {NAME: ROLES}) != decisive(NAME, {NAME: EmbedOptions(dimensions=8)})


def test_an_adapter_over_an_api_is_tuned_further_with_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with OpenAIServer(dim=24) as server:
        models = {NAME: EmbedOptions(base_url=server.base_url)}
        tune_with(small_dataset(), tmp_path / "one", TuneOptions("adapter", model=NAME), models=models)
        marker = json.loads((tmp_path / "one" / "vectune.json").read_text())
        marker["models"][NAME]["base_url"] = "https://elsewhere.example/v1"  # nobody follows what a folder says
        (tmp_path / "one" / "vectune.json").write_text(json.dumps(marker))
        further = TuneOptions("adapter", model=str(tmp_path / "one"))
        assert tune_with(small_dataset(), tmp_path / "two", further, models=models).path == tmp_path / "two"


@pytest.mark.parametrize("method", ["adapter", "blend", "auto"])
def test_what_was_tuned_over_an_api_opens_with_the_same_requests(method: str, tmp_path: Path) -> None:
    with OpenAIServer(dim=24) as server:
        models = {NAME: EmbedOptions(**{**vars(ROLES), "base_url": server.base_url})}
        options = TuneOptions(method=method, keep_index=method == "auto", model=NAME)  # type: ignore[arg-type]
        tune_with(small_dataset(), tmp_path / "out", options, models=models)
        before = len(server.asked)
        opened = open_embedder(tmp_path / "out")
        assert opened.embed_queries(["how do I open a glacier"]).shape == (1, opened.dim)
        opened.embed_documents(["the glacier"])
        asked = [asked.body for asked in server.asked[before:]]
        assert [body.get("input_type") for body in asked] == ["query", "passage"]
        assert np.allclose(np.linalg.norm(opened.embed_documents(["the glacier"]), axis=1), 1, atol=1e-5)
        with pytest.raises(FingerprintError, match="does not fit"):
            open_embedder(tmp_path / "out", {NAME: EmbedOptions(query_fields={"input_type": "other"})})


def test_a_model_in_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"one")
    before = decisive(str(tmp_path), {})
    assert before and before == decisive(str(tmp_path), {})
    (tmp_path / "weights").write_bytes(b"another")
    assert decisive(str(tmp_path), {}) != before
