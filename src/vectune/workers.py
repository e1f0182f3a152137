"""Processes that read files: kept alive for many files, killed and replaced when one of them crashes or hangs."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any

from vectune.extraction import receive, send

FILES_PER_WORKER = 500  # then a fresh one: native code may leak
MEMORY_GIB = 4.0


def cpu_count() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Worker:
    """One process; started with the first file.

    A plain subprocess and not multiprocessing: a spawned child would import the user's script again.
    """

    def __init__(self, timeout: float, memory_gib: float = MEMORY_GIB, module: str = "vectune.extraction") -> None:
        self.timeout, self.memory_gib, self.module = timeout, memory_gib, module
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._stopped = False
        self._lock = threading.Lock()  # between the thread that reads a file and the one that ends everything

    def extract(self, path: str, source: str, ocr: bool) -> dict[str, Any]:
        """The answer of ``extraction.extract``; a crash or a hang is a reason too."""
        process = self._started()
        if process is None:
            return {"reason": "not read: the run was ended"}
        assert process.stdin is not None and process.stdout is not None
        hung = threading.Event()

        def kill() -> None:
            hung.set()
            process.kill()

        timer = threading.Timer(self.timeout, kill)
        timer.daemon = True
        timer.start()
        try:
            send(process.stdin, {"path": path, "source": source, "ocr": ocr}, "surrogatepass")  # the path is exact
            answer = receive(process.stdout)
        except OSError:
            answer = None
        finally:
            timer.cancel()
            timer.join()  # so that it cannot kill the process after this
        self._served += 1
        if answer is not None and not hung.is_set():
            return dict(answer)
        code = self.close()
        if hung.is_set():
            return {"reason": f"reading it took over {self.timeout:g} s"}
        return {"reason": f"reading it crashed or needed over {self.memory_gib:g} GiB (exit status {code})"}

    def _started(self) -> subprocess.Popen[bytes] | None:
        if self._served >= FILES_PER_WORKER or (self._process is not None and self._process.poll() is not None):
            self.close()
        with self._lock:
            if self._process is None and not self._stopped:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", self.module, str(self.memory_gib)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                self._served = 0
            return self._process

    def stop(self) -> None:
        """End the process, and start none again."""
        self._stopped = True
        with self._lock:
            if self._process is not None:
                self._process.kill()  # the thread that reads from it sees the end and closes the pipes

    def close(self) -> int | None:
        """End the process; its exit status, if there was one."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was still to be sent to a dead process
                    stream.close()
        return process.wait()


class WorkerPool:
    """Some workers, each driven by a thread."""

    def __init__(
        self, count: int, timeout: float, memory_gib: float = MEMORY_GIB, module: str = "vectune.extraction"
    ) -> None:
        self._workers = [Worker(timeout, memory_gib, module) for _ in range(count)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="vectune-worker")

    def submit(self, path: str, source: str, ocr: bool) -> Future[dict[str, Any]]:
        """Read a file as soon as a worker is free."""
        return self._threads.submit(self._extract, path, source, ocr)

    def _extract(self, path: str, source: str, ocr: bool) -> dict[str, Any]:
        worker = self._idle.get()
        try:
            return worker.extract(path, source, ocr)
        finally:
            self._idle.put(worker)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()  # so that no thread waits for a file any more
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()
