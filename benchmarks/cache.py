"""The vector cache at size: how fast it fills, what it takes on disk, and what a fresh process needs to look texts up.

    python benchmarks/cache.py FOLDER 10000000

Fills a cache under FOLDER with vectors of short texts (small ones, for it is the keys that are measured), in blocks as
an embedder hands them over. What is there already counts, so the command can be stopped and repeated. Then a process of
its own opens the cache and looks up texts from all over it, as many unknown as known, and checks the vectors.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vectune.embedders.cache import VectorCache, folder_size

KEY = "benchmark"
BLOCK = 1024  # texts in one write: what an embedder hands over at once
REPORT = 1_000_000


def texts_of(numbers: NDArray[np.int64]) -> list[str]:
    return [f"text number {number}" for number in numbers.tolist()]


def vectors_of(numbers: NDArray[np.int64], dim: int) -> NDArray[np.float32]:
    """A unit vector of each number, the same in every process."""
    waves = np.sin(numbers[:, None] * (1.0 + np.arange(dim)) + 1.0)
    unit: NDArray[np.float32] = (waves / np.linalg.norm(waves, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fill(root: Path, count: int, dim: int) -> None:
    """Put the texts that are missing, and tell the rate of each million."""
    cache = VectorCache(KEY, dim, root=root, limit_gib=1000)
    there, wall, cpu = len(cache), time.perf_counter(), time.process_time()
    for start in range(there, count, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, count))
        cache.put(texts_of(numbers), "document", vectors_of(numbers, dim))
        done = int(numbers[-1]) + 1
        if done % REPORT < BLOCK or done == count:
            now, used, new = time.perf_counter() - wall, time.process_time() - cpu, done - there
            print(f"{done:>12,} keys: {new / now:,.0f} a second, {1e6 * used / new:.1f} µs of CPU each", flush=True)
            there, wall, cpu = done, time.perf_counter(), time.process_time()
    cache.close()
    size = folder_size(cache.folder)
    vectors = cache.data.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"on disk {size / 2**30:.2f} GiB: {(size - vectors) / count:.1f} bytes a key beside {4 * dim} of its vector")
    print(f"peak memory of the filling process {peak:.0f} MiB")


def look(root: Path, count: int, dim: int, asked: int) -> None:
    """Look texts up from all over the cache, half of them unknown."""
    before = memory()
    started = time.perf_counter()
    cache = VectorCache(KEY, dim, root=root, limit_gib=1000)
    opened = time.perf_counter() - started
    numbers = np.random.default_rng(0).integers(0, 2 * count, asked)
    texts, found = texts_of(numbers), np.zeros((asked, dim), dtype=np.float32)
    started, cpu = time.perf_counter(), time.process_time()
    missing = cache.get(texts, "document", found)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    known = numbers < count
    assert np.array_equal(np.flatnonzero(~known), missing)
    assert np.array_equal(found[known], vectors_of(numbers[known], dim))
    print(f"opened in {1000 * opened:.0f} ms; {asked:,} texts looked up in {seconds:.2f} s ({cpu:.2f} s of CPU)")
    print(f"MiB of memory before: {json.dumps(before)}; after: {json.dumps(memory())}")


def memory() -> dict[str, int]:
    """Resident memory in MiB: the process's own, and pages of mapped files, which the system takes back as it needs."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    named = {"RssAnon:": "own", "RssFile:": "files", "VmHWM:": "peak"}
    return {named[line[0]]: int(line[1]) // 1024 for line in lines if line[0] in named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("keys", type=int)
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--asked", type=int, default=100_000)
    parser.add_argument("--look", action="store_true", help="only look up, in this process")
    given = parser.parse_args()
    if given.look:
        look(given.folder, given.keys, given.dim, given.asked)
        return
    fill(given.folder, given.keys, given.dim)
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--look"], check=True)


if __name__ == "__main__":
    main()
