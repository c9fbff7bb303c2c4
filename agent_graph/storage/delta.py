"""What a DeltaChannel's value is made of: its writes on the way from the nearest stored value to a checkpoint, in one query.

LangGraph's generic walk asks for every ancestor on its own, and the stock saver asks twice; at 200 steps a resume spends most
of its time there. The result is the same, which a test holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

__all__ = ["ancestors_needed", "read_history"]

# The walk follows parents, not the order of ids. CROSS JOIN keeps `ancestors` the outer loop: one look-up by primary key a
# step, where the planner might else scan the thread at every step.
_ANCESTORS = """
WITH RECURSIVE ancestors(depth, id, parent, type, checkpoint) AS (
    SELECT 0, checkpoint_id, parent_checkpoint_id, type, checkpoint FROM checkpoints
    WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3
    UNION ALL
    SELECT a.depth + 1, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint
    FROM ancestors a CROSS JOIN checkpoints c ON c.checkpoint_id = a.parent
    WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2
)
"""
_NEWEST = "SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1"


def read_history(
    connection: sqlite3.Connection,
    serde: SerializerProtocol,
    *,
    thread_id: str,
    namespace: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> Mapping[str, DeltaChannelHistory]:
    """Return, for each of `channels`, the writes oldest first and the stored value they start from, if there is one."""
    if not channels:
        return {}
    if checkpoint_id is None:
        newest = connection.execute(_NEWEST, (thread_id, namespace)).fetchone()
        checkpoint_id = newest[0] if newest else ""
    collected: dict[str, list[list[PendingWrite]]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    active = set(channels)
    for checkpoint, rows in _walk(connection, (thread_id, namespace, checkpoint_id, *channels), len(channels)):
        for channel in active:
            ours = sorted((row for row in rows if row[4] == channel), key=lambda row: writes_sort_key(row[6], row[5], row[7]))
            collected[channel].append([(row[5], channel, serde.loads_typed((row[8], row[9]))) for row in ours])
        values = serde.loads_typed(checkpoint)["channel_values"]
        for channel in active & values.keys():
            seeds[channel] = values[channel]
            active.discard(channel)
        if not active:
            break
    return {channel: _entry(collected[channel], channel, seeds) for channel in channels}


def _entry(newest_first: Sequence[Sequence[PendingWrite]], channel: str, seeds: Mapping[str, Any]) -> DeltaChannelHistory:
    entry: DeltaChannelHistory = {"writes": [write for writes in reversed(newest_first) for write in writes]}
    if channel in seeds:
        entry["seed"] = seeds[channel]
    return entry


def _walk(
    connection: sqlite3.Connection, parameters: Sequence[Any], width: int
) -> Iterator[tuple[tuple[str, bytes], list[tuple[Any, ...]]]]:
    """Yield the ancestors nearest first: (type, blob) of each, and its writes to the channels."""
    marks = ", ".join(f"?{4 + i}" for i in range(width))
    sql = (
        f"{_ANCESTORS} SELECT a.depth, a.id, a.type, a.checkpoint, w.channel, w.task_id, w.task_path, w.idx, w.type, w.value "  # noqa: S608  our own names; values are bound
        "FROM ancestors a LEFT JOIN writes w ON w.thread_id = ?1 AND w.checkpoint_ns = ?2 AND w.checkpoint_id = a.id "
        f"AND w.channel IN ({marks}) WHERE a.depth > 0"
    )
    seen: set[str] = set()
    cursor = connection.execute(sql, parameters)
    try:
        for _, group in groupby(cursor, key=lambda row: row[0]):
            rows = list(group)
            if rows[0][1] in seen:
                return  # a checkpoint put again under its own descendant makes the chain a ring
            seen.add(rows[0][1])
            yield (rows[0][2], rows[0][3]), rows
    finally:
        cursor.close()


def ancestors_needed(
    connection: sqlite3.Connection,
    serde: SerializerProtocol,
    *,
    thread_id: str,
    namespace: str,
    checkpoint_id: str,
    channels: Sequence[str],
) -> set[str]:
    """Return the ids of a checkpoint's ancestors from which the values of `channels` are rebuilt."""
    active = set(channels)
    needed: set[str] = set()
    if not active:
        return needed
    sql = f"{_ANCESTORS} SELECT id, type, checkpoint FROM ancestors"  # noqa: S608 - constants only
    cursor = connection.execute(sql, (thread_id, namespace, checkpoint_id))
    try:
        for identifier, kind, blob in cursor:
            if identifier in needed:
                break
            if identifier != checkpoint_id:
                needed.add(identifier)
            active -= serde.loads_typed((kind, blob))["channel_values"].keys()
            if not active:
                break
    finally:
        cursor.close()
    return needed
