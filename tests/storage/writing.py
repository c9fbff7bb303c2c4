"""What the writer's tests share: a record to write, what a file holds, and another program that locks it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent_graph.storage.attempts import Attempt
from agent_graph.storage.writer import Writer

NOTE = "INSERT INTO ag_notes (namespace, run_id, turn, step, kind, body) VALUES ('n', ?, 1, ?, 'k', '')"


def unguarded(connection: sqlite3.Connection, attempt: Attempt) -> None:
    """Everybody may write."""


def notes(file: Path) -> list[tuple[str, int]]:
    """Return the run and the step of each record in the file, in order."""
    connection = sqlite3.connect(file)
    try:
        return connection.execute("SELECT run_id, step FROM ag_notes ORDER BY id").fetchall()
    finally:
        connection.close()


def integrity(file: Path) -> str:
    """Return what SQLite says of the file."""
    connection = sqlite3.connect(file)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def lock(file: Path, writer: Writer) -> Callable[[], None]:
    """Take the file's write lock as another program would; return what lets go."""
    writer.run_sync(lambda connection: None)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        other.execute("COMMIT")
        other.close()

    return let_go
