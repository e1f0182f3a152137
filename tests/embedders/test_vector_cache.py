"""VectorCache and CachedEmbedder: each text once, also beside other processes and after SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vectune.embedders import cache as cache_module
from vectune.embedders.cache import VectorCache, cached_models, folder_size, prune, remove_cached, text_keys
from vectune.embedders.cached import KEEP_EVERY, CachedEmbedder
from vectune.embedders.callables import CallableEmbedder
from vectune.embedders.factory import open_embedder
from vectune.errors import InputError, ModelError, OutputError, StorageError, UsageError, VectuneError
from vectune.progress import Progress

DIM = 16


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that can be told from the text, so that a mixed-up row shows."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=DIM) for text in texts]
    found = np.array(rows, dtype=np.float32).reshape(len(texts), DIM)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def texts(count: int, start: int = 0) -> list[str]:
    return [f"text {number}" for number in range(start, start + count)]


def read(cache: VectorCache, wanted: list[str], role: str = "document") -> tuple[np.ndarray, list[int]]:
    out = np.zeros((len(wanted), DIM), dtype=np.float32)
    return out, cache.get(wanted, role, out).tolist()


def test_what_was_put_is_found_and_nothing_else() -> None:
    cache = VectorCache("a", DIM)
    assert cache.put(texts(5), "document", vectors_of(texts(5))) == 5
    out, missing = read(cache, ["text 3", "other", "text 0"])
    np.testing.assert_array_equal(out[[0, 2]], vectors_of(["text 3", "text 0"]))
    assert missing == [1]
    assert read(cache, ["text 3"], "query")[1] == [0]  # a query's vector is another one


def test_it_is_there_in_the_next_process_and_other_fingerprints_are_apart() -> None:
    VectorCache("a", DIM).put(texts(3), "query", vectors_of(texts(3)))
    again = VectorCache("a")
    assert (again.dim, len(again)) == (DIM, 3)
    assert read(again, texts(3), "query")[1] == []
    assert read(VectorCache("b", DIM), texts(3), "query")[1] == [0, 1, 2]


def test_every_key_has_a_folder_of_its_own_under_the_root() -> None:
    root = VectorCache("a", DIM).root
    long = "f" * 64
    odd = ["org/model", "../../escaped", "", ".", "Upper", "model one", long + "0", long + "1", "ab-" + "x" * 300]
    ours = [long, "ab" * 16 + "-fp32", "ab" * 16 + "-0123abcd"]
    folders = [VectorCache(key, DIM).folder for key in [*odd, *ours]]
    assert len(set(folders)) == len(folders)
    assert {folder.parent for folder in folders} == {root}
    assert [folder.name for folder in folders[len(odd) :]] == ours  # where earlier versions kept them


def test_nan_and_zero_and_other_lengths_are_never_kept() -> None:
    cache = VectorCache("a", DIM)
    found = vectors_of(texts(4))
    found[0, 0], found[1], found[2] = np.nan, 0, found[2] * 3
    assert cache.put(texts(4), "document", found) == 1
    assert read(cache, texts(4))[1] == [0, 1, 2]


def test_another_dimension_is_refused() -> None:
    VectorCache("a", DIM)
    with pytest.raises(ModelError, match=f"holds vectors of {DIM} dimensions, but small has 8"):
        VectorCache("a", 8, name="small")


def test_a_text_put_twice_has_one_row() -> None:
    cache = VectorCache("a", DIM)
    cache.put(["x", "x"], "document", vectors_of(["x", "x"]))
    cache.put(["x"], "document", vectors_of(["x"]))
    assert len(cache) == 1
    assert cache.data.stat().st_size <= 2 * 4 * DIM


def test_a_blank_row_is_computed_again() -> None:
    """A power cut can lose the rows while their keys are kept."""
    cache = VectorCache("a", DIM)
    cache.put(texts(3), "document", vectors_of(texts(3)))
    cache.close()
    with cache.data.open("r+b") as file:
        file.seek(4 * DIM)
        file.write(bytes(4 * DIM))
    again = VectorCache("a", DIM)
    assert read(again, texts(3))[1] == [1]
    again.put(["text 1"], "document", vectors_of(["text 1"]))
    out, missing = read(again, texts(3))
    assert missing == []
    np.testing.assert_array_equal(out, vectors_of(texts(3)))


def test_keys_that_share_their_first_half_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cache_module, "text_keys", lambda texts, role: [(7, tail) for _, tail in text_keys(texts, role)]
    )
    cache = VectorCache("a", DIM)
    cache.put(["x"], "document", vectors_of(["x"]))
    assert read(cache, ["y"])[1] == [0]


def test_a_damaged_key_file_starts_anew() -> None:
    cache = VectorCache("a", DIM)
    cache.put(texts(2), "document", vectors_of(texts(2)))
    cache.close()
    for file in cache.folder.glob("keys.db*"):
        file.write_bytes(b"this is no database" * 100)
    told: list[str] = []
    again = VectorCache("a", DIM, warn=told.append)
    assert read(again, texts(2))[1] == [0, 1]
    assert again.put(texts(2), "document", vectors_of(texts(2))) == 2
    (aside,) = again.folder.glob("damaged-*-vectors.f32")
    np.testing.assert_array_equal(np.fromfile(aside, np.float32).reshape(2, DIM), vectors_of(texts(2)))
    assert list(again.folder.glob("damaged-*-keys.db"))
    assert "damaged" in told[0]


@pytest.mark.parametrize(
    ("code", "message", "error", "told"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full", StorageError, "the disk is full"),
        (sqlite3.SQLITE_IOERR, "disk I/O error", StorageError, "the disk is full"),
        (sqlite3.SQLITE_BUSY, "database is locked", StorageError, "database is locked"),
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database", OutputError, "cannot be written"),
    ]
    if sys.version_info >= (3, 11)
    else [],
)
def test_keys_that_cannot_be_opened_now_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, code: int, message: str, error: type[VectuneError], told: str
) -> None:
    """A full disk is not a damaged file: what is on it was paid for."""
    cache = VectorCache("a", DIM)
    cache.put(texts(2), "document", vectors_of(texts(2)))
    cache.close()

    def refuse(path: Path) -> sqlite3.Connection:
        problem = sqlite3.OperationalError(message)
        problem.sqlite_errorcode = code
        raise problem

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "_connect", refuse)
        if code == sqlite3.SQLITE_IOERR:
            patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
        with pytest.raises(error, match=told) as caught:
            VectorCache("a", DIM)
        assert caught.value.hint
    assert read(VectorCache("a", DIM), texts(2))[1] == []


def test_keys_that_cannot_be_written_are_one_clear_error() -> None:
    cache = VectorCache("a")
    cache._db.execute("PRAGMA query_only = 1")
    with pytest.raises(OutputError, match="cannot be written"):
        cache.with_dim(DIM)


def test_a_disk_that_fills_while_keys_are_committed_does_not_stop_the_work() -> None:
    cache = VectorCache("a", DIM)
    cache._db.execute("PRAGMA max_page_count = 4")
    assert cache.put(texts(2000), "document", vectors_of(texts(2000))) == 0
    assert cache.full
    assert read(cache, texts(3))[1] == [0, 1, 2]


def _fill(start: int, count: int) -> None:
    cache = VectorCache("5a", DIM)
    for number in range(start, start + count, 20):
        cache.put(texts(20, number), "document", vectors_of(texts(20, number)))


def test_processes_at_once_share_no_row() -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(start, 400)) for start in (0, 200, 400)]  # they overlap
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    cache = VectorCache("5a", DIM)
    out, missing = read(cache, texts(800))
    assert missing == []
    assert len(cache) == 800
    np.testing.assert_array_equal(out, vectors_of(texts(800)))


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_vector_cache import DIM, VectorCache, texts, vectors_of
cache = VectorCache("dead", DIM)
for number in range(0, 100_000, 10):
    cache.put(texts(10, number), "document", vectors_of(texts(10, number)))
    print(number, flush=True)
"""


def test_sigkill_loses_nothing_that_was_put() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    done = 0
    while done < 500:
        done = int(worker.stdout.readline()) + 10
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    cache = VectorCache("dead", DIM)
    out, missing = read(cache, texts(done))
    assert missing == []
    np.testing.assert_array_equal(out, vectors_of(texts(done)))
    cache.put(["next"], "document", vectors_of(["next"]))
    np.testing.assert_array_equal(read(cache, ["next"])[0], vectors_of(["next"]))


def test_the_limit_makes_the_least_recently_used_go_first() -> None:
    for age, key in ((300, "a1"), (200, "a2"), (100, "a3")):
        _filled(key, age, name=f"model {key}")
    size = sum(model.size for model in cached_models())
    told: list[str] = []
    latest = VectorCache("a4", DIM, limit_gib=size / 2**30, warn=told.append)
    assert latest.put(texts(2000), "document", vectors_of(texts(2000))) == 2000
    left = {model.key for model in cached_models()}
    assert "a1" not in left
    assert {"a4", "a3"} <= left
    assert len(told) == 1 and "vectors of model a1" in told[0] and "removed" in told[0]


def _filled(key: str, age: float, **about: Any) -> VectorCache:
    cache = VectorCache(key, DIM, **about)
    cache.put(texts(2000), "document", vectors_of(texts(2000)))
    cache.close()
    used = time.time() - age
    os.utime(cache.folder / "about.json", (used, used))
    return cache


def test_what_was_paid_for_never_makes_room_by_itself() -> None:
    _filled("a1", 400, name="mine", paid=True)
    old = _filled("a2", 300, name="openai:small")
    (old.folder / "about.json").write_text('{"name": "openai:small"}')  # as earlier versions wrote it
    _filled("a3", 200, name="local")
    size = sum(model.size for model in cached_models())
    told: list[str] = []
    latest = VectorCache("a4", DIM, limit_gib=1.2 * size / 2**30, warn=told.append)
    assert latest.put(texts(2000), "document", vectors_of(texts(2000))) == 2000
    assert {model.key for model in cached_models()} == {"a1", "a2", "a4"}
    latest.close()
    _filled("a5", 100, name="small", paid=True)
    more = VectorCache("a6", DIM, limit_gib=0.5 * size / 2**30, warn=told.append)
    assert more.put(texts(10), "document", vectors_of(texts(10))) == 0
    assert "a4" in {model.key for model in cached_models()}  # to remove it would not have been enough
    assert "cache is full" in told[-1]
    assert {model.key for model in prune(0)} == {"a1", "a2", "a4", "a5"}  # a person may


def test_an_embedder_may_have_cost_money_unless_it_says_otherwise(tiny_static: Path) -> None:
    CachedEmbedder(Counting()).embed_documents(["x"])
    open_embedder(str(tiny_static)).embed_documents(["cat"])
    assert {model.name: model.paid for model in cached_models()} == {"counting": True, str(tiny_static): False}


def test_a_full_cache_is_told_before_all_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, asked = Counting(), []
    progress = Progress(terminal=False)
    monkeypatch.setattr(progress, "warn", lambda message: asked.append(sum(embedder.asked.values())))
    CachedEmbedder(embedder, progress, limit_gib=1e-6).embed_documents(texts(3000))
    assert asked == [KEEP_EVERY]


def test_beyond_the_limit_nothing_is_kept_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    embedder = CachedEmbedder(CallableEmbedder(vectors_of, vectors_of), Progress(terminal=False), limit_gib=1e-6)
    for _ in range(2):
        np.testing.assert_allclose(embedder.embed_documents(texts(50)), vectors_of(texts(50)), rtol=1e-5)
    assert len(embedder.cache) == 0
    assert capsys.readouterr().err.count("cache is full") == 1


def test_a_full_disk_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VectorCache, "_write_rows", full)
    embedder = CachedEmbedder(CallableEmbedder(vectors_of, vectors_of), Progress(terminal=False))
    np.testing.assert_allclose(embedder.embed_documents(texts(3)), vectors_of(texts(3)), rtol=1e-5)
    assert len(embedder.cache) == 0


def test_pruning_leaves_what_a_process_uses() -> None:
    used, unused = VectorCache("a1", DIM), VectorCache("a2", DIM)
    unused.close()
    assert [model.key for model in prune(0)] == ["a2"]
    assert not remove_cached("a1")
    assert used.put(["x"], "document", vectors_of(["x"])) == 1
    used.close()
    assert remove_cached("a1")
    assert cached_models() == []
    with pytest.raises(InputError, match="limit is -1"):
        prune(-1)


class Counting:
    """Counts how often it is asked for each text; fails at one when told to."""

    name, dim, fingerprint = "counting", DIM, "c0ffee"

    def __init__(self, fails_at: str = "") -> None:
        self.asked: Counter[str] = Counter()
        self.fails_at = fails_at

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.update(texts)
        return vectors_of(texts)

    def stream(self, texts: Sequence[str], role: str) -> object:
        for place, text in enumerate(texts):
            if text == self.fails_at:
                raise RuntimeError("out of luck")
            yield [place], self.embed_documents([text])


def test_each_text_is_embedded_once_whatever_the_run() -> None:
    first, second = Counting(), Counting()
    wanted = [*texts(10), *texts(10)]
    np.testing.assert_array_equal(CachedEmbedder(first).embed_documents(wanted), vectors_of(wanted))
    np.testing.assert_array_equal(CachedEmbedder(second).embed_documents(wanted), vectors_of(wanted))
    assert set(first.asked.values()) == {1}
    assert not second.asked


def test_vectors_of_any_length_are_kept_at_unit_norm() -> None:
    class Long(Counting):
        def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
            return 3 * super().embed_documents(texts)

    first, second = Long(), Long()
    np.testing.assert_allclose(CachedEmbedder(first).embed_documents(texts(5)), vectors_of(texts(5)), atol=1e-6)
    CachedEmbedder(second).embed_documents(texts(5))
    assert not second.asked


def test_what_was_computed_before_a_failure_is_kept() -> None:
    failing, next_run = Counting(fails_at="text 7"), Counting()
    with pytest.raises(RuntimeError, match="out of luck"):
        CachedEmbedder(failing).embed_documents(texts(10))
    CachedEmbedder(next_run).embed_documents(texts(10))
    assert sorted(next_run.asked) == ["text 7", "text 8", "text 9"]


def test_the_command_lists_and_prunes() -> None:
    from vectune.cli.cache import app

    for key, name in (("aaaa1111", "one"), ("bbbb2222", "two"), ("cccc3333", "three")):
        cache = VectorCache(key, DIM, name=name)
        cache.put(texts(3), "document", vectors_of(texts(3)))
        cache.close()
    run = CliRunner()
    listed = run.invoke(app, ["list"])
    assert listed.exit_code == 0
    assert all(part in listed.output for part in ("aaaa1111", "3 vectors × 16", "today", "two"))
    for unclear in ([""], ["aaaa", ""], ["aaaa", "--older-than", "3"], ["two", "--max-gib", "9"], ["two", "--all"]):
        assert isinstance(run.invoke(app, ["prune", *unclear]).exception, UsageError)
    assert run.invoke(app, ["prune", "--older-than", "-1"]).exit_code == 2
    assert len(cached_models()) == 3
    assert "removed 1 of 1" in run.invoke(app, ["prune", "two"]).output
    assert "removed 1 of 1" in run.invoke(app, ["prune", "aaaa"]).output
    assert isinstance(run.invoke(app, ["prune", "zzz"]).exception, InputError)
    assert isinstance(run.invoke(app, ["prune"]).exception, InputError)
    assert "removed 0 of 1" in run.invoke(app, ["prune", "--older-than", "2"]).output
    assert "removed 1 of 1" in run.invoke(app, ["prune", "--all"]).output
    assert cached_models() == []


def test_the_database_waits_for_a_writer_and_needs_no_memory_for_keys(tmp_path: Path) -> None:
    cache = VectorCache("a", DIM)
    cache.put(texts(2000), "document", vectors_of(texts(2000)))
    other = sqlite3.connect(cache.folder / "keys.db")
    other.execute("BEGIN IMMEDIATE")
    assert read(cache, texts(5))[1] == []  # readers do not wait
    other.rollback()
    other.close()
    assert folder_size(cache.folder) > 2000 * 4 * DIM
