"""The model card: what it says, what the hub reads of it, and that names stay text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import ARTIFACT, make_run
from vectune.errors import InputError
from vectune.modelcard import model_card, write_model_card
from vectune.runs import remove, write_json


def metadata(card: str) -> dict[str, Any]:
    """The head of a card: one JSON value a line."""
    head = card.split("---\n")[1]
    return {line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1]) for line in head.splitlines()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("card") / "run", queries=40)


def test_the_card_holds_verdict_board_and_data(run: Path) -> None:
    card = write_model_card(run).read_text(encoding="utf-8")
    verdict = json.loads((run / "verdict.json").read_text())
    assert f"**{verdict['sentence']}**" in card and "# all-MiniLM-L6-v2, tuned with vectune" in card
    assert "| tuned model |" in card and "manuals, test split, generated queries" in card
    assert "60 chunks, 24 documents, 40 queries, 40 test" in card
    assert str(run) not in card  # nobody else has that path
    assert "Its queries were generated" in card and "must be embedded with this model" in card


def test_a_verdict_on_the_blend_is_not_the_models(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", queries=40)
    verdict, board = (json.loads((run / file).read_text()) for file in ("verdict.json", "board.json"))
    write_json(run / "verdict.json", {**verdict, "candidate": str(run / "blend")})
    rows = {row["name"]: row for row in board["rows"]}
    blend = {**rows["all-MiniLM-L6-v2"], "name": str(run / "blend")}
    write_json(run / "board.json", {**board, "rows": [blend, *board["rows"]]})
    card = write_model_card(run).read_text(encoding="utf-8")
    assert verdict["sentence"] not in card and "was not tested for significance" in card
    own = rows[str(run / "model")]["measures"]["nDCG@10"]
    assert own != blend["measures"]["nDCG@10"]
    assert metadata(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == round(own, 4)


def test_a_base_that_another_run_has_tuned_is_not_the_tuned_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", queries=40)
    board = json.loads((run / "board.json").read_text())
    base = next(row for row in board["rows"] if row["name"] == "all-MiniLM-L6-v2") | {"name": "earlier/model"}
    write_json(run / "board.json", {**board, "rows": [base, *board["rows"]]})
    metrics = metadata(write_model_card(run).read_text(encoding="utf-8"))["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] != round(base["measures"]["nDCG@10"], 4)


def test_the_hub_reads_base_and_figures(run: Path) -> None:
    facts = metadata(write_model_card(run).read_text(encoding="utf-8"))
    board = json.loads((run / "board.json").read_text())
    tuned = next(row for row in board["rows"] if row["name"] == str(run / "model"))
    assert facts["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    metrics = facts["model-index"][0]["results"][0]["metrics"]
    assert metrics[0] == {"type": "ndcg_at_10", "name": "nDCG@10", "value": round(tuned["measures"]["nDCG@10"], 4)}
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    assert yaml.safe_load((run / "model" / "README.md").read_text(encoding="utf-8").split("---\n")[1]) == facts


@pytest.mark.parametrize("kind", ["full", "lora", "query", "adapter"])
def test_it_says_whether_documents_must_be_embedded_again(kind: str) -> None:
    card = model_card({**ARTIFACT, "kind": kind})
    assert ("need not be embedded again" in card) == (kind in ("query", "adapter"))


def test_a_tuned_model_with_a_tail_tells_of_both() -> None:
    card = model_card({**ARTIFACT, "kind": "blend", "method": "lora"}, loads=False)
    assert "lora: low-rank updates of the base's weights, merged into them; then a lexical part behind" in card
    plain = model_card({**ARTIFACT, "kind": "blend", "method": "blend"}, loads=False)
    assert "blend: a lexical part behind the model's vector, in one vector" in plain


def test_an_artifact_that_sentence_transformers_does_not_open_says_so() -> None:
    card = model_card({**ARTIFACT, "kind": "adapter", "base": "openai:text-embedding-3-small"}, loads=False)
    assert "open_embedder" in card and "SentenceTransformer(" not in card
    assert metadata(card)["library_name"] == "vectune" and "base_model" not in metadata(card)


def test_without_a_board_it_tells_what_dev_told() -> None:
    card = model_card({**ARTIFACT, "dev": {"before": 0.464, "after": 0.573}, "chosen": {"epochs": 3}, "notes": ["cut"]})
    assert "nDCG@10 on dev: .464 before, .573 after." in card and "epochs 3" in card and "- cut" in card
    assert "was not tested for significance" in card


def test_names_stay_text() -> None:
    card = model_card({**ARTIFACT, "base": "a|b\n---\n<script>", "notes": ["`x` <img>"]})
    assert metadata(card)["library_name"] == "sentence-transformers"
    assert "<script>" not in card and "<img>" not in card and "a\\|b --- &lt;script>" in card


def test_a_run_without_an_artifact_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", queries=20, judged=False)
    remove(folder / "model")
    with pytest.raises(InputError, match=r"holds no vectune\.json"):
        write_model_card(folder)
    write_json(folder / "model" / "vectune.json", ARTIFACT)
    assert write_model_card(folder) == folder / "model" / "README.md"
