"""What is measured of the machine."""

from __future__ import annotations

import os

import pytest
import torch

from vectune.embedders import machine
from vectune.embedders.machine import GIB, activation_bytes, bf16_speedup, crowded_note


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("load", "told"), [(0.5, False), (2.1, False), (6.3, True)])
def test_a_crowded_machine_is_told(monkeypatch: pytest.MonkeyPatch, load: float, told: bool) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    note = crowded_note()
    assert bool(note) == told
    assert not told or ("load 6.3 on 2 cores" in note and "OMP_WAIT_POLICY=PASSIVE" in note)


@pytest.mark.usefixtures("two_threads")
def test_threads_that_sleep_while_they_wait_need_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert crowded_note() == ""


def test_the_gain_of_bf16_is_measured_once(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTUNE_CACHE", str(tmp_path))
    first = bf16_speedup()
    assert first > 0
    assert bf16_speedup() == first


@pytest.mark.parametrize(("gib", "room"), [(4, 1), (16, 2), (512, 3)])
def test_activations_get_an_eighth_of_the_memory_within_bounds(
    monkeypatch: pytest.MonkeyPatch, gib: int, room: int
) -> None:
    monkeypatch.setattr(machine, "_memory", lambda: gib * GIB)
    assert activation_bytes() == room * GIB
    assert activation_bytes(0.5) == 0.5 * GIB


def test_a_container_has_no_more_memory_than_its_machine() -> None:
    assert GIB / 4 < machine._memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
