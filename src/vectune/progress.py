"""Progress: a bar in the terminal while someone watches, and ``events.jsonl`` always.

A stage takes a ``Progress`` and never prints. ``SILENT`` does nothing, so that functions called from Python are quiet.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


LONG = 10.0  # seconds of a piece of work that a log is told of


class Task:
    """One counted piece of work."""

    def __init__(self, bars: RichProgress | None, bar: TaskID | None) -> None:
        self.done = 0
        self._bars, self._bar = bars, bar

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Count ``n`` more as done; ``note`` replaces the text behind the bar."""
        self.done += n
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, advance=n)
            if note is not None:
                self._bars.update(self._bar, note=note)


class Progress:
    """Where a stage reports what it does.

    Args:
        events: the ``events.jsonl`` to append to; one JSON object a line with ``time`` (seconds since the epoch) and
            ``kind``. None writes no file.
        terminal: draw bars and messages on standard error; None means "when standard error is a terminal".
    """

    def __init__(self, events: Path | None = None, terminal: bool | None = None) -> None:
        self.events = events
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.log = terminal is None and not self.terminal  # standard error goes into a file: a line for what took long
        self._bars: RichProgress | None = None

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event; a line is written whole, so a killed run leaves at most one broken last line."""
        if self.events is None:
            return
        self.events.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, ensure_ascii=False)
        with self.events.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")

    def milestone(self, message: str) -> None:
        """A line on standard error where no bars are drawn and somebody reads what is left: the log of a CI job."""
        if self.log:
            print(message, file=sys.stderr, flush=True)  # noqa: T201 - as in ``warn``

    def say(self, message: str) -> None:
        """A message for the person watching; also an event."""
        self.event("message", text=message)
        if self.terminal:
            self._console().print(message, highlight=False, markup=False)

    def warn(self, message: str) -> None:
        """Something a person must know even without a terminal: always on standard error, and an event."""
        self.event("warning", text=message)
        if self._bars is not None:
            self._bars.console.print(f"warning: {message}", highlight=False, markup=False)
        else:
            print(f"warning: {message}", file=sys.stderr)  # noqa: T201 - the one place that speaks without a terminal

    @contextmanager
    def task(self, name: str, total: int | None = None, unit: str = "items") -> Iterator[Task]:
        """Count a piece of work; shows rate and time left, and records its duration."""
        started = time.perf_counter()
        self.event("start", task=name, total=total, unit=unit)
        with self._bar(name, total, unit) as task:
            yield task
        seconds = time.perf_counter() - started
        if seconds >= LONG:
            self.milestone(f"{name}: {task.done:,} {unit} in {seconds:.0f} s")
        self.event("done", task=name, count=task.done, unit=unit, seconds=round(seconds, 3))

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str) -> Iterator[Task]:
        if not self.terminal:
            yield Task(None, None)
            return
        if self._bars is not None:  # a task within a task gets its own line
            bar = self._bars.add_task(name, total=total, unit=unit, note="")
            yield Task(self._bars, bar)
            self._bars.remove_task(bar)
            return
        with self._new_bars() as self._bars:
            try:
                yield Task(self._bars, self._bars.add_task(name, total=total, unit=unit, note=""))
            finally:
                self._bars = None

    def _console(self) -> Console:
        if self._bars is not None:
            return self._bars.console
        from rich.console import Console

        return Console(stderr=True)

    def _new_bars(self) -> RichProgress:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: RichTask) -> Text:
                speed = task.finished_speed or task.speed
                if not speed:
                    return Text("")
                figure = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
                return Text(f"{figure} {task.fields['unit']}/s")

        return RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console(),
        )


SILENT = Progress(terminal=False)
