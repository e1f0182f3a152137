from __future__ import annotations

from pathlib import Path

import pytest

from vectune.workers import Worker, WorkerPool


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def process_of(answer: dict[str, str]) -> str:
    return answer["text"].rpartition(" ")[2]


def test_a_worker_serves_many_files_and_survives_what_libraries_print() -> None:
    worker = Worker(timeout=30, module="bad_worker")
    try:
        first, second = worker.extract("a", "a", False), worker.extract("print", "print", False)
    finally:
        worker.close()
    assert first["text"].startswith("a by")
    assert second["text"].startswith("print by")
    assert process_of(first) == process_of(second)


@pytest.mark.parametrize(("path", "reason"), [("crash", "crashed"), ("hang", "took over 3 s"), ("memory", "memory")])
def test_a_file_that_misbehaves_costs_only_itself(path: str, reason: str) -> None:
    worker = Worker(timeout=3 if path == "hang" else 60, memory_gib=1.0, module="bad_worker")
    try:
        assert reason in worker.extract(path, path, False)["reason"]
        assert worker.extract("good", "good", False)["text"].startswith("good by")
    finally:
        worker.close()


def test_leaving_the_pool_ends_its_processes_and_what_waits() -> None:
    with WorkerPool(1, timeout=60, module="bad_worker") as pool:
        hanging = pool.submit("hang", "hang", False)
        waiting = pool.submit("good", "good", False)
        while not hanging.running():
            pass
    assert "reason" in hanging.result(timeout=10)
    assert waiting.cancelled()
