"""Ctrl-C, also where Python drops what it raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

# what is raised in a weak reference's callback is dropped
DROPPED = """
import os, signal, sys, time, weakref
from vectune.cli import app
class Thing: pass
def press():
    thing = Thing()
    watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
def work(arguments):
    press()
    {then}
    print("worked on")
app.app = work
app.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
@pytest.mark.parametrize("then", ["time.sleep(600)", "press(); time.sleep(600)", "raise app.VectuneError('broken')"])
def test_an_interruption_that_python_drops_ends_the_program_all_the_same(then: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED.format(then=then)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.count("interrupted; run the same command again") == 1
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
def test_whoever_was_interrupted_and_came_to_the_end_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED.format(then="pass")], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (130, "worked on\n")
    assert "interrupted" in done.stderr


def test_what_else_python_drops_is_told_as_before() -> None:
    code = "from vectune.cli.interrupt import CtrlC\nclass T:\n    def __del__(self): 1 / 0\nwith CtrlC(''): T()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr
