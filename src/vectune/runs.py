"""The run directory: stages with manifests, files that appear whole or not at all, and where the caches live.

A stage writes beside its target and renames (``writing``); its manifest in ``stages/`` is written last and holds the
stage's key: a hash of its options and inputs. A stage whose manifest has the same key is skipped.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vectune.errors import OutputError, StorageError
from vectune.locks import LOCKS, try_to_hold

Json = dict[str, Any]
Decided = TypeVar("Decided")
_NO_SPACE = re.compile(r"os error (?:28|122)\b|No space left")


def cache_folder() -> Path:
    """Where vectors and paid answers are kept across runs: ``VECTUNE_CACHE``, or ``~/.cache/vectune``."""
    named = os.environ.get("VECTUNE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "vectune"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission or a read-only file system into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"{path}: the disk is full.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error
        no_place = error.errno == errno.ENOENT and Path(str(error.filename)).parent == path.parent  # as in /proc
        if no_place or error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise OutputError(f"{path}: cannot be created ({error.strerror}).") from error
        raise
    except Exception as error:  # safetensors has an error of its own, which is no OSError
        if type(error).__name__ == "SafetensorError" and _NO_SPACE.search(str(error)):
            raise StorageError(f"{path}: the disk is full.") from error
        raise


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target``; what is written there replaces the target when the block ends well.

    Works for a file and for a folder (make it yourself). After an error nothing of it is left; what a killed process
    left is removed by the next one, or put back where it was killed between two renames.
    """
    beside = target.with_name(f".{target.name}.partial-{os.getpid()}")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in (beside, *_abandoned(target, "partial")):
            remove(left)
        restore(target)
        try:
            yield beside
            replace(beside, target)
        finally:
            remove(beside)


def restore(target: Path, alone: bool = False) -> None:
    """Put a folder back that a killed process had set aside to replace it; where it is replaced, remove the old one.

    ``alone``: the caller holds the lock, so that whoever set it aside is gone.
    """
    for old in list(_beside(target, "old") if alone else _abandoned(target, "old")):
        if target.exists():
            _retire(old, target)
        else:
            os.replace(old, target)


def _abandoned(target: Path, kind: str) -> Iterator[Path]:
    """What processes that live no more have begun for this target, or set aside."""
    if os.name != "posix":  # elsewhere asking for a process may end it
        return
    yield from (path for path in _beside(target, kind) if _is_gone(path.name.rpartition("-")[2]))


def _beside(target: Path, kind: str) -> Iterator[Path]:
    return target.parent.glob(f".{glob.escape(target.name)}.{kind}-*")


def _is_gone(process: str) -> bool:
    try:
        if int(process) != os.getpid():  # in a container the next process may have the killed one's number
            os.kill(int(process), 0)
            return False
    except ProcessLookupError:
        pass
    except (ValueError, OverflowError, PermissionError):  # not ours to judge
        return False
    return True


def replace(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, also where both are folders, and the target an older version.

    A person's hidden files there (``.git``) stay.
    """
    if not (target.is_dir() and source.is_dir()):
        os.replace(source, target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.replace(target, old)
    os.replace(source, target)
    _retire(old, target)


def _retire(old: Path, target: Path) -> None:
    """Remove an older version, but for hidden files: they go into the new one."""
    for entry in old.glob(".*"):
        if not (target / entry.name).exists():
            os.replace(entry, target / entry.name)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder; fine when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write JSON so that the file is whole or absent."""
    with writing(path) as beside:
        text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
        beside.write_bytes(text.encode("utf-8", "backslashreplace"))  # half an emoji is JSON's escape again


def decided_once(kept: Path, key: str, decide: Callable[[], Decided]) -> Decided:
    """What a clock decided: a second start must not ask it again, for a loaded machine may answer otherwise.

    Args:
        kept: the file that keeps the answer, a value that JSON holds.
        key: of all that the answer is for; one for anything else does not count.
        decide: gives the answer where there is none.
    """
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["key"] == key:
            answer: Decided = found["decided"]
            return answer
    except (OSError, ValueError, KeyError, TypeError):
        pass
    answer = decide()
    write_json(kept, {"key": key, "decided": answer})
    return answer


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Hash of files by path, size and modification time: cheap enough to ask at every start.

    One that is gone, or a link to nothing, counts by its path alone: whoever reads it says what is wrong.
    """
    return hash_of([_facts(path) for path in paths])


def _facts(path: Path) -> tuple[str, int, int] | tuple[str]:
    try:
        stat = path.stat()
    except OSError:
        return (str(path),)
    return str(path), stat.st_size, stat.st_mtime_ns


def check_output(path: Path, marker: str) -> None:
    """Refuse an output path that holds something vectune did not write.

    Args:
        path: the folder to be written.
        marker: the file that tells one of ours (``dataset.json``, ``run.json``, ``vectune.json``).

    Raises:
        OutputError: it is a file, or a non-empty folder without the marker.
    """
    if path.name in ("", ".."):
        raise OutputError(f"{path} has no name of its own.", "Name the folder to write.")
    with storage_errors(path):
        path.exists()  # a name may be too long to ask
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a broken symbolic link.")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder.")
    if path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir()):
        if not (path / marker).exists():
            kind = own_kind(path)
            if kind:
                raise OutputError(f"{path} is {kind} that vectune wrote, and holds no {marker}: it is not replaced.")
            raise OutputError(f"{path} is not empty and holds no {marker}: vectune did not write it.")


# What vectune wrote: a file that marks it, what it says in ours alone (other programs have a run.json, too), what it
# stands beside, and the kind.
_MARKS = (
    ("run.json", {"vectune", "inputs"}, ".", "a run"),
    ("dataset.json", {"counts"}, "corpus.jsonl", "a dataset"),
    ("vectune.json", {"vectune", "base"}, ".", "a model or an artifact"),
    ("retriever.json", {"corpus", "kind"}, ".", "a retriever"),
)


def is_own(folder: Path) -> bool:
    """Whether vectune wrote a folder: a run, a dataset, an artifact or a retriever."""
    return bool(own_kind(folder))


def own_kind(folder: Path) -> str:
    """What a folder is that vectune wrote; empty where it did not."""
    for name, said, beside, kind in _MARKS:
        if said <= object_in(folder / name).keys() and (folder / beside).exists():
            return kind
    return ""


def object_in(file: Path) -> Json:
    """The JSON object in a file; empty where it is missing or holds something else."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock goes when the process does, also by SIGKILL.

    Raises:
        OutputError: another process works there.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w") if LOCKS else None  # Windows removes no folder with an open file in it
    with file or nullcontext():
        if file and not try_to_hold(file):
            raise OutputError(f"{folder}: another vectune is at work here.", "Wait for it, or stop it.")
        yield


# Made again within a second: a folder that holds nothing else is not worth keeping after an error.
TRIFLES = (".lock", "precision.json", "dev.json", "run.json", "events.jsonl")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for what is half done: kept after an error or a kill, removed when all went well.

    It goes after an error, too, where nothing is in it yet that took time: a model's name that was mistyped leaves no
    trace. Of the processes that torchrun starts, the first one holds it for all.
    """
    work = target.with_name(f".{target.name}.work")
    if os.environ.get("RANK", "0") != "0":
        yield work
        return
    with held(work):
        yield work
        remove(work)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """``locked``, and after an error the folder goes where nothing is in it that took time.

    It stays where it was there, empty, before; and another process's folder is not touched.
    """
    with storage_errors(folder):
        made = not folder.is_dir() or any(folder.iterdir())
    with locked(folder):
        try:
            yield
        except BaseException:
            if made and all(path.name in TRIFLES for path in folder.rglob("*") if path.is_file()):
                remove(folder)
            raise


@dataclass(frozen=True)
class Stage:
    """A finished stage as its manifest tells it."""

    name: str
    key: str
    seconds: float
    summary: Json


class RunFolder:
    """A run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self, name: str, key: str, target: Path) -> Stage | None:
        """The stage's manifest when it was made with this key and its target is there; else None.

        A stage that had to leave something undone (``unfinished`` in its summary) is tried again.
        """
        stage = self.manifest(name)
        done = stage is not None and stage.key == key and target.exists() and not stage.summary.get("unfinished")
        return stage if done else None

    def manifest(self, name: str) -> Stage | None:
        """The manifest of a stage, whatever its key; None where the stage was never finished."""
        try:
            values = json.loads((self.path / "stages" / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return Stage(name, **values)

    def summary(self, name: str) -> Json:
        """What a finished stage told about itself; empty where it is not finished."""
        stage = self.manifest(name)
        return {} if stage is None else stage.summary

    def stage(self, name: str, key: str, work: Callable[[], Json]) -> Stage:
        """Do the work and write its manifest."""
        started = time.perf_counter()
        summary = work()
        stage = Stage(name, key, round(time.perf_counter() - started, 3), summary)
        values = {"key": stage.key, "seconds": stage.seconds, "summary": stage.summary}
        write_json(self.path / "stages" / f"{name}.json", values)
        return stage


# What Linux calls the units that decide how fast matrix products are, fastest first, and what people call them.
_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 bf16", "avx512f": "AVX-512", "avx2": "AVX2"}


def processor_name() -> str:
    """The processor as its maker names it, with its fastest unit: in virtual machines the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    unit = next((f" ({name})" for flag, name in _UNITS.items() if flag in flags), "")
    return told.get("model name", platform.machine()) + unit


def versions(packages: tuple[str, ...] = ("vectune", "torch", "sentence-transformers", "numpy")) -> Mapping[str, str]:
    """Installed versions, without importing the packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
