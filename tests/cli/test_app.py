"""The command line as a person meets it: help, typos, and every kind of bad input with its message and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calling import Run, refused
from vectune.cli.app import at_home
from vectune.dataset import RetrievalDataset

WORDS = "size weight colour price age owner maker place repair care use name history sound speed future".split()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A small sound BEIR folder to be broken."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    subjects = ("apples", "bridges", "clouds", "drums", "engines", "forests", "glaciers", "harbours")
    lines = [{"_id": f"c{n}", "title": "", "text": f"All about {word} today."} for n, word in enumerate(subjects)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [{"_id": f"q{n}", "text": f"what of {word}?"} for n, word in enumerate(subjects)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    for split, wanted in (("train", range(6)), ("test", (6, 7))):
        rows = "".join(f"q{n}\tc{n}\t1\n" for n in wanted)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


def test_the_home_folder_is_meant_where_a_shell_leaves_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("USERPROFILE", "/home/a")
    assert [at_home(word) for word in ("--out=~/run", "~/docs", "~")] == [
        "--out=/home/a/run",
        "/home/a/docs",
        "/home/a",
    ]
    for word in ("a~/b", "--out=~other", "~ 5 litres?", "--seed=1", ""):
        assert at_home(word) == word


def test_help_names_every_command(vectune: Run) -> None:
    shown = vectune("--help")
    assert shown.code == 0
    for command in ("run", "prepare", "queries", "tune", "evaluate", "search", "bridge", "report", "compare", "cache"):
        assert command in shown.out


def test_a_typo_is_wrong_usage(vectune: Run) -> None:
    refused(vectune("evalaute"), "No such command 'evalaute'")
    refused(vectune("run", "x", "--uot", "y"), "No such option")


def test_missing_path(vectune: Run, tmp_path: Path) -> None:
    refused(vectune("prepare", tmp_path / "nowhere", "--out", tmp_path / "d"), str(tmp_path / "nowhere"))
    assert not (tmp_path / "d").exists()


def test_labelled_data_are_no_documents(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,text\nwhat of apples?,All about apples today.\n")
    for command in ("prepare", "run"):
        for given in (dataset, tmp_path / "pairs.csv"):
            refused(vectune(command, given, "--out", tmp_path / "d"), str(given), f"vectune tune {given}")
    (tmp_path / "all.json").write_text('{"queries": {}, "corpus": {}, "relevant_docs": {}}')
    refused(vectune("prepare", tmp_path / "all.json", "--out", tmp_path / "d"), "documents are wanted")
    (tmp_path / "dash.json").write_text('{"title": "A dashboard", "queries": ["up"]}')
    assert "documents are wanted" not in vectune("prepare", tmp_path / "dash.json", "--out", tmp_path / "e").err
    (tmp_path / "faq").mkdir()
    (tmp_path / "faq" / "pairs.csv").write_text("question,answer\nwhat is it?,It is about apples today.\n" * 20)
    shown = vectune("prepare", tmp_path / "faq", "--out", tmp_path / "d")
    assert "documents are wanted" not in shown.err
    refused(vectune("prepare", tmp_path, "--ignore-labels", "--out", tmp_path / "d"), "holds no corpus.jsonl")
    assert not (tmp_path / "d").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_table_that_cannot_be_read_is_an_error_with_its_name(vectune: Run, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("query,text\nwhat of apples?,All about apples today.\n")
    (tmp_path / "secret.csv").chmod(0)
    refused(vectune("prepare", tmp_path / "secret.csv", "--out", tmp_path / "d"), "secret.csv")


def test_what_cannot_be_begun_leaves_no_folder(vectune: Run, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    refused(vectune("run", tmp_path / "docs", "--out", tmp_path / "r"), "no files to read")
    (tmp_path / "docs" / "a.txt").write_text("Apples grow on trees, and pears do as well. " * 20)
    refused(vectune("run", tmp_path / "docs", "--out", tmp_path / "r", "--model", "./none"), "no such model folder")
    assert not (tmp_path / "r").exists()
    (tmp_path / "mine").mkdir()
    refused(vectune("run", tmp_path / "docs", "--out", tmp_path / "mine", "--model", "./none"), "no such model folder")
    assert (tmp_path / "mine").exists()


def test_a_dataset_that_was_edited_is_not_replaced(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    assert vectune("queries", dataset, "--export", tmp_path / "q.csv").code == 0
    refused(vectune("queries", dataset, "--export", tmp_path / "q.csv"), "is there already")
    assert vectune("queries", dataset, "--import", tmp_path / "q.csv", "--out", tmp_path / "d").code == 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Apples grow on trees. " * 50)
    refused(vectune("prepare", tmp_path / "docs", "--out", tmp_path / "d"), "somebody has edited")


def test_an_unfinished_run_has_no_report(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    dataset.rename(tmp_path / "dataset")
    (tmp_path / "run.json").write_text("{}")
    refused(vectune("report", tmp_path), "is not finished")


def test_empty_folder(vectune: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(vectune("prepare", tmp_path / "empty", "--out", tmp_path / "d"), "empty")
    assert not (tmp_path / "d").exists()


def test_nothing_readable(vectune: Run, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "zero.md").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<")
    refused(vectune("prepare", folder, "--out", tmp_path / "d"), "docs")
    assert not (tmp_path / "d").exists()


def test_bad_files_among_good_ones_are_skipped_and_listed(vectune: Run, tmp_path: Path, tiny_bert: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(6):
        words = " ".join(
            f"Subject{number} has property{number}{index} and needs care in week {index}." for index in range(9)
        )
        (folder / f"good{number}.md").write_text(f"# Subject {number}\n\n{words}\n")
    (folder / "zero.md").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<")
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    (folder / "loop").symlink_to(folder)
    shown = vectune("prepare", folder, "--out", tmp_path / "d", "--model", tiny_bert)
    assert shown.code == 0, shown.err
    assert "zero.md" in shown.err and "broken.pdf" in shown.err
    skipped = json.loads((tmp_path / "d" / "dataset.json").read_text())["skipped"]
    assert {"zero.md", "broken.pdf"} <= {Path(one["source"]).name for one in skipped}
    refused(vectune("prepare", folder, "--out", tmp_path / "d2", "--model", tiny_bert, "--strict"))
    assert not (tmp_path / "d2").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_skipped(vectune: Run, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "secret.md").chmod(0)
    refused(vectune("prepare", tmp_path / "secret.md", "--out", tmp_path / "d", "--model", tiny_bert), "secret.md")


def test_beir_folder_with_a_missing_file(vectune: Run, dataset: Path) -> None:
    (dataset / "queries.jsonl").unlink()
    refused(vectune("evaluate", dataset, "--model", "bm25"), "queries.jsonl", "missing")


def test_beir_folder_with_a_broken_line(vectune: Run, dataset: Path) -> None:
    with (dataset / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "c9", "text"\n')
    refused(vectune("evaluate", dataset, "--model", "bm25"), "corpus.jsonl, line 9", "not valid JSON")


def test_qrel_that_names_an_unknown_id(vectune: Run, dataset: Path) -> None:
    with (dataset / "qrels" / "test.tsv").open("a") as file:
        file.write("q7\tc99\t1\n")
    refused(vectune("evaluate", dataset, "--model", "bm25"), "test.tsv, line 4", "c99")


def test_duplicate_ids(vectune: Run, dataset: Path) -> None:
    with (dataset / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q0", "text": "again"}\n')
    refused(vectune("evaluate", dataset, "--model", "bm25"), "queries.jsonl, line 9", "q0", "line 1")


def test_no_train_judgments(vectune: Run, dataset: Path, tmp_path: Path, tiny_bert: Path) -> None:
    (dataset / "qrels" / "train.tsv").unlink()
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--model", tiny_bert), "train")
    assert not (tmp_path / "m").exists()


def test_contaminated_splits_of_an_imported_set_are_refused_with_the_list(
    vectune: Run, dataset: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    with (dataset / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q8", "text": "What of clouds"}\n')
    with (dataset / "qrels" / "test.tsv").open("a") as file:
        file.write("q8\tc7\t1\nq7\tc0\t1\n")
    told = ("are contaminated", "the same query ('q2' and 'q8')", "the document 'c0'", "--allow-contamination")
    refused(vectune("evaluate", dataset, "--model", "bm25"), *told)
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--model", tiny_bert), *told)
    assert not (tmp_path / "m").exists()
    allowed = vectune("evaluate", dataset, "--model", "bm25", "--allow-contamination", "--json", tmp_path / "b.json")
    assert allowed.code == 0 and "warning: The splits are contaminated" in allowed.err
    (note,) = [note for note in json.loads((tmp_path / "b.json").read_text())["notes"] if "contaminated" in note]
    assert "1 × document, 1 × query" in note


def test_a_model_that_does_not_exist(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    refused(vectune("evaluate", dataset, "--model", "no-such-model-anywhere"), "no-such-model-anywhere")
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--model", "no-such-model-anywhere"), "no-such-model")
    assert not (tmp_path / "m").exists()


def test_an_output_folder_with_something_else(vectune: Run, dataset: Path, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("years of work")
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--model", tiny_bert), "not empty")
    assert (tmp_path / "m" / "thesis.tex").read_text() == "years of work"


def test_a_split_that_is_not_there(vectune: Run, dataset: Path) -> None:
    refused(vectune("evaluate", dataset, "--model", "bm25", "--split", "tset"), "tset")


def test_a_broken_config_file(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[tune]\nepocs = 3\nbatch = 'many'\n")
    shown = vectune("tune", dataset, "--out", tmp_path / "m", "--config", config)
    refused(shown, str(config), "tune.epocs", "tune.batch")
    config.write_text("[tune]\nbatch = 0\n")
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--config", config), f"{config}: tune.batch: 0: expected")
    config.write_text("[tune\n")
    refused(vectune("tune", dataset, "--out", tmp_path / "m", "--config", config), str(config), "not valid TOML")


def test_evaluate_writes_the_promised_json(vectune: Run, dataset: Path, tmp_path: Path) -> None:
    shown = vectune("evaluate", dataset, "--model", "bm25", "--json", tmp_path / "board.json")
    assert shown.code == 0, shown.err
    board = json.loads((tmp_path / "board.json").read_text())
    assert (board["split"], board["corpus"], board["queries"]) == ("test", 8, 2)
    row = board["rows"][0]
    assert row["name"] == "bm25"
    assert {"nDCG@10", "RR@10", "hit@1", "hit@5", "hit@10", "R@10"} <= set(row["measures"])
    assert row["measures"]["hit@1"] == 1.0


def test_report_of_something_that_is_no_run(vectune: Run, tmp_path: Path) -> None:
    refused(vectune("report", tmp_path), str(tmp_path))


def test_ctrl_c_says_how_to_go_on(dataset: Path, tmp_path: Path, tiny_bert: Path) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "vectune", "tune", str(dataset), "--out", str(tmp_path / "m")]
    process = subprocess.Popen([*command, "--model", str(tiny_bert)], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / ".m.work").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_ctrl_c_while_the_program_starts(tmp_path: Path) -> None:
    """The imports take a moment, and what they import catches nothing."""

    code = (
        "import os, signal; from vectune.__main__ import main; import typer; "
        "typer.Typer.__init__ = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "error: interrupted.\n"), done.stderr


def test_queries_in_no_split_are_told(vectune: Run, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("apples", "bridges", "clouds", "drums"):  # so few that they are cut into sections
        parts = (f"{word} of {name} has the number {n} in the {word} book." for n, word in enumerate(WORDS))
        (tmp_path / "docs" / f"{name}.md").write_text("\n\n".join(parts))
    config = tmp_path / "vectune.toml"
    config.write_text("[chunks]\ntokens = 40\n[filters]\nconsistency = false\n[split]\ndev = 0.0\ntest = 0.3\n")
    given = ("--out", tmp_path / "d", "--model", tiny_bert, "--config", config)
    shown = vectune("prepare", tmp_path / "docs", *given)
    assert shown.code == 0, shown.err
    dataset = RetrievalDataset.read(tmp_path / "d")
    apart = len(set(dataset.queries).difference(*dataset.qrels.values()))
    assert apart and f"{apart} queries are in no split: " in shown.out


def test_a_log_is_told_what_is_done(tmp_path: Path, tiny_bert: Path) -> None:
    """Standard error is no terminal: a line a stage, and no bars."""
    (tmp_path / "docs").mkdir()
    for name in ("apples", "bridges", "clouds", "drums", "engines", "forests", "glaciers", "harbours"):
        parts = (f"{word} of {name} has the number {n} in the {word} book." for n, word in enumerate(WORDS))
        (tmp_path / "docs" / f"{name}.md").write_text("\n\n".join(parts))
    command = [sys.executable, "-m", "vectune", "prepare", str(tmp_path / "docs"), "--out", str(tmp_path / "d")]
    done = subprocess.run([*command, "--model", str(tiny_bert)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.endswith("…")] == ["chunks …", "queries …", "dataset …"]
