"""The run directory: files whole or absent, stages skipped when done, foreign folders left alone."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from tiny_dataset import small_dataset
from vectune.dataset import RetrievalDataset
from vectune.errors import OutputError, StorageError
from vectune.progress import Progress
from vectune.runs import (
    RunFolder,
    cache_folder,
    check_output,
    decided_once,
    hash_files,
    held,
    locked,
    processor_name,
    restore,
    storage_errors,
    work_folder,
    write_json,
    writing,
)


def test_writing_replaces_a_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "board.json"
    write_json(target, {"a": 1})
    write_json(target, {"a": 2})
    assert json.loads(target.read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["board.json"]


def test_what_a_clock_decided_is_kept_for_the_same_question(tmp_path: Path) -> None:
    kept, answers = tmp_path / "work" / "dev.json", iter([300, 200, 100])
    assert [decided_once(kept, key, lambda: next(answers)) for key in ("one", "one", "other")] == [300, 300, 200]
    kept.write_text("[broken")
    assert decided_once(kept, "other", lambda: next(answers)) == 100


def test_writing_replaces_a_folder_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("old", "new"):
        with writing(target) as beside:
            beside.mkdir()
            (beside / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.jsonl").write_text("precious")
    with pytest.raises(OutputError), writing(tmp_path / "data") as beside:
        beside.write_text("board")
    assert (tmp_path / "data" / "corpus.jsonl").read_text() == "precious"


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "board.json"
    write_json(target, 1)
    with pytest.raises(RuntimeError), writing(target) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["board.json"]


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"), storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(StorageError, match="the disk is full"), storage_errors(tmp_path):
        raise SafetensorError(message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_without_space_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"), writing(tmp_path / "x"):
        with Path("/dev/full").open("w") as file:
            file.write("x" * 100_000)


def test_check_output_takes_absent_empty_and_own_folders(tmp_path: Path) -> None:
    check_output(tmp_path / "absent", "run.json")
    check_output(tmp_path, "run.json")
    (tmp_path / "run.json").write_text("{}")
    check_output(tmp_path, "run.json")


def test_check_output_refuses_foreign_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        check_output(tmp_path, "run.json")
    with pytest.raises(OutputError, match="not a folder"):
        check_output(tmp_path / "thesis.tex", "run.json")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="broken symbolic link"):
        check_output(tmp_path / "link", "run.json")


def test_check_output_says_what_vectune_wrote(tmp_path: Path) -> None:
    small_dataset().write(tmp_path / "own")
    with pytest.raises(OutputError, match=r"own is a dataset that vectune wrote, and holds no run\.json"):
        check_output(tmp_path / "own", "run.json")


def test_a_stage_is_finished_with_its_key_and_its_target(tmp_path: Path) -> None:
    folder, target = RunFolder(tmp_path), tmp_path / "out.txt"
    assert folder.finished("tune", "k1", target) is None
    stage = folder.stage("tune", "k1", lambda: {"n": target.write_text("x")})
    assert folder.finished("tune", "k1", target) == stage
    assert stage.summary == {"n": 1}
    assert folder.finished("tune", "k2", target) is None
    target.unlink()
    assert folder.finished("tune", "k1", target) is None


def test_a_stage_that_fails_leaves_no_manifest(tmp_path: Path) -> None:
    def fail() -> dict[str, int]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        RunFolder(tmp_path).stage("tune", "k", fail)
    assert RunFolder(tmp_path).manifest("tune") is None


def test_a_broken_manifest_counts_as_unfinished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.stage("tune", "k", lambda: {})
    (tmp_path / "stages" / "tune.json").write_text('{"key": "k", "sec')
    assert folder.finished("tune", "k", tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_named() -> None:
    with pytest.raises(OutputError, match=r"/proc/board\.json: cannot be created"):
        write_json(Path("/proc/board.json"), {})


def test_a_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        check_output(tmp_path / ("a" * 300), "run.json")
    for written in (work_folder, writing):  # both have a longer name beside it
        with pytest.raises(OutputError, match="cannot be created"), written(tmp_path / ("a" * 250)):
            pytest.fail("that is no name")


def test_work_folder_is_kept_after_an_error_and_removed_after_success(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), work_folder(tmp_path / "out") as work:
        (work / "half").write_text("x")
        raise RuntimeError
    with work_folder(tmp_path / "out") as work:
        assert (work / "half").read_text() == "x"
    assert not work.exists()


def test_work_folder_goes_where_nothing_is_in_it_that_took_time(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), work_folder(tmp_path / "out") as work:
        (work / "lora.work").mkdir()
        (work / "lora.work" / "precision.json").write_text("{}")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def _try_lock(folder: Path) -> None:
    try:
        with locked(folder):
            os._exit(0)
    except OutputError:
        os._exit(3)


def test_a_folder_has_one_worker_at_a_time(tmp_path: Path) -> None:
    def other() -> int | None:
        process = multiprocessing.get_context("spawn").Process(target=_try_lock, args=(tmp_path,))
        process.start()
        process.join()
        return process.exitcode

    with locked(tmp_path):
        assert other() == 3
    assert other() == 0


def test_half_an_emoji_is_written_as_it_was_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"query": "\ud83d \U0001f600"})
    Progress(tmp_path / "events.jsonl", terminal=False).event("warning", text="caf\udce9.txt")
    assert json.loads((tmp_path / "a.json").read_text()) == {"query": "\ud83d \U0001f600"}
    assert json.loads((tmp_path / "events.jsonl").read_text())["text"] == "caf\udce9.txt"


def test_who_finds_a_folder_held_leaves_it_there(tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        (tmp_path / "run" / "run.json").write_text("{}")
        with pytest.raises(OutputError, match="at work here"), held(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / "run.json").exists()


def test_hash_files_sees_a_changed_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    before = hash_files([file])
    assert hash_files([file]) == before
    file.write_text("22")
    assert hash_files([file]) != before


@pytest.mark.skipif(os.name != "posix", reason="processes cannot be asked for elsewhere")
def test_hash_files_takes_a_link_to_nothing(tmp_path: Path) -> None:
    link = tmp_path / "gone.md"
    link.symlink_to(tmp_path / "nowhere")
    before = hash_files([link])
    (tmp_path / "nowhere").write_text("# There")
    assert hash_files([link]) != before


def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, living = (tmp_path / f".out.partial-{number}" for number in (dead.pid, os.getppid()))
    left.mkdir()
    (left / "half").write_text("h")
    living.write_text("still written")
    with writing(tmp_path / "out") as beside:
        beside.write_text("whole")
    assert not left.exists()
    assert living.exists()
    assert (tmp_path / "out").read_text() == "whole"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu avx avx2", "Abacus 9 (AVX2)"),
        ("avx2 avx512f avx512_bf16", "Abacus 9 (AVX-512 bf16)"),
        ("avx2 avx512_bf16 amx_bf16", "Abacus 9 (AMX)"),
        ("sse2", "Abacus 9"),
    ],
)
def test_a_processor_is_named_with_its_fastest_unit(flags: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = f"model name\t: Abacus 9\nflags\t\t: {flags}\n\n"
    monkeypatch.setattr(Path, "read_text", lambda file, **_: 2 * core)
    assert processor_name() == name


def test_a_folder_that_a_killed_process_set_aside_is_put_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    small_dataset().write(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / f".data.old-{dead.pid}")
    assert RetrievalDataset.read(tmp_path / "data").corpus == small_dataset().corpus
    again = tmp_path / f".data.old-{dead.pid}"
    again.mkdir()
    (again / ".git").mkdir()
    restore(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"] and (tmp_path / "data" / ".git").is_dir()


def test_a_persons_hidden_files_outlive_a_replacement(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with writing(tmp_path / "model") as beside:
            beside.mkdir()
            (beside / "weights").write_text(text)
        (tmp_path / "model" / ".git").mkdir(exist_ok=True)
        (tmp_path / "model" / ".git" / "HEAD").write_text("main")
    assert (tmp_path / "model" / "weights").read_text() == "two"
    assert (tmp_path / "model" / ".git" / "HEAD").read_text() == "main"


def test_the_cache_may_be_named_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VECTUNE_CACHE", "~/vectors")
    assert cache_folder() == tmp_path / "vectors"


def test_who_is_alone_with_a_folder_puts_it_back_whatever_the_number_says(tmp_path: Path) -> None:
    (tmp_path / f".data.old-{os.getppid()}").mkdir()  # another process has the killed one's number by now
    restore(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    restore(tmp_path / "data", alone=True)
    assert (tmp_path / "data").exists()
