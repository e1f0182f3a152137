"""Models behind an API from the command line: the whole job with a configuration file, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calling import Run, refused
from tiny_dataset import small_dataset
from vectune.testing import OpenAIServer

MODEL = "openai:small"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("AZURE_KEY", "sesame")
    with OpenAIServer(dim=24, key="sesame") as running:
        yield running


@pytest.fixture
def config(server: OpenAIServer, tmp_path: Path) -> Path:
    """An Azure deployment of a Cohere-style model: everything at once."""
    path = tmp_path / "azure.toml"
    path.write_text(
        f"""
        [models."{MODEL}"]
        base_url = "{server.base_url.removesuffix("/v1")}/openai/deployments/mine"
        key_variable = "AZURE_KEY"
        key_header = "api-key"
        url_parameters = {{ api-version = "2024-10-21" }}
        query_fields = {{ input_type = "search_query" }}
        document_fields = {{ input_type = "search_document" }}
        """
    )
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    small_dataset().write(tmp_path / "data")
    return tmp_path / "data"


def test_an_adapter_over_azure_is_tuned_scored_and_opened_without_the_file(
    vectune: Run, server: OpenAIServer, config: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    tune = ("tune", dataset, "--out", out, "--model", MODEL, "--method", "adapter", "--config", config)
    assert vectune(*tune).code == 0
    assert {asked.query for asked in server.asked} == {"api-version=2024-10-21"}
    assert {asked.body["input_type"] for asked in server.asked} == {"search_query", "search_document"}
    assert not any(b"sesame" in file.read_bytes() for file in out.rglob("*") if file.is_file())
    requests = len(server.asked)
    assert vectune(*tune).code == 0
    assert len(server.asked) == requests  # nothing is paid for twice
    shown = vectune("evaluate", dataset, "--model", MODEL, "--model", out, "--config", config)
    assert shown.code == 0 and MODEL in shown.out
    assert vectune("evaluate", dataset, "--model", out).code == 0  # as the folder keeps it
    refused(vectune("evaluate", dataset, "--model", MODEL), "No key for https://api.openai.com/v1")


def test_a_teacher_behind_an_api_is_asked_as_the_file_says(
    vectune: Run, server: OpenAIServer, config: Path, dataset: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + "[tune]\nepochs = 1\nmethod = 'full'\n")
    tune = ("tune", dataset, "--out", tmp_path / "out", "--model", tiny_bert, "--teacher", MODEL, "--config", config)
    assert vectune(*tune).code == 0
    assert {asked.query for asked in server.asked} == {"api-version=2024-10-21"}
    assert {asked.body["input_type"] for asked in server.asked} == {"search_query", "search_document"}


def test_a_bridge_between_two_apis_keeps_how_both_are_asked(
    vectune: Run, server: OpenAIServer, config: Path, dataset: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + config.read_text().replace(MODEL, "openai:new").replace("search_", "new_"))
    out = tmp_path / "bridge"
    assert vectune("bridge", MODEL, "openai:new", "--sample", dataset, "--out", out, "--config", config).code == 0
    kept = json.loads((out / "vectune.json").read_text())["models"]
    assert {name: own["query_fields"]["input_type"] for name, own in kept.items()} == {
        MODEL: "search_query",
        "openai:new": "new_query",
    }
    before = len(server.asked)
    assert vectune("evaluate", dataset, "--model", out).code == 0
    asked = {(asked.body["model"], asked.body["input_type"]) for asked in server.asked[before:]}
    assert ("new", "new_query") in asked <= {("new", "new_query"), ("small", "search_document")}


def test_a_run_over_an_api_is_searched_with_and_without_the_file(
    vectune: Run, server: OpenAIServer, config: Path, tmp_path: Path
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for thing in "compiler bicycle orchard harbour library volcano kitchen telescope railway glacier".split():
        text = "\n\n".join(f"The {part} of the {thing} is checked {when}." for part, when in PARTS)
        (documents / f"{thing}.md").write_text(f"# Handbook of the {thing}\n\n{text}\n")
    run = ("run", documents, "--out", tmp_path / "run", "--model", MODEL, "--method", "adapter", "--config", config)
    assert vectune(*run).code == 0
    requests = len(server.asked)
    assert "nothing has changed" in vectune(*run).out
    assert len(server.asked) == requests
    for options in ((), ("--config", config)):
        assert "Handbook" in vectune("search", tmp_path / "run", "is the frame of the glacier checked?", *options).out
    assert "sesame" not in "".join(file.read_text() for file in (tmp_path / "run").rglob("*.json"))
    config.write_text(config.read_text().replace("search_query", "other"))
    assert "nothing has changed" not in vectune(*run).out  # other vectors: tuned and scored anew


PARTS = [("frame", "every spring"), ("engine", "before each journey"), ("surface", "after heavy rain")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "query_field = { a = 1 }",
            'models."openai:small".query_field: there is no such option; did you mean query_fi',
        ),
        ("dimensions = 'many'", "models.openai:small.dimensions"),
        ("api_key = 'sesame'", "a key is not read from a configuration"),
        ("max_length = 12", "max_length: is a local model's"),
    ],
)
def test_a_setting_that_is_none(vectune: Run, dataset: Path, tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f'[models."{MODEL}"]\n{line}\n')
    refused(vectune("evaluate", dataset, "--model", MODEL, "--config", path), words)
    refused(vectune("search", tmp_path, "a", "--config", path), words)


def test_a_table_for_a_name_that_is_no_apis(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[models.small]\ndimensions = 3\n")
    shown = vectune("tune", dataset, "--out", tmp_path / "out", "--config", path)
    refused(shown, "begin with openai:", '[models."openai:small"]')


def test_a_folder_alone_does_not_say_where_a_key_is_sent(
    vectune: Run, config: Path, dataset: Path, tmp_path: Path, server: OpenAIServer
) -> None:
    out = tmp_path / "adapter"
    assert vectune("tune", dataset, "--out", out, "--model", MODEL, "--method", "adapter", "--config", config).code == 0
    marker = json.loads((out / "vectune.json").read_text())
    marker["models"][MODEL]["base_url"] = "https://elsewhere.example/v1"
    (out / "vectune.json").write_text(json.dumps(marker))
    requests = len(server.asked)
    refused(vectune("evaluate", dataset, "--model", out), "https://elsewhere.example/v1", "export OPENAI_BASE_URL=")
    assert len(server.asked) == requests
    assert vectune("evaluate", dataset, "--model", out, "--config", config).code == 0


FEW = """
[models."openai:small"]
max_retries = 0
"""


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({}, 2, ("No key for https://api.openai.com/v1", "OPENAI_API_KEY is not set", "export OPENAI_API_KEY=")),
        ({"key": "another"}, 1, ("refused the key (401)", "Check the key")),
        ({"models": frozenset({"large"})}, 1, ("does not know the model 'small'", "Check the model's name")),
        ({"rates": {"error200": 1.0}}, 1, ("answered without vectors: The model crashed. What was",)),
        ({"rates": {"nan": 1.0}}, 1, ("gave NaN or infinity for the text",)),
        ({"rates": {"quota": 1.0}}, 1, ("the account is empty",)),
    ],
)
def test_an_api_that_refuses_or_answers_nonsense_is_named_and_nothing_is_left(
    vectune: Run,
    server: OpenAIServer,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    code: int,
    words: tuple[str, ...],
) -> None:
    (tmp_path / "few.toml").write_text(FEW)
    if fault:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    for name, value in fault.items():
        setattr(server, name, value)
    out = tmp_path / "new" / "out"
    given = ("--model", MODEL, "--method", "adapter", "--config", tmp_path / "few.toml")
    refused(vectune("tune", dataset, "--out", out, *given), *words, code=code)
    assert not out.exists() and list(out.parent.iterdir()) == []


def test_another_dimension_than_in_the_cache(
    vectune: Run, server: OpenAIServer, config: Path, dataset: Path, tmp_path: Path
) -> None:
    tune = ("--model", MODEL, "--method", "adapter", "--config", config)
    assert vectune("tune", dataset, "--out", tmp_path / "first", *tune).code == 0
    server.dim = 16
    corpus = dataset / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("with your hand", "with your foot"))
    shown = vectune("tune", dataset, "--out", tmp_path / "second", *tune)
    refused(shown, "gave vectors of 16 dimensions, 24 are in the cache", "vectune cache prune")
    assert not (tmp_path / "second").exists() and not (tmp_path / ".second.work").exists()


def test_an_account_that_runs_empty_half_way_pays_for_nothing_twice(
    vectune: Run, server: OpenAIServer, config: Path, dataset: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + "batch_texts = 20\nconcurrency = 2\n")
    tune = ("tune", dataset, "--out", tmp_path / "out", "--model", MODEL, "--method", "adapter", "--config", config)
    server.fail("slow", times=4, slow_seconds=0.0).fail("quota", times=100)
    refused(vectune(*tune), "the account is empty", "run the same command again", code=1)
    server._queued.clear()
    assert vectune(*tune).code == 0
    paid = [text for asked in server.asked if asked.fault != "quota" for text in asked.body["input"]]
    assert len(paid) == len(set(paid))
    requests = len(server.asked)
    assert vectune(*tune).code == 0
    assert len(server.asked) == requests
