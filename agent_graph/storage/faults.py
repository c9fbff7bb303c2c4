"""What went wrong in SQLite, in our words.

A failing statement is either the row's fault (it alone is refused, its turn is broken, everybody else goes on) or the file's
(nothing of the batch is on disk, nobody in it may go on). The result code decides, never the text.
"""

from __future__ import annotations

import sqlite3

from agent_graph.errors import StorageError

__all__ = ["explain", "is_busy", "is_file_fault"]

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_FILE_FAULTS = _BUSY | {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_ABORT,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
}

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it locked for longer than the busy limit; end that process or wait for it",
    sqlite3.SQLITE_LOCKED: "another connection holds it locked for longer than the busy limit; end it or wait for it",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its folder writable, or name another path",
    sqlite3.SQLITE_PERM: "its rights forbid it; make the file and its folder writable, or name another path",
    sqlite3.SQLITE_FULL: "the disk is full; free some space, then resume the run",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and is writable",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a backup, or name another path",
    sqlite3.SQLITE_NOTADB: ("the file is no SQLite database (or its header is damaged); nothing was written to it. Name another path"),
    sqlite3.SQLITE_IOERR: "the disk reports an error; check the disk, then resume the run",
}


def _code(error: BaseException) -> int:
    # The low byte is the primary result code; sqlite3 sets it only on errors that come from SQLite itself.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether somebody else's lock stood in the way, so that trying again may help."""
    return isinstance(error, sqlite3.OperationalError) and _code(error) in _BUSY


def is_file_fault(error: BaseException) -> bool:
    """Return whether the file or the disk is at fault, not one row."""
    return isinstance(error, StorageError | OSError) or (isinstance(error, sqlite3.Error) and _code(error) in _FILE_FAULTS)


def explain(error: BaseException, location: str) -> StorageError:
    """Return `error` as a StorageError that says which file, what is wrong with it and what to do; the cause is chained."""
    if isinstance(error, StorageError):
        return error
    advice = _ADVICE.get(_code(error), "check that the path exists, is writable, has space, and belongs to agent_graph")
    told = StorageError(f"storage {location}: {error}; {advice}.", backend="storage", retryable=is_busy(error))
    told.__cause__ = error
    return told
