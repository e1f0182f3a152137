"""Locks on open files between processes; they go when the process does, also by SIGKILL.

Windows has no flock: there nothing is locked, and what needs it is told by ``LOCKS``.
"""

from __future__ import annotations

from typing import IO, Any

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

LOCKS = fcntl is not None


def hold(file: IO[Any], *, shared: bool = False) -> None:
    """Wait until nobody else holds the file, or only those who share it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_to_hold(file: IO[Any]) -> bool:
    """Hold the file for oneself; False where another process holds it.

    Raises:
        OSError: the file system knows no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
