"""The durable store of paid answers: SQLite, one row an answer, committed before the next is asked for.

Several processes may share it. Each holds a lock file for as long as it lives, and claims the keys it is about to ask
for; the kernel drops the lock when the process dies, so the claims of a killed process are free at once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vectune.characters import whole
from vectune.errors import StorageError
from vectune.locks import LOCKS, hold, try_to_hold
from vectune.runs import cache_folder, storage_errors

_BLOCK = 500  # keys in one statement; SQLite allows 999 variables in old versions
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, truncated INTEGER NOT NULL, queries INTEGER NOT NULL, time REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, address TEXT NOT NULL, model TEXT NOT NULL, open INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batched (key TEXT PRIMARY KEY, batch TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Answer:
    """A model's answer as it came.

    Attributes:
        text: unparsed, so that a better parser can read it again without paying; a lone surrogate, which JSON can hold
            and SQLite cannot, becomes U+FFFD.
        tokens_in, tokens_out: as the server counted them, else estimated.
        truncated: the model was cut off at its limit.
        queries: how many were asked for.
    """

    text: str
    tokens_in: int
    tokens_out: int
    truncated: bool = False
    queries: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", whole(self.text))


def _write_ahead(db: sqlite3.Connection, patience: float = 60.0) -> None:
    """Switch the journal; SQLite does not wait by itself when two processes do that in the same moment."""
    started = time.monotonic()
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() - started > patience:
                raise
            time.sleep(0.05)


class Answers:
    """The store. Safe to use from several threads and processes; open it with ``with`` or call ``close``."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "answers.sqlite"
        self._lock = threading.Lock()
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._owner_file, self.owner = self._become_owner()
        try:
            with self._errors():
                self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
                _write_ahead(self._db)
                self._db.execute("PRAGMA synchronous=FULL")  # when put returns, an answer is on disk, not in a buffer
                self._db.executescript(_TABLES)
        except BaseException:
            self._give_up_ownership()
            raise

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back all claims and close."""
        with self._writing() as db:
            db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))
        self._db.close()
        self._give_up_ownership()

    # Answers

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers there are, by key."""
        found = {}
        with self._lock, self._errors():
            for block in _blocks(keys):
                marks = ",".join("?" * len(block))
                rows = self._db.execute(
                    f"SELECT key, text, tokens_in, tokens_out, truncated, queries FROM answers WHERE key IN ({marks})",
                    block,
                )
                found.update({row[0]: Answer(row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows})
        return found

    def put(self, model: str, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep answers; they are on disk when this returns, and their claims are given back."""
        with self._writing() as db:
            for key, answer in answers:
                counts = (answer.tokens_in, answer.tokens_out, answer.truncated, answer.queries)
                row = (key, model, answer.text, *counts, time.time())
                db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                db.execute("DELETE FROM claims WHERE key = ?", (key,))
                db.execute("DELETE FROM batched WHERE key = ?", (key,))

    def forget(self, keys: Iterable[str]) -> None:
        """Delete answers, so that they are asked for again."""
        if keys := list(keys):
            with self._writing() as db:
                db.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])

    def tokens_of_query(self, model: str) -> float | None:
        """This model's tokens for each query asked for, so far; None with fewer than 20 answers."""
        with self._lock, self._errors():
            count, tokens, queries = self._db.execute(
                "SELECT COUNT(*), SUM(tokens_out), SUM(queries) FROM "
                "(SELECT tokens_out, queries FROM answers WHERE model = ? LIMIT 2000)",
                (model,),
            ).fetchone()
        return float(tokens) / queries if count >= 20 else None

    # Claims

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Reserve keys for this process; returns those it got, without those answered or claimed by a living one."""
        with self._writing() as db:
            taken: set[str] = set()
            alive: dict[str, bool] = {}
            for block in _blocks(keys):
                marks = ",".join("?" * len(block))
                taken.update(row[0] for row in db.execute(f"SELECT key FROM answers WHERE key IN ({marks})", block))
                for key, owner in db.execute(f"SELECT key, owner FROM claims WHERE key IN ({marks})", block).fetchall():
                    if owner not in alive:
                        alive[owner] = owner != self.owner and self._is_alive(owner)
                    if alive[owner]:
                        taken.add(key)
            got = [key for key in keys if key not in taken]
            db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?)", [(key, self.owner) for key in got])
        return set(got)

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back without an answer."""
        with self._writing() as db:
            db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, self.owner) for key in keys])

    # Batches

    def open_batches(self, address: str, model: str) -> list[str]:
        """Ids of batches that were sent and not yet collected."""
        with self._lock, self._errors():
            query = "SELECT id FROM batches WHERE address = ? AND model = ? AND open = 1 ORDER BY time"
            return [row[0] for row in self._db.execute(query, (address, model))]

    def add_batch(self, batch: str, address: str, model: str, keys: Iterable[str]) -> None:
        """Remember a batch that was sent, and for which keys."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, 1, ?)", (batch, address, model, time.time()))
            db.executemany("INSERT OR REPLACE INTO batched VALUES (?, ?)", [(key, batch) for key in keys])

    def knows_batch(self, batch: str) -> bool:
        """Whether a batch is open or was collected."""
        with self._lock, self._errors():
            return self._db.execute("SELECT 1 FROM batches WHERE id = ?", (batch,)).fetchone() is not None

    def batched(self, keys: Sequence[str]) -> dict[str, str]:
        """Those keys that are in a batch not yet collected, each with the batch's id."""
        found: dict[str, str] = {}
        with self._lock, self._errors():
            for block in _blocks(keys):
                marks = ",".join("?" * len(block))
                found.update(self._db.execute(f"SELECT key, batch FROM batched WHERE key IN ({marks})", block))
        return found

    def close_batch(self, batch: str) -> None:
        """The batch is collected or lost: its unanswered keys may be asked for again."""
        with self._writing() as db:
            db.execute("UPDATE batches SET open = 0 WHERE id = ?", (batch,))
            db.execute("DELETE FROM batched WHERE batch = ?", (batch,))

    # Owners

    def _become_owner(self) -> tuple[IO[bytes], str]:
        owner = uuid.uuid4().hex[:12]
        with storage_errors(self.path):
            file = self._owner_path(owner).open("wb")
        hold(file)
        return file, owner

    def _give_up_ownership(self) -> None:
        self._owner_file.close()
        self._owner_path(self.owner).unlink(missing_ok=True)

    def _owner_path(self, owner: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{owner}.owner")

    def _is_alive(self, owner: str) -> bool:
        if not LOCKS:  # claims of other processes are not respected there; the store itself is as safe
            return False
        path = self._owner_path(owner)
        try:
            with path.open("rb") as file:
                if not try_to_hold(file):
                    return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)  # its process is dead
        return False

    # Transactions

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            hint = "Move the file away to start a new store; set VECTUNE_CACHE to keep it on another disk."
            raise StorageError(f"{self.path}: the store of answers failed ({error}).", hint) from error


def _blocks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _BLOCK):
        yield list(keys[start : start + _BLOCK])
