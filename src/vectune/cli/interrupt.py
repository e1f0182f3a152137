"""Ctrl-C ends the program wherever it arrives, with one message and exit code 130.

Python drops what is raised while a weak reference's callback or a ``__del__`` runs, of which torch has thousands: the
program would say that it was interrupted, and work on.
"""

from __future__ import annotations

import _thread
import signal
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

PAUSE = 0.05  # seconds until a dropped interruption is raised again: the callback has ended by then


class Interrupted(SystemExit):
    """Ctrl-C was pressed. No KeyboardInterrupt: typer would end the program without a word."""


class CtrlC:
    """While it is entered, Ctrl-C raises ``Interrupted`` in the main thread, again and again where Python drops it.

    On leaving, the message is shown and the exit code is 130 where Ctrl-C was pressed, whatever has become of it.

    Args:
        message: for standard error.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.pressed = False
        self._entered = False

    def __enter__(self) -> None:
        self._handler, self._hook = signal.signal(signal.SIGINT, self._press), sys.unraisablehook
        sys.unraisablehook = self._drop
        self._thread = _thread.get_ident()
        self._entered = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        sys.unraisablehook = self._hook
        signal.signal(signal.SIGINT, self._handler)
        if self.pressed:
            print(f"error: {self.message}", file=sys.stderr)
            raise Interrupted(130) from None

    def _press(self, *_: object) -> NoReturn:
        self.pressed = True
        raise Interrupted(130)

    def _drop(self, dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, Interrupted):
            self._hook(dropped)
            return
        with suppress(RuntimeError):  # the program ends already
            _thread.start_new_thread(self._press_again, ())  # threading's locks may be held by what was interrupted

    def _press_again(self) -> None:
        time.sleep(PAUSE)
        if not self._entered:
            return
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:
            signal.pthread_kill(self._thread, signal.SIGINT)  # to the thread, which may sleep or wait for a server
