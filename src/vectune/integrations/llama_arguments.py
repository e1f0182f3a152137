"""Keyword arguments of the LlamaIndex doors: none is swallowed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from vectune.errors import UsageError

LLAMA_BATCH, LLAMA_EPOCHS, LLAMA_RATE = 10, 2, 2e-5  # LlamaIndex's pairs in a step, passes and learning rate


def refuse_unknown(given: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Nothing is swallowed.

    Raises:
        UsageError: a name that means nothing here, with the nearest that does.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
            raise UsageError(f"{where}: there is no '{name}'.", hint)
