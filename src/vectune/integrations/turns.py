"""One at a time: what several threads of a framework call is an embedder that takes one call."""

from __future__ import annotations

import threading
from typing import Any


class Turns:
    """A lock whose copy, in another process or this one, is a new lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, ()
