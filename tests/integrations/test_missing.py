"""Without its framework a door names the pip line; the other doors open."""

from __future__ import annotations

import subprocess
import sys

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
