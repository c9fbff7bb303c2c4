"""One batch, one transaction: the writer's connection and what it does with it.

A batch is executed in order. If a row is refused, the batch is rolled back and done again without that row and without all
that its attempt queued after it; the others never notice. If the file cannot be written, nothing of the batch is on disk and
everybody in it is told so.

A commit may go without a sync; the next one with a sync puts both onto the platter, since the WAL is one sequence. Should
that one fail, those of the earlier commit are told as well.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from agent_graph.failpoints import failpoint
from agent_graph.storage.attempts import Attempt, Entry
from agent_graph.storage.faults import explain, is_busy, is_file_fault
from agent_graph.storage.schema import MEMORY, open_writer

__all__ = ["Committer", "Guard", "leak"]

_WAL_ALARM_BYTES = 32 * 1024 * 1024
_COMMITS_PER_WAL_CHECK = 64
_BEAT = "UPDATE ag_meta SET value = value + 1 WHERE name = 'beat'"

Guard = Callable[[sqlite3.Connection, Attempt], None]
"""Raises LeaseLost where an attempt may not write; called inside the transaction."""


class Committer:
    """The writing connection; used by the writer's thread alone."""

    def __init__(self, locate: Callable[[], str], guard: Guard, *, durability: Literal["power", "process"], busy_s: float) -> None:
        self._locate = locate
        self._guard = guard
        self._durability: Literal["power", "process"] = durability
        self._busy_s = busy_s
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._unsynced: set[Attempt] = set()
        self._syncing = True
        self.path = ""
        """Where the file is; "" before it has been opened."""
        self.generation = 0
        """Counts the files that have stood at this path: a reader of an earlier one holds a file that is gone."""
        self.commits = 0
        self.syncs = 0

    def commit(self, batch: Sequence[Entry], *, sync: bool) -> BaseException | None:
        """Write `batch`, and sync if `sync`; return why the file could not be written, else None. Never raises."""
        if not batch and not sync:
            return None
        while True:
            try:
                self._execute(self._connected(), batch, sync=sync)
                return None
            except _RowFaultError:
                continue  # again, without the row that failed
            except Exception as error:  # noqa: BLE001 - the thread must live: whoever waits is told
                return self._fail_all(batch, error)

    def _execute(self, connection: sqlite3.Connection, batch: Sequence[Entry], *, sync: bool) -> None:
        self._set_syncing(connection, sync=sync)
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            self._apply_all(connection, batch)
            if sync and connection.total_changes == before:
                connection.execute(_BEAT)  # a commit without a change syncs nothing
            failpoint("commit.before")
            connection.execute("COMMIT")
            failpoint("commit.after")
        except BaseException:
            _rollback(connection)
            raise
        self._note(batch, sync=sync)
        self._bound_wal(connection)

    def _set_syncing(self, connection: sqlite3.Connection, *, sync: bool) -> None:
        if self._durability == "power" and sync != self._syncing:
            connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            self._syncing = sync

    def _apply_all(self, connection: sqlite3.Connection, batch: Sequence[Entry]) -> None:
        admitted: set[Attempt] = set()
        for entry in batch:
            if entry.is_refused():
                continue
            try:
                self._apply(connection, entry, admitted)
            except Exception as error:
                if is_file_fault(error) and (entry.job is None or isinstance(error, sqlite3.Error)):
                    raise
                entry.blame(error)
                raise _RowFaultError from error

    def _apply(self, connection: sqlite3.Connection, entry: Entry, admitted: set[Attempt]) -> None:
        attempt = entry.attempt
        if attempt is not None and attempt not in admitted:
            self._guard(connection, attempt)
            admitted.add(attempt)
        if entry.job is not None:
            entry.job.answer = entry.job.function(connection)
            admitted.clear()  # a claim among the jobs may have changed who may write
        elif entry.many:
            connection.executemany(entry.sql, entry.parameters)
        else:
            connection.execute(entry.sql, entry.parameters)

    def _note(self, batch: Sequence[Entry], *, sync: bool) -> None:
        self.commits += 1
        if self._durability == "process":
            return
        if sync:
            self.syncs += 1
            self._unsynced.clear()
        else:
            self._unsynced.update(entry.attempt for entry in batch if entry.attempt is not None)

    def _fail_all(self, batch: Sequence[Entry], error: BaseException) -> BaseException:
        if not is_busy(error):
            self.disconnect()
        told = explain(error, self.path or "not opened yet") if is_file_fault(error) else error
        for entry in batch:
            entry.blame(told)
        for attempt in self._unsynced:  # what they committed may not survive a power cut
            attempt.fail(attempt.last, told)
        self._unsynced.clear()
        return told

    # -- the connection ------------------------------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != _identity(self.path):
            self.disconnect()  # somebody removed or replaced the file: go on in the one that has its name now
        if self._connection is None:
            self.path = self._locate()
            self._connection = open_writer(self.path, durability=self._durability, busy_s=self._busy_s)
            self._syncing = True
            before, self._file = self._file, _identity(self.path)
            if self.generation == 0 or before != self._file:
                self.generation += 1
        return self._connection

    def disconnect(self, *, forever: bool = False) -> None:
        """Close the connection (one in memory only `forever`: its contents end with it). It is opened again when needed."""
        if self._connection is not None and (forever or self.path != MEMORY):
            connection, self._connection = self._connection, None
            if self._file != _identity(self.path):
                leak(connection)
                return
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        """Empty a WAL that readers kept SQLite's own checkpoints from resetting."""
        if self.commits % _COMMITS_PER_WAL_CHECK or self.path == MEMORY:
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if Path(f"{self.path}-wal").stat().st_size > _WAL_ALARM_BYTES:
                connection.execute("PRAGMA busy_timeout=200")  # a reader that stays longer must not stop the writing
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute(f"PRAGMA busy_timeout={int(self._busy_s * 1000)}")


class _RowFaultError(Exception):
    """One entry was refused: roll back and do the batch again without it."""


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file stands at `path`; None: none, or one in memory."""
    if path == MEMORY:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - once per commit: a Path costs more than the call
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def leak(connection: sqlite3.Connection) -> None:
    """Never close `connection`, not even at exit.

    Closing deletes the WAL *by name*. Where another file has that name by now, that would be somebody else's WAL.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
