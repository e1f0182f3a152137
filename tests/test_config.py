"""Numbers that make no sense are refused where a configuration is read, before anything is made or paid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from vectune.bridge import BridgeOptions
from vectune.config import Config, config_from, read_config
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import options_from
from vectune.errors import ModelError, UsageError


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        ("chunks", {"tokens": 0}, "chunks.tokens: 0: expected at least 1"),
        ("chunks", {"overlap": -1}, "chunks.overlap: -1: expected at least 0"),
        ("duplicates", {"documents": 0.0}, "duplicates.documents: 0: expected more than 0"),
        ("filters", {"copied": -0.5}, "filters.copied: -0.5: expected more than 0"),
        ("filters", {"first": 0}, "filters.first: 0: expected at least 1"),
        ("queries", {"per_chunk": -1}, "queries.per_chunk: -1: expected at least"),
        ("queries", {"title": -1}, "queries.title: -1: expected at least"),
        ("llm_queries", {"queries": 0}, "llm_queries.queries: 0: expected at least 1"),
        ("llm_queries", {"two_chunks": 2.0}, "llm_queries.two_chunks: 2: expected from 0 to 1"),
        ("llm_queries", {"budget": -1.0}, "llm_queries.budget: -1: expected at least 0"),
        ("llm_queries", {"timeout": 0.0}, "llm_queries.timeout: 0: expected more than 0"),
        ("evaluate", {"hybrid_step": 1.5}, "evaluate.hybrid_step: 1.5: expected from 0 to 1"),
        ("evaluate", {"hybrid_step": 0.0}, "evaluate.hybrid_step: 0: expected more than 0"),
        ("tune", {"epochs": math.inf}, "tune.epochs: inf: expected more than 0, and not without end"),
        ("tune", {"max_minutes": math.nan}, "tune.max_minutes: nan: expected more than 0"),
        ("models", {"openai:m": {"concurrency": 0}}, "models.concurrency: 0: expected at least 1"),
        ("models", {"openai:m": {"timeout": -1.0}}, "models.timeout: -1: expected more than 0"),
    ],
)
def test_numbers_without_sense_are_refused(table: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=rf"^a file: {words}"):
        config_from({table: values}, "a file")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match=rf"^a file: seed: {seed:,}: expected from 0 to 4,294,967,295"):
        config_from({"seed": seed}, "a file")


@pytest.mark.parametrize("line", ["seed = 3", "model = 'another'"])
def test_what_counts_for_all_parts_stands_on_top(tmp_path: Path, line: str) -> None:
    file = tmp_path / "options.toml"
    file.write_text(f"[tune]\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"options.toml: tune.{line.split()[0]}: one .* counts for all") as raised:
        read_config(file)
    assert "at the top of the file" in raised.value.hint


def test_those_kept_beside_an_artifact_are_too() -> None:
    with pytest.raises(ModelError, match=r"^kept: models.batch_texts: 0: expected at least 1"):
        options_from({"batch_texts": 0}, "kept")


def test_and_those_of_python() -> None:
    with pytest.raises(UsageError, match=r"bridge.sample: 2: expected from 0 to 1"):
        BridgeOptions(sample=2)
    assert EmbedOptions(batch_tokens=None).batch_tokens is None


def test_files_that_queries_are_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chunk").mkdir()  # called like the prompt that is shipped
    (tmp_path / "asked.txt").write_text("how")
    assert Config(log="asked.txt").files == (Path("asked.txt"),)
    assert config_from({"llm_queries": {"examples": "asked.txt"}}, "a file").files == (Path("asked.txt"),)
    assert Config().files == ()


def test_a_model_is_named_by_a_string_or_a_path(tmp_path: Path) -> None:
    assert Config(model=tmp_path).model == str(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model is a dict"):
        Config(model={})  # type: ignore[arg-type]
