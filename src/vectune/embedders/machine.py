"""What this machine is fast at: is a bf16 matrix product faster than an fp32 one here, and are its cores free?

Measured, not looked up: processors without AVX-512 bf16 or AMX emulate bf16 at a fraction of fp32's speed, and flags
do not tell how fast a unit is. The answer is kept on disk by processor and torch version.
"""

from __future__ import annotations

import json
import os
import platform
import time
from functools import lru_cache
from pathlib import Path

from vectune.errors import VectuneError
from vectune.runs import cache_folder, hash_of, write_json

ROUNDS = 12  # the first sets up the kernels
FASTER = 1.3  # bf16 must gain this much before its rounding is worth it
SIZE = (512, 384, 1536)  # rows × in × out of the product that is timed: a small encoder's middle layer
GIB = 2.0**30
CROWDED = 1.5  # runnable processes for each core from which threads wait for each other most of the time


@lru_cache(maxsize=8)
def fast_bf16(device: str = "cpu") -> bool:
    """Whether bf16 is worth using on this device."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bf16_speedup() >= FASTER


def bf16_speedup() -> float:
    """Time of an fp32 matrix product over that of a bf16 one on this CPU; measured once, then read from disk."""
    import torch

    key = hash_of([_processor(), torch.__version__, torch.get_num_threads()])[:16]
    kept = cache_folder() / "machine" / f"{key}.json"
    try:
        return float(json.loads(kept.read_text(encoding="utf-8"))["bf16_speedup"])
    except (OSError, ValueError, KeyError, TypeError):
        speedup = _measure()
    try:
        write_json(kept, {"processor": _processor(), "torch": torch.__version__, "bf16_speedup": speedup})
    except (OSError, VectuneError):  # a cache that cannot be written must not stop the work
        return speedup
    return speedup


def _measure() -> float:
    import torch
    from torch.nn.functional import linear

    rows, narrow, wide = SIZE
    draw = torch.Generator().manual_seed(0)  # not the caller's: what is drawn later must not depend on a measurement
    left, right = torch.randn(rows, narrow, generator=draw), torch.randn(wide, narrow, generator=draw)
    pairs = [(left, right), (left.bfloat16(), right.bfloat16())]
    seconds: list[list[float]] = [[], []]
    with torch.inference_mode():
        for _ in range(ROUNDS):  # alternating, so that another program's load meets both
            for (x, weight), taken in zip(pairs, seconds, strict=True):
                started = time.perf_counter()
                linear(x, weight)
                taken.append(time.perf_counter() - started)
    exact, rounded = (min(taken) for taken in seconds)
    return exact / rounded


def crowded_note() -> str:
    """What to do when others use this machine's cores; empty where they are free.

    PyTorch's threads spin while they wait for each other. Where another process holds the core that one of them needs,
    a training step took 20 times as long (docs/performance.md).
    """
    import torch

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    if threads < 2 or not hasattr(os, "getloadavg") or os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        return ""
    load = os.getloadavg()[0]
    if load < CROWDED * cores:
        return ""
    return (
        f"other processes keep this machine busy (load {load:.1f} on {cores} cores), and {threads} threads that wait "
        "for each other may be many times slower than one: set OMP_WAIT_POLICY=PASSIVE, or OMP_NUM_THREADS=1, and "
        "start again; what is done is kept."
    )


def activation_bytes(gib: float | None = None, device: str = "cpu") -> float:
    """What activations of a training step may take: as asked, else a share of the memory that there is.

    Args:
        gib: a person's choice.
        device: on a GPU it is a quarter of its memory, elsewhere an eighth of this machine's, from 1 to 3 GiB.
    """
    if gib is not None:
        return gib * GIB
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory / 4
    return float(min(max(_memory() / 8, GIB), 3 * GIB))


def _memory() -> float:
    """Bytes that this process may use: the machine's, or what its container is limited to."""
    found = [8 * GIB]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found = [float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(float(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # not on this system, or "max"
            continue
    return min(found)


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's model and features; the model's name alone is blank or shared in virtual machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()} {platform.machine()} {os.cpu_count()}"
    wanted = ("model name", "model\t", "stepping", "flags", "CPU part", "Features")
    return hash_of(sorted({line for line in lines if line.startswith(wanted)}))
