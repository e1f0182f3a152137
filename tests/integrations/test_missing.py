"""Without its framework a door names the pip line; the other doors open."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("door", "package", "extra"),
    [
        ("llama_index", "llama_index", "llama-index"),
        ("langchain", "langchain_core", "langchain"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_the_pip_line(door: str, package: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from vectune.errors import MissingExtraError\n"
        f"try: import vectune.integrations.{door}\n"
        "except MissingExtraError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"pip install 'vectune[{extra}]'"


def test_continuous_integration_has_every_framework() -> None:
    """Their tests are skipped where a framework is missing, so the extra that CI installs must bring them all."""
    brought = [
        line for line in metadata("vectune").get_all("Requires-Dist", ()) if re.search(r"extra == ['\"]dev", line)
    ]
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text()
    for package in ("haystack-ai", "langchain-core", "langchain-tests", "llama-index-core"):
        assert any(line.startswith(package) for line in brought), package
        assert re.search(rf"^{package}==", pinned, re.MULTILINE), package
