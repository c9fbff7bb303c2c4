"""The file: its tables, its version, and who may open it.

One SQLite file holds langgraph-checkpoint-sqlite's own two tables (so that the stock saver can read it) and ours, which begin
with `ag_`. `application_id` says that the file is ours, `user_version` which schema it has. A file of the stock saver is
adopted; a file of any other program, or of a newer agent_graph, is refused before anything is written to it.

SQLite alone opens the file, this module never does: POSIX gives up all locks that a process holds on a file as soon as it
closes any descriptor of it. A look at the header with `open()`, while another storage of this process uses the file, would
leave that one without its lock, and the next process that closes the file would delete the WAL under it (tried: the records
acknowledged afterwards were lost).

Big values live in ordinary rowid tables, small ones in WITHOUT ROWID tables: the latter spill everything beyond a quarter of
a page into an overflow page of its own, which made a step cost 7.3 KB instead of 5.1 (facts measured on 22 Nov 2026).
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from agent_graph.errors import StorageError
from agent_graph.storage.faults import explain, is_busy

__all__ = ["APPLICATION_ID", "MEMORY", "VERSION", "one_moment", "open_reader", "open_writer"]

APPLICATION_ID = 0x61675F31
"""`ag_1`: in bytes 68-71 of the file, where `file(1)` finds it."""
VERSION = 2
MEMORY = ":memory:"
_WAL_LIMIT_BYTES = 16 * 1024 * 1024
_ADOPTABLE = frozenset({"checkpoints", "writes"})

_CHECKPOINT_TABLES = """
CREATE TABLE IF NOT EXISTS checkpoints (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL DEFAULT '',
    checkpoint_id TEXT NOT NULL,
    parent_checkpoint_id TEXT,
    type TEXT,
    checkpoint BLOB,
    metadata BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE TABLE IF NOT EXISTS writes (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL DEFAULT '',
    checkpoint_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    task_path TEXT NOT NULL DEFAULT '',
    idx INTEGER NOT NULL,
    channel TEXT NOT NULL,
    type TEXT,
    value BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
"""

_OUR_TABLES = """
CREATE TABLE ag_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO ag_meta VALUES ('fence', 0), ('beat', 0);
CREATE TABLE ag_turns (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    agent TEXT NOT NULL,
    input TEXT NOT NULL,
    input_hash TEXT NOT NULL,
    status TEXT NOT NULL,
    request_id TEXT,
    fingerprint TEXT NOT NULL,
    used_s REAL NOT NULL,
    result TEXT,
    delivered INTEGER NOT NULL,
    started_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (namespace, run_id, turn)
);
CREATE INDEX ag_turns_requests ON ag_turns (namespace, run_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX ag_turns_open ON ag_turns (namespace, agent) WHERE status IN ('running', 'stopped');
CREATE INDEX ag_turns_newest ON ag_turns (started_at);
CREATE TABLE ag_leases (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    fence INTEGER NOT NULL,
    token TEXT,
    owner TEXT NOT NULL,
    until_monotonic REAL NOT NULL,
    until_wall REAL NOT NULL,
    lease_s REAL NOT NULL,
    PRIMARY KEY (namespace, run_id)
) WITHOUT ROWID;
CREATE TABLE ag_journal (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    call_key TEXT NOT NULL,
    step INTEGER NOT NULL,
    position INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    args TEXT NOT NULL,
    idempotent INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    result TEXT,
    error TEXT,
    latency_ms REAL NOT NULL,
    used_s REAL NOT NULL,
    PRIMARY KEY (namespace, run_id, turn, call_key)
);
CREATE TABLE ag_ledger (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    bound_nusd INTEGER NOT NULL,
    bound_tokens INTEGER NOT NULL,
    cost_nusd INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    usage TEXT,
    used INTEGER NOT NULL,
    used_s REAL NOT NULL,
    PRIMARY KEY (namespace, run_id, turn, entry)
) WITHOUT ROWID;
CREATE TABLE ag_notes (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX ag_notes_turn ON ag_notes (namespace, run_id, turn);
CREATE TABLE ag_memory (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT,
    PRIMARY KEY (namespace, run_id, position)
);
CREATE TABLE ag_memory_heads (
    namespace TEXT NOT NULL,
    run_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    PRIMARY KEY (namespace, run_id)
) WITHOUT ROWID;
"""

_BUDGETS = """
ALTER TABLE ag_turns ADD COLUMN parent TEXT;
ALTER TABLE ag_ledger ADD COLUMN charges TEXT;
CREATE TABLE ag_budgets (
    namespace TEXT NOT NULL,
    budget TEXT NOT NULL,
    period TEXT NOT NULL,
    nusd INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (namespace, budget, period)
) WITHOUT ROWID;
"""

_MIGRATIONS: Sequence[str] = (_OUR_TABLES, _BUDGETS)
"""The n-th entry takes a file from version n to n + 1."""


def open_writer(path: str, *, durability: Literal["power", "process"], busy_s: float) -> sqlite3.Connection:
    """Return the writing connection to `path`, creating or migrating the file.

    Raises:
        StorageError: the file is not ours, newer, damaged, a directory, read-only, or its folder is missing.
    """
    if path != MEMORY:
        _inspect(Path(path))
        _create_private(Path(path))
    return _opened(path, lambda connection: _prepare(connection, path, durability, busy_s), busy_s)


def open_reader(path: str, *, busy_s: float) -> sqlite3.Connection:
    """Return a connection to `path` that cannot write; the file must have been opened by `open_writer` before."""
    return _opened(path, lambda connection: connection.execute("PRAGMA query_only=ON"), busy_s)


def _opened(path: str, prepare: Callable[[sqlite3.Connection], object], busy_s: float) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=128)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    try:
        connection.execute("PRAGMA trusted_schema=OFF")  # a crafted file must not run functions through views or triggers
        prepare(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path) from error
        raise
    return connection


@contextlib.contextmanager
def one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several SELECTs see one state of the file."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.OperationalError):  # an error of the disk has ended it by itself
            connection.execute("ROLLBACK")


def _inspect(path: Path) -> None:
    """Refuse what SQLite would answer with a riddle."""
    if path.is_dir():
        raise _refusal(path, "it is a directory; name a file in it")
    if not path.parent.is_dir():
        raise _refusal(path, f"its folder {path.parent} does not exist; create it, or name another path")


_creating = threading.Lock()
"""Held while a new file is made: its descriptor must be closed before any connection of this process takes a lock on it."""


def _create_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite gives -wal and -shm the same rights."""
    try:
        with _creating:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise explain(error, str(path)) from error
    with contextlib.suppress(OSError):  # Windows cannot sync a folder; elsewhere the file's name must survive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _prepare(connection: sqlite3.Connection, path: str, durability: Literal["power", "process"], busy_s: float) -> None:
    version = _checked_version(connection, path)
    _use_wal(connection, busy_s)
    connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'NORMAL'}")
    connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
    if sys.platform == "darwin" and durability == "power":
        connection.execute("PRAGMA fullfsync=ON")  # macOS's fsync leaves the data in the drive's cache
    if version < VERSION:
        _migrate(connection, path)


def _use_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switch the file to WAL, or find it so.

    Two connections that switch at once each wait for the other to stop reading. SQLite sees that and answers "locked" at once,
    whatever the busy timeout is (measured: 1 in 10 where four processes meet at a new file), so here it is asked again.
    """
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.001, 0.02))


def _checked_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema version of a file that we may use; 0 for a new or an adopted one."""
    application, version, tables = _identity(connection)
    if application == APPLICATION_ID:
        if version > VERSION:
            raise _refusal(
                path,
                f"a newer agent_graph wrote it (schema {version}, this one knows {VERSION}); upgrade agent-graph-runtime",
            )
        return version
    if application or version or not tables <= _ADOPTABLE:
        foreign = ", ".join(sorted(tables - _ADOPTABLE)[:5]) or "none of ours"
        raise _refusal(path, f"it belongs to another program (its tables: {foreign}); name another path")
    return 0


def _identity(connection: sqlite3.Connection) -> tuple[int, int, set[str]]:
    """Return application_id, user_version and the tables, all of one moment: another process may be migrating the file."""
    with one_moment(connection):
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return application, version, {name for (name,) in names}


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")  # two processes may meet here: the second finds the work done
    try:
        for step in range(_checked_version(connection, path), VERSION):
            for statement in (*_statements(_CHECKPOINT_TABLES), *_statements(_MIGRATIONS[step])):
                connection.execute(statement)
        _add_task_path(connection)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _add_task_path(connection: sqlite3.Connection) -> None:
    """Bring an adopted file of an older stock saver to the layout that today's stock saver uses."""
    if "task_path" not in {row[1] for row in connection.execute("PRAGMA table_info(writes)")}:
        connection.execute("ALTER TABLE writes ADD COLUMN task_path TEXT NOT NULL DEFAULT ''")


def _statements(script: str) -> list[str]:
    # executescript() would commit the transaction that makes a migration all or nothing.
    return [statement for statement in script.split(";") if statement.strip()]


def _refusal(path: str | Path, why: str) -> StorageError:
    return StorageError(f"storage {path}: {why}.", backend="storage")
