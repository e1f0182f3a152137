"""Rows' names on boards."""

from __future__ import annotations

import pytest

from vectune.board import renamed


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("runs/model", "tuned"),
        ("hybrid:runs/model", "hybrid:tuned"),
        ("hybrid:runs/model@128", "hybrid:tuned@128"),
        ("runs/model-v2", "runs/model-v2"),
        ("my/runs/model", "my/runs/model"),
    ],
)
def test_a_model_is_called_otherwise_by_its_whole_name(row: str, shown: str) -> None:
    assert renamed(row, "runs/model", "tuned") == shown
