from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vectune
from vectune.locks import hold, try_to_hold

WITHOUT = """
import sys
sys.modules["fcntl"] = None
from vectune.locks import LOCKS
del sys.modules["fcntl"]  # torch wants it where it is
from pathlib import Path
from vectune.embedders.cache import remove_cached
from vectune.queries.answers import Answers
from vectune.runs import work_folder
assert not LOCKS
with work_folder(Path("out")) as work:
    (work / "half").write_text("done")
assert not work.exists()
Answers(Path("answers.db")).close()
Path("vectors/key").mkdir(parents=True)
assert remove_cached("key", Path("vectors"))
"""
SOURCES = Path(vectune.__file__).parent


def test_one_process_at_a_time_or_all_that_share(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as one, path.open() as other, path.open() as third:
        assert try_to_hold(one)
        assert not try_to_hold(other)
        one.close()
        hold(other, shared=True)
        hold(third, shared=True)
        assert not try_to_hold(third)


def test_a_system_without_flock(tmp_path: Path) -> None:
    """As Windows is: folders, answers and vectors are kept all the same."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_else_needs_flock() -> None:
    """``import vectune`` fails on Windows otherwise."""
    assert [path.name for path in SOURCES.rglob("*.py") if "import fcntl" in path.read_text()] == ["locks.py"]
