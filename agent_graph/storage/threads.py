"""Deleting, copying and pruning the checkpoints of LangGraph's threads, inside the writer's transaction.

A DeltaChannel's value is not in its checkpoint but in its ancestors' writes, back to the nearest stored value. Which channels
of a checkpoint are of that kind stands in its metadata (`counters_since_delta_snapshot`). Whatever survives keeps the ancestors
that it is rebuilt from; dropping them would empty those channels without an error.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence

from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_graph.errors import ConfigError
from agent_graph.storage.delta import ancestors_needed

__all__ = ["copy_thread", "delete_for_runs", "delete_thread", "prune"]

_CHECKPOINT = "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
_WRITE = "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"
_OF_RUN = "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') = ?"


def delete_thread(thread_id: str) -> Callable[[sqlite3.Connection], None]:
    """Return the function that deletes a thread."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (thread_id,))
        connection.execute("DELETE FROM writes WHERE thread_id = ?", (thread_id,))

    return work


def copy_thread(source: str, target: str) -> Callable[[sqlite3.Connection], None]:
    """Return the function that copies a whole thread, every ancestor with it."""

    def work(connection: sqlite3.Connection) -> None:
        for table, columns in (("checkpoints", _CHECKPOINT), ("writes", _WRITE)):
            sql = f"INSERT OR REPLACE INTO {table} (thread_id, {columns}) SELECT ?, {columns} FROM {table} WHERE thread_id = ?"  # noqa: S608 - constants only
            connection.execute(sql, (target, source))

    return work


def delete_for_runs(run_ids: Sequence[str], serde: SerializerProtocol) -> Callable[[sqlite3.Connection], None]:
    """Return the function that deletes what LangGraph runs (`metadata["run_id"]`) left, but for what survivors need."""

    def work(connection: sqlite3.Connection) -> None:
        doomed: dict[tuple[str, str], set[str]] = {}
        for run_id in run_ids:
            for thread_id, namespace, identifier in connection.execute(_OF_RUN, (run_id,)):
                doomed.setdefault((thread_id, namespace), set()).add(identifier)
        for (thread_id, namespace), identifiers in doomed.items():
            kept = [i for i in _identifiers(connection, thread_id, namespace) if i not in identifiers]
            needed = _needed_by(connection, serde, thread_id, namespace, kept)
            _drop(connection, thread_id, namespace, identifiers - needed)

    return work


def prune(thread_ids: Sequence[str], strategy: str, serde: SerializerProtocol) -> Callable[[sqlite3.Connection], None]:
    """Return the function that keeps of each thread the newest checkpoint of each namespace and what it needs, or nothing.

    Raises:
        ConfigError: `strategy` is neither "keep_latest" nor "delete".
    """
    if strategy not in {"keep_latest", "delete"}:
        raise ConfigError(f"strategy: 'keep_latest' or 'delete' is due, not {strategy!r}.")

    def work(connection: sqlite3.Connection) -> None:
        for thread_id in thread_ids:
            if strategy == "delete":
                delete_thread(thread_id)(connection)
            else:
                _keep_latest(connection, serde, thread_id)

    return work


def _keep_latest(connection: sqlite3.Connection, serde: SerializerProtocol, thread_id: str) -> None:
    namespaces = connection.execute("SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ?", (thread_id,)).fetchall()
    for (namespace,) in namespaces:
        identifiers = _identifiers(connection, thread_id, namespace)
        latest = max(identifiers)
        needed = _needed_by(connection, serde, thread_id, namespace, [latest])
        _drop(connection, thread_id, namespace, set(identifiers) - needed - {latest})


def _identifiers(connection: sqlite3.Connection, thread_id: str, namespace: str) -> list[str]:
    rows = connection.execute("SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?", (thread_id, namespace))
    return [identifier for (identifier,) in rows]


def _needed_by(
    connection: sqlite3.Connection, serde: SerializerProtocol, thread_id: str, namespace: str, kept: Collection[str]
) -> set[str]:
    """Return the ids of all ancestors that the `kept` checkpoints are rebuilt from."""
    needed: set[str] = set()
    for identifier in sorted(kept, reverse=True):
        channels = _delta_channels(connection, thread_id, namespace, identifier)
        if identifier in needed and not channels:
            continue
        needed |= ancestors_needed(connection, serde, thread_id=thread_id, namespace=namespace, checkpoint_id=identifier, channels=channels)
    return needed


def _delta_channels(connection: sqlite3.Connection, thread_id: str, namespace: str, identifier: str) -> list[str]:
    sql = "SELECT metadata FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
    row = connection.execute(sql, (thread_id, namespace, identifier)).fetchone()
    metadata = json.loads(row[0]) if row and row[0] else {}
    return list(metadata.get("counters_since_delta_snapshot") or ())


def _drop(connection: sqlite3.Connection, thread_id: str, namespace: str, identifiers: Collection[str]) -> None:
    rows = [(thread_id, namespace, identifier) for identifier in identifiers]
    for table in ("checkpoints", "writes"):
        sql = f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"  # noqa: S608 - constants only
        connection.executemany(sql, rows)
