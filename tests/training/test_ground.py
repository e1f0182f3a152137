"""What is known before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vectune.training.dev import DevSample
from vectune.training.ground import Look, _dev_in_time
from vectune.training.options import TuneOptions


def look_at(chunks: int, seconds: float) -> Look:
    """A look at dev that took so long."""
    return DevSample(np.arange(2), np.arange(chunks), np.zeros((2, chunks), np.int16)), np.zeros(2), seconds


@pytest.mark.parametrize(
    ("minutes", "seconds", "chunks"),
    [
        (None, 60.0, 1000),
        (30.0, 6.0, 1000),  # ten looks take a tenth of the time
        (1.0, 4.0, 500),  # 20 seconds for ten looks: two each
        (0.1, 4.0, 200),  # never fewer than these
    ],
)
def test_dev_is_small_enough_for_a_time_limit(
    minutes: float | None, seconds: float, chunks: int, tmp_path: Path
) -> None:
    options = TuneOptions(max_minutes=minutes)
    found = _dev_in_time(lambda most: look_at(most, seconds), "key", options, 1000, tmp_path / "dev.json")
    assert len(found[0].chunks) == chunks
    # a second start on a machine that is idle by then must look at the same chunks
    again = _dev_in_time(lambda most: look_at(most, 0.01), "key", options, 1000, tmp_path / "dev.json")
    assert len(again[0].chunks) == chunks


def test_chunks_that_are_asked_for_are_looked_at(tmp_path: Path) -> None:
    options = TuneOptions(max_minutes=0.1, dev_chunks=900)
    found = _dev_in_time(lambda most: look_at(most, 9.0), "key", options, 900, tmp_path / "dev.json")
    assert len(found[0].chunks) == 900
    assert not list(tmp_path.iterdir())
