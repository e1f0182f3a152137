"""The whole thread on a small corpus with a tiny model: it ends, it is skipped when done, and it survives SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import vectune
from tiny_dataset import small_dataset
from vectune.config import Config, override
from vectune.errors import DatasetError, DocumentError, ModelError, OutputError, UsageError
from vectune.pipeline import Step, check_inputs, check_unedited, go, proving, run, tell_other_inputs
from vectune.progress import SILENT
from vectune.runs import Json, RunFolder, remove

STAGES = ("chunks", "queries", "dataset", "tune", "blend", "evaluate", "retriever", "report")
TOPICS = (
    "compiler",
    "bicycle",
    "orchard",
    "harbour",
    "library",
    "volcano",
    "kitchen",
    "telescope",
    "railway",
    "glacier",
)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Ten Markdown files with sections of their own words."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, topic in enumerate(TOPICS):
        sections = [
            f"## Care of the {topic} {part}\n\nThe {part} of every {topic} needs attention in month {number + index}. "
            f"Workers inspect the {part} with a {topic} gauge; the {topic} figures go into ledger {index}{number}. "
            f"A broken {part} stops the {topic} for {index + 2} days, because spare parts for the {topic} come by ship."
            for index, part in enumerate(("frame", "surface", "engine", "entrance"))
        ]
        (folder / f"{topic}.md").write_text(f"# The {topic}\n\n" + "\n\n".join(sections), encoding="utf-8")
    return folder


@pytest.fixture
def config(tiny_bert: Path) -> Config:
    return override(Config(model=str(tiny_bert)), {"tune.epochs": 1, "tune.batch": 8})


def events(run_folder: Path) -> list[dict[str, object]]:
    try:
        lines = (run_folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_prepare_tune_evaluate_are_functions(documents: Path, config: Config, tmp_path: Path) -> None:
    dataset = vectune.prepare([documents], tmp_path / "dataset", config)
    assert dataset.generated
    assert {"train", "dev", "test"} <= set(dataset.qrels)
    result = vectune.tune(tmp_path / "dataset", tmp_path / "model", config)
    assert result.dev_after >= result.dev_before
    board = vectune.evaluate(tmp_path / "dataset", ["bm25", config.model, str(tmp_path / "model")])
    assert [row.name for row in board.rows] == ["bm25", config.model, str(tmp_path / "model")]
    assert all(0 <= row.measures["nDCG@10"] <= 1 for row in board.rows)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.long
def test_a_run_ends_with_a_report_and_repeats_only_what_changed(
    documents: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run([documents], tmp_path / "run", config)
    assert first.ran == STAGES
    assert first.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {"run.json", "dataset", "model", "board.json", "report.html", "events.jsonl"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    told = json.loads((tmp_path / "run" / "verdict.json").read_text(encoding="utf-8"))
    assert told["candidate"] == str(tmp_path / "run" / "blend")  # what is served
    assert run([documents], tmp_path / "run", config).ran == ()
    remove(tmp_path / "run" / "retriever")
    monkeypatch.chdir(tmp_path)  # from another folder the run has another name
    assert "retriever" in run([documents], Path("run"), config).ran
    made = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    for mistyped, refused in (({"model": "./none"}, ModelError), ({"general": "none.csv"}, DatasetError)):
        with pytest.raises(refused, match="none"):
            run([documents], tmp_path / "run", override(config, mistyped))
    assert (tmp_path / "run" / "run.json").read_text(encoding="utf-8") == made  # what is there was made otherwise
    assert run([documents], tmp_path / "run", override(config, {"tune.memory_gib": 9.5})).ran == ()
    assert '"memory_gib": 9.5' in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    assert run([documents], tmp_path / "run", override(config, {"curve": True})).ran == ("curve", "report")
    curve = json.loads((tmp_path / "run" / "curve.json").read_text(encoding="utf-8"))
    assert [point["part"] for point in curve["points"]] == ["queries", "documents", "queries", "documents", "all"]
    assert "Would more data help?" in first.report.read_text(encoding="utf-8")
    other = override(config, {"tune.epochs": 2})
    assert run([documents], tmp_path / "run", other).ran == STAGES[STAGES.index("tune") :]
    (documents / "extra.md").write_text(
        "# The windmill\n\n" + "The windmill turns its sails in the western wind. " * 20
    )
    assert run([documents], tmp_path / "run", other).ran == STAGES


def test_what_is_written_among_the_documents_is_not_read_as_documents(
    documents: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VECTUNE_CACHE", str(documents / "cache"))
    for _ in range(2):
        dataset = vectune.prepare([documents], documents / "dataset", config)
        assert {chunk.source for chunk in dataset.corpus.values()} == {f"{topic}.md" for topic in TOPICS}
    assert "wrote" not in capsys.readouterr().err  # what is being written goes without saying
    assert run([documents], documents / "run", config).ran == STAGES
    assert f"is left out (1): {documents / 'dataset'}" in capsys.readouterr().err
    assert vectune.RetrievalDataset.read(documents / "run" / "dataset").corpus == dataset.corpus
    assert run([documents], documents / "run", config).ran == ()
    assert vectune.prepare([documents], tmp_path / "other", config).corpus == dataset.corpus
    with pytest.raises(DocumentError, match="no files to read"):
        vectune.prepare([documents / "run"], tmp_path / "none", config)


@pytest.mark.parametrize(
    "said", [{}, {"log": "queries.txt"}, {"llm": "gpt"}, {"tune.keep_index": True}, {"tune.method": "full"}]
)
def test_the_blend_is_served_where_queries_are_cut_and_nobody_says_otherwise(
    said: dict[str, object], config: Config, tmp_path: Path
) -> None:
    names = [step.name for step in proving(tmp_path, override(config, said), SILENT)]
    assert ("blend" in names) == (not said)


def test_what_an_unfinished_stage_gets_later_reaches_those_after_it(tmp_path: Path) -> None:
    left = ["2 requests failed", "1 requests failed", ""]

    def queries() -> Json:
        return {"unfinished": left.pop(0)}

    steps = [
        Step("queries", tmp_path, (), queries),
        Step("dataset", tmp_path, (), dict),
    ]
    folder = RunFolder(tmp_path)
    assert [list(go(folder, steps, SILENT)) for _ in range(4)] == [["queries", "dataset"]] * 3 + [[]]


def test_a_person_who_edits_queries_or_judgments_has_what_follows_made_anew(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    steps = [Step("dataset", tmp_path, (), dict), Step("tune", tmp_path, (), dict, labels=(tmp_path,))]
    folder = RunFolder(tmp_path)
    assert list(go(folder, steps, SILENT)) == ["dataset", "tune"] and not go(folder, steps, SILENT)
    for file in ("queries.jsonl", "qrels/test.tsv"):
        (tmp_path / file).write_text("edited")
        assert list(go(folder, steps, SILENT)) == ["tune"] and not go(folder, steps, SILENT)


def test_what_forbids_a_stage_is_said_before_the_stages_that_cost(tmp_path: Path) -> None:
    def refuse() -> None:
        raise OutputError("edited")

    folder = RunFolder(tmp_path)
    steps = [
        Step("queries", tmp_path, (), lambda: pytest.fail("an LLM was asked")),
        Step("dataset", tmp_path, (), dict, refuse),
    ]
    with pytest.raises(OutputError, match="edited"):
        go(folder, steps, SILENT)


def test_a_stage_must_have_ended_before_the_run_is_told_to_be_another(tmp_path: Path) -> None:
    done: list[str] = []

    def fail() -> Json:
        raise ModelError("mistyped")

    def step(name: str, work: Callable[[], Json] | None = None) -> Step:
        def note() -> Json:
            done.append(name)
            return {}

        return Step(name, tmp_path, (name,), work or note)

    def told(*steps: Step) -> list[str]:
        done.clear()
        with suppress(ModelError):
            go(RunFolder(tmp_path), list(steps), SILENT, lambda: done.append("told"))
        return list(done)

    assert told(step("chunks", fail), step("tune"), step("report")) == []
    assert told(step("chunks"), step("tune"), step("report")) == ["chunks", "told", "tune", "report"]
    assert told(step("chunks"), step("tune"), step("report")) == []
    assert told(step("chunks"), step("report")) == ["told", "report"]  # it draws what is told


def test_a_general_set_that_cannot_be_scored_is_said_before_the_stages_that_cost(
    documents: Path, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text("query,text\nwho,the first text\n")
    for given, said in (("train.csv", "no judgments for the split 'test'"), ("none.csv", "no such dataset")):
        with pytest.raises(DatasetError, match=said):
            run([documents], tmp_path / "run", override(config, {"general": str(tmp_path / given)}))
        assert not (tmp_path / "run").exists()


def test_what_weights_do_not_depend_on_tunes_nothing_again(config: Config, tmp_path: Path) -> None:
    def depends(**said: object) -> object:
        return next(step.depends for step in proving(tmp_path, override(config, said), SILENT) if step.name == "tune")

    assert depends() == depends(**{"tune.memory_gib": 1.0}) != depends(**{"tune.epochs": 3})


def test_a_curve_over_queries_that_nothing_is_learnt_from_is_refused(config: Config) -> None:
    with pytest.raises(UsageError, match="learns from the documents alone"):
        vectune.pipeline.curve(small_dataset(), override(config, {"tune.method": "blend"}))


def test_other_documents_in_a_run_directory_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text('{"inputs": ["manuals"]}')
    tell_other_inputs(tmp_path, ["manuals"], SILENT)
    assert not capsys.readouterr().err
    tell_other_inputs(tmp_path, ["laws"], SILENT)
    assert "was about manuals; what it holds is made anew for laws" in capsys.readouterr().err


def test_an_output_folder_with_something_else_is_left_alone(documents: Path, config: Config, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError):
        run([documents], out, config)
    with pytest.raises(OutputError):
        vectune.prepare([documents], out, config)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_labels_that_a_person_put_there_are_not_replaced(tmp_path: Path) -> None:
    small_dataset().write(tmp_path / "made")
    check_unedited(tmp_path / "made")
    train = tmp_path / "made" / "qrels" / "train.tsv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(OutputError, match="somebody has edited"):
        check_unedited(tmp_path / "made")


def test_one_path_needs_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one").mkdir()
    given: list[str | Path | list[str | Path]] = [tmp_path / "one", str(tmp_path / "one"), "~/one", ["~/one"]]
    for paths in given:
        assert check_inputs(paths) == [tmp_path / "one"]


def test_a_missing_path_leaves_nothing_behind(config: Config, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="nowhere"):
        vectune.prepare([tmp_path / "nowhere"], tmp_path / "dataset", config)
    assert not (tmp_path / "dataset").exists()


def start(documents: Path, out: Path, model: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vectune", "run", str(documents), "--out", str(out), "--model", model]
    config = out.parent / "config.toml"
    config.write_text("[tune]\nepochs = 2\nbatch = 8\ncheckpoint_seconds = 0\n")
    return subprocess.Popen([*command, "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.long
def test_a_run_killed_in_every_stage_goes_on_from_there(documents: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for stage in STAGES:
        process = start(documents, out, str(tiny_bert))
        while process.poll() is None:
            begun = [event for event in events(out) if event["kind"] == "stage" and event["state"] == "started"]
            trained = any(event["kind"] == "train" for event in events(out))
            if begun and begun[-1]["name"] == stage and (stage != "tune" or trained):
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.02)  # reading all events again and again takes the processor from what is watched
        _, stderr = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), stderr.decode()
    process = start(documents, out, str(tiny_bert))
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert b"report.html" in stdout
    finished = [event["name"] for event in events(out) if event["kind"] == "stage" and event["state"] == "finished"]
    assert finished == list(STAGES), "a stage that was finished before a kill ran again"
    assert not list(out.glob(".*partial*"))
