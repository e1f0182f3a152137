from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tiny_dataset import small_dataset
from vectune.config import Config
from vectune.errors import UsageError
from vectune.pipeline import run
from vectune.training.methods import checked_method, explain, method_for, over_vectors, tune_with, unread
from vectune.training.options import Method, TuneOptions


@pytest.mark.parametrize("method", ["adapter", "query", "lora", "auto"])
def test_methods_that_keep_the_index_are_explained_as_such(method: Method) -> None:
    told = {what: (value, why) for what, value, why in explain(small_dataset(), TuneOptions(method, keep_index=True))}
    assert told["method"] == (method, "as asked")
    assert told["documents"][1].endswith("never again")
    assert "epochs" not in told  # those belong to fine-tuning


def test_a_blend_uses_no_label_and_auto_without_the_index_is_fine_tuning() -> None:
    blend = {what: why for what, _, why in explain(small_dataset(), TuneOptions("blend"))}
    assert blend["steps"] == "no label is used"
    assert "epochs" in {what for what, _, _ in explain(small_dataset(), TuneOptions("auto"))}


def test_queries_of_people_in_another_split_do_not_make_cut_ones_worth_training_on() -> None:
    dataset = small_dataset()
    dataset.queries = {
        key: replace(query, writer="extractive" if key in dataset.qrels["train"] else "")
        for key, query in dataset.queries.items()
    }
    assert method_for(dataset, TuneOptions()) == "blend"
    assert method_for(small_dataset(), TuneOptions()) == "full"


def test_options_that_a_method_does_not_read_are_named(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = TuneOptions(method="adapter", model=str(tiny_bert), epochs=3, max_length=8, precision="fp32")
    tune_with(small_dataset(), tmp_path / "out", given)
    assert "tune.epochs, tune.max_length: not read by the method 'adapter'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "named"), [("adapter", ["max_minutes"]), ("blend", ["max_minutes"]), ("query", []), ("auto", [])]
)
def test_a_limit_on_time_is_kept_or_said_not_to_be(method: Method, named: list[str]) -> None:
    options = TuneOptions(method, keep_index=method == "auto", max_minutes=0.1)
    assert unread(method, options) == named
    if not named:
        tune = over_vectors(method, options)
        assert isinstance(tune, partial) and tune.keywords["options"].seconds == 6


def test_a_method_that_cannot_keep_the_index_is_refused() -> None:
    with pytest.raises(UsageError, match="needs every document embedded again"):
        explain(small_dataset(), TuneOptions("full", keep_index=True))


@pytest.mark.parametrize(("method", "used"), [(None, "adapter"), ("auto", "adapter"), ("blend", "blend")])
def test_behind_an_api_there_are_no_weights_to_train(method: Method | None, used: Method) -> None:
    assert checked_method(TuneOptions(method, model="openai:some")) == used


@pytest.mark.parametrize("method", ["full", "lora", "query"])
def test_weights_behind_an_api_are_refused(method: Method, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="those of 'openai:some' are behind an API") as caught:
        tune_with(small_dataset(), tmp_path / "out", TuneOptions(method, model="openai:some"))
    assert "--method adapter" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_run_refuses_what_it_cannot_tune_before_it_writes_anything(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Pumps\nA pump moves water.")
    with pytest.raises(UsageError, match="behind an API"):
        run([tmp_path / "a.md"], tmp_path / "out", Config(model="openai:some", tune=TuneOptions("full")))
    assert not (tmp_path / "out").exists()


def test_what_weights_depend_on_holds_the_anchors_texts(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("a text\n", encoding="utf-8")
    options = TuneOptions(anchor=0.1, anchor_texts=str(file))
    before = options.decisive()
    assert before == options.decisive() and "memory_gib" not in before
    file.write_text("another text\n", encoding="utf-8")
    assert options.decisive() != before
