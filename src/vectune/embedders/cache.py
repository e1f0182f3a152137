"""VectorCache: every text is embedded once per fingerprint, ever.

One folder for each fingerprint under ``vectors/`` of the cache folder: ``vectors.f32`` holds the rows (float32,
memory-mapped), ``keys.db`` (SQLite) says which text's row is where, and ``about.json`` whose vectors they are. Rows are
written before their keys are committed, and both under SQLite's write lock: two processes at once never share a row,
and a process killed at any moment leaves at most rows that nobody knows of, which the next writer overwrites.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vectune.embedders.models import behind_api
from vectune.errors import InputError, ModelError, OutputError, StorageError
from vectune.locks import LOCKS, hold, try_to_hold
from vectune.runs import cache_folder, storage_errors, write_json

if TYPE_CHECKING:
    from vectune.protocols import Vectors

GIB = 1 << 30
BLOCK = 8192  # texts looked up in one query, and rows written in one transaction
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (key INTEGER PRIMARY KEY, tail INTEGER NOT NULL, row INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
SQLITE_CORRUPT, SQLITE_NOTADB = 11, 26  # sqlite3 has them from Python 3.11 on
# A text's key is 128 bits in two integers: the first is the table's own key, which keeps ten million of them small.
FIND = "SELECT keys.key, keys.tail, keys.row FROM json_each(?) AS asked JOIN keys ON keys.key = asked.value"

Keys = list[tuple[int, int]]


def text_keys(texts: Sequence[str], role: str) -> Keys:
    """128-bit keys of texts in a role; a query and a document of the same text have different ones."""
    prefix = hashlib.blake2b(role.encode() + b"\x1f", digest_size=16)
    keys = []
    for text in texts:
        digest = prefix.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        both = digest.digest()
        keys.append((int.from_bytes(both[:8], "big", signed=True), int.from_bytes(both[8:], "big", signed=True)))
    return keys


def folder_name(key: str) -> str:
    """The folder of a key: the key itself where it is made as ours are, else its hash.

    Anybody's embedder says what its fingerprint is: it may be long, or hold a slash.
    """
    plain = re.fullmatch(r"[0-9a-f]{1,64}(-\w{1,64})?", key, re.ASCII)
    return key if plain else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class VectorCache:
    """The vectors of one fingerprint.

    Args:
        key: the fingerprint, or a longer key that starts with it; see ``folder_name``.
        dim: dimensions of a vector; None = those of what is there (0 of an empty cache, see ``with_dim``).
        name: the embedder's name, for people who look into the cache.
        root: the folder of all fingerprints; None = ``vectors`` in vectune's cache folder.
        limit_gib: size limit of the root. Other fingerprints' vectors make room, least recently used first, but never
            those that may have been paid for; when that is not enough, new vectors are no longer kept.
        paid: whether these may have been.
        warn: told what a person must know: keys that were damaged, vectors that were removed, a cache that is full.

    Raises:
        StorageError: the disk is full, or the keys are locked or damaged; OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        key: str,
        dim: int | None = None,
        name: str = "",
        root: Path | None = None,
        limit_gib: float = 20.0,
        paid: bool = False,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.root = root or vectors_folder()
        self.folder = self.root / folder_name(key)
        self.name, self.limit = name, int(limit_gib * GIB)
        self.full = False
        self.paid, self.warn = paid, warn
        self._lock = threading.RLock()
        self._rows: Vectors | None = None
        with _errors(self.folder):
            hold = _enter(self.folder)
            try:
                self._db = self._open_keys()
            except BaseException:
                if hold is not None:
                    hold.close()
                raise
            self._release = weakref.finalize(self, _release, self._db, hold)
            self.dim = self._fact("dim") or 0
            if dim is not None:
                self.with_dim(dim)
            self._touch()

    def close(self) -> None:
        """Let go of the files; the cache may be pruned again."""
        with self._lock:
            self._rows = None
            self._release()

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM keys").fetchone()[0])

    def get(self, texts: Sequence[str], role: str, out: Vectors) -> NDArray[np.intp]:
        """Fill the rows of ``out`` whose texts are known; returns the indices of those that are not."""
        missing = []
        with self._lock, _errors(self.folder):
            for start in range(0, len(texts), BLOCK):
                keys = text_keys(texts[start : start + BLOCK], role)
                places = self._places(keys)
                known = np.flatnonzero(places >= 0)
                if known.size:
                    found, good = self._read(places[known])
                    out[start + known[good]] = found[good]
                    places[known[~good]] = -1
                missing.append(start + np.flatnonzero(places < 0))
        return np.concatenate(missing) if missing else np.zeros(0, dtype=np.intp)

    def put(self, texts: Sequence[str], role: str, vectors: Vectors) -> int:
        """Keep vectors; those that are not finite or not of unit norm are not kept. Returns how many were.

        A full disk or a reached size limit stops keeping (``full``), never the caller.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        good = np.flatnonzero(_sound(vectors))
        kept = 0
        with self._lock, _errors(self.folder):
            for start in range(0, len(good), BLOCK):
                block = good[start : start + BLOCK]
                if self.full or not self._has_room(len(block)):
                    break
                kept += self._append(text_keys([texts[index] for index in block], role), vectors[block])
        return kept

    # Keys

    def _open_keys(self) -> sqlite3.Connection:
        try:
            return _connect(self.folder / "keys.db")
        except sqlite3.DatabaseError as error:
            if not _damaged(error):  # a full disk says nothing about what is on it
                raise
        self._set_aside()
        return _connect(self.folder / "keys.db")

    def _set_aside(self) -> None:
        """Start again beside damaged keys: they, and the rows that they name, may have been paid for."""
        name = time.strftime("damaged-%Y%m%d-%H%M%S-")
        for file in [*self.folder.glob("keys.db*"), self.data]:
            if file.exists():
                file.replace(self.folder / (name + file.name))
        self.warn(
            f"{self.folder / 'keys.db'} is damaged: vectors of {self.name or 'this model'} are made anew. The old ones "
            f"are in {name}* there, for sqlite3's .recover; delete them when you do not need them."
        )

    def with_dim(self, dim: int) -> VectorCache:
        """The same cache, for vectors of this dimension.

        Raises:
            ModelError: it holds vectors of another one.
        """
        with self._lock, _errors(self.folder), self._writing():
            known = self._fact("dim") or dim
            self._set_fact("dim", known)
        if known != dim:
            raise ModelError(
                f"{self.folder}: holds vectors of {known} dimensions, but {self.name or 'the embedder'} has {dim}.",
                f"Its fingerprint should have changed. To forget them: vectune cache prune {self.folder.name[:12]}",
            )
        self.dim = dim
        return self

    def _fact(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def _set_fact(self, name: str, value: int) -> None:
        self._db.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
        )

    def _places(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key; -1 where there is none."""
        found = {
            key: (tail, row)
            for key, tail, row in self._db.execute(FIND, (json.dumps([key for key, _ in keys]),)).fetchall()
        }
        nothing = (None, -1)
        answers = ((tail, found.get(key, nothing)) for key, tail in keys)
        return np.array([row if its_tail == tail else -1 for tail, (its_tail, row) in answers], dtype=np.int64)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that no other process writes beside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite may have rolled back by itself
                self._db.execute("ROLLBACK")
            raise

    # Rows

    @property
    def data(self) -> Path:
        return self.folder / "vectors.f32"

    def _read(self, places: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.bool_]]:
        """The rows, and which of them are sound: after a power cut a committed row may be blank."""
        last = int(places.max())
        if self._rows is None or last >= len(self._rows):
            self._rows = self._map()
        inside = places < len(self._rows)
        found = np.zeros((len(places), self.dim), dtype=np.float32)
        found[inside] = self._rows[places[inside]]
        return found, _sound(found)

    def _map(self) -> Vectors:
        rows = self.data.stat().st_size // (4 * self.dim) if self.data.exists() else 0
        if not rows:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.memmap(self.data, dtype=np.float32, mode="r", shape=(rows, self.dim))

    def _append(self, keys: Keys, vectors: Vectors) -> int:
        """Rows first, then their keys, in one transaction."""
        try:
            with self._writing():
                places = self._places(keys)
                known = np.flatnonzero(places >= 0)  # by another process just now, or blank after a power cut
                if known.size:
                    places[known[~self._read(places[known])[1]]] = -1
                new = np.flatnonzero(places < 0)
                first = self._fact("rows") or 0
                self._write_rows(first, vectors[new])
                self._db.executemany(
                    "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)",
                    [(*keys[index], first + offset) for offset, index in enumerate(new.tolist())],
                )
                self._set_fact("rows", first + len(new))
        except (OSError, sqlite3.OperationalError) as error:
            if not _no_space(error):
                raise
            self._stop_keeping(f"the disk of the vector cache is full ({self.root})")
            return 0
        return len(new)

    def _write_rows(self, first: int, vectors: Vectors) -> None:
        with open(self.data, "r+b" if self.data.exists() else "w+b") as file:
            file.seek(first * 4 * self.dim)
            file.write(vectors.tobytes())

    def _has_room(self, rows: int) -> bool:
        """Whether these rows fit under the limit; other fingerprints' vectors make room for them."""
        needed = rows * (4 * self.dim + 48)  # 48: a key in SQLite
        if self._size() + needed <= self.limit:
            return True
        if self._size(lambda folder: folder == self.folder or _about(folder).paid) + needed <= self.limit:
            removed = prune(self.limit - needed, root=self.root, keep=self.folder, spare_paid=True)
            if removed:
                names = ", ".join(model.name or model.key[:12] for model in removed)
                self.warn(f"the vector cache holds {self.limit / GIB:g} GiB at most: vectors of {names} were removed.")
            if self._size() + needed <= self.limit:
                return True
        self._stop_keeping(f"the vector cache is full ({self.limit / GIB:g} GiB, {self.root})")
        return False

    def _size(self, counts: Callable[[Path], bool] = lambda folder: True) -> int:
        return sum(folder_size(folder) for folder in _folders(self.root) if counts(folder))

    def _stop_keeping(self, why: str) -> None:
        self.full = True
        self.warn(
            f"{why}: new vectors of {self.name or self.folder.name[:12]} are not kept, and have to be made anew next "
            "time. Make room with: vectune cache prune"
        )

    def _touch(self) -> None:
        """Note the use: the file's time is what pruning goes by."""
        about = self.folder / "about.json"
        known = _about(self.folder)
        if about.exists() and known.paid >= self.paid:
            os.utime(about)
        else:
            write_json(about, {"name": self.name, "paid": self.paid})


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=120, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA busy_timeout = 120000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -65536")  # 64 MiB
        # Keys are hashes: a block of new ones touches pages all over the table. 64 MiB are written back at once, each
        # page once for all blocks that touched it: at 5 million keys half the time, a quarter of the bytes written.
        db.execute("PRAGMA wal_autocheckpoint = 16384")
        for statement in SCHEMA.strip().splitlines():
            db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    """``storage_errors``, for what SQLite says of a disk as well."""
    try:
        with storage_errors(folder):
            yield
    except sqlite3.DatabaseError as error:
        # In a last few kilobytes SQLite finds no room for its log, which it calls an I/O error.
        if _no_space(error) or ("I/O" in str(error) and shutil.disk_usage(folder).free < 1 << 20):
            hint = "Free some space (vectune cache prune), or choose another cache: export VECTUNE_CACHE=FOLDER"
            raise StorageError(f"{folder}: the disk is full.", hint) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise OutputError(
                f"{folder}: cannot be written ({error}).",
                "Make it writable, or choose another cache: export VECTUNE_CACHE=FOLDER",
            ) from error
        hint = "Is another process at work on it, or the disk ill? Run the same command again when it is done."
        if _damaged(error):
            hint = "Move the folder elsewhere, then run the same command again: its vectors are made anew."
        raise StorageError(f"{folder / 'keys.db'}: {error}.", hint) from error


def _damaged(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, and not only the way to it."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python 3.10
        return "not a database" in str(error) or "malformed" in str(error)
    return code & 0xFF in (SQLITE_CORRUPT, SQLITE_NOTADB)


def _sound(vectors: Vectors) -> NDArray[np.bool_]:
    norms = np.einsum("ij,ij->i", vectors, vectors)
    sound: NDArray[np.bool_] = np.abs(norms - 1.0) < 0.01  # False for NaN too
    return sound


def _no_space(error: Exception) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "full" in str(error)


# The cache as a whole


@dataclass(frozen=True)
class CachedModel:
    """One fingerprint's vectors: whose they are, how many, their size in bytes and when they were last used.

    ``paid``: whether they may have cost money.
    """

    key: str
    name: str
    dim: int
    count: int
    size: int
    used: float
    paid: bool = False


def vectors_folder() -> Path:
    """The folder that holds one folder for each fingerprint."""
    return cache_folder() / "vectors"


def cached_models(root: Path | None = None) -> list[CachedModel]:
    """What the cache holds, most recently used first."""
    return sorted((_look(folder) for folder in _folders(root or vectors_folder())), key=lambda model: -model.used)


def prune(
    limit: float,
    *,
    older_than: float = 0.0,
    root: Path | None = None,
    keep: Path | None = None,
    spare_paid: bool = False,
) -> list[CachedModel]:
    """Remove whole fingerprints, least recently used first, until the cache holds at most ``limit`` bytes.

    Args:
        limit: bytes that may stay; 0 removes all.
        older_than: only what was not used for this many seconds.
        root: the folder of all fingerprints.
        keep: never this one. What another process has open is left as well.
        spare_paid: leave what may have been paid for.

    Returns:
        what was removed.
    """
    if limit < 0:
        raise InputError(f"the limit is {limit}, expected 0 or more.")
    root = root or vectors_folder()
    models = cached_models(root)
    size, removed, now = sum(model.size for model in models), [], time.time()
    for model in reversed(models):
        if size <= limit or now - model.used < older_than or (spare_paid and model.paid):
            continue
        if root / model.key != keep and remove_cached(model.key, root):
            size -= model.size
            removed.append(model)
    return removed


def remove_cached(key: str, root: Path | None = None) -> bool:
    """Remove one fingerprint's vectors; False when a process is using them."""
    folder = (root or vectors_folder()) / key
    claim = _claim(folder) if LOCKS else None  # elsewhere the file system keeps open files from being removed
    if claim is None and LOCKS:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    if claim is not None:
        claim.close()
    return not folder.exists()


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where it has just gone."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return 0


def _folders(root: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return []


@dataclass(frozen=True)
class _About:
    """What ``about.json`` tells; nothing where a process was killed while it made the folder."""

    name: str = ""
    paid: bool = False
    used: float = 0.0


def _about(folder: Path) -> _About:
    file = folder / "about.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        name = str(told.get("name", ""))
        return _About(name, bool(told.get("paid", behind_api(name))), file.stat().st_mtime)  # not in earlier versions
    except (OSError, ValueError, AttributeError):
        return _About()


def _look(folder: Path) -> CachedModel:
    about = _about(folder)
    dim, count = _facts(folder)
    return CachedModel(folder.name, about.name, dim, count, folder_size(folder), about.used, about.paid)


def _facts(folder: Path) -> tuple[int, int]:
    """Dimension and number of vectors, as they are on disk."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'keys.db'}?mode=ro", uri=True, timeout=10)) as db:
            dim = db.execute("SELECT value FROM facts WHERE name = 'dim'").fetchone()
            return (int(dim[0]) if dim else 0), int(db.execute("SELECT count(*) FROM keys").fetchone()[0])
    except sqlite3.Error:
        return 0, 0


def _enter(folder: Path) -> IO[str] | None:
    """Make the folder and hold it against removal until the file is closed or the process ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if not LOCKS:
            return None
        file = (folder / "lock").open("a")
        hold(file, shared=True)
        try:
            if os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # it was removed while we waited: make it anew


def _release(db: sqlite3.Connection, hold: IO[str] | None) -> None:
    db.close()
    if hold is not None:
        hold.close()


def _claim(folder: Path) -> IO[str] | None:
    """The folder for oneself; None while somebody holds it."""
    try:
        file = (folder / "lock").open("a")
    except OSError:
        return None
    try:
        if try_to_hold(file):
            return file
    except OSError:  # a file system without locks
        pass
    file.close()
    return None
