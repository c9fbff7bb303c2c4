"""The default memory: one row a message, of which a save writes only those that differ from the last save.

What was saved last is remembered per run, so that saving a conversation that grew by two messages costs two rows, not a
comparison of JSON. Each save leaves a new revision in the file. A save that finds another revision than the one it builds on
(another process saved, or the run was deleted, or an earlier save failed) writes the whole list instead.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent_graph.decisions.results import make_storable
from agent_graph.storage.port import Redactor
from agent_graph.storage.rows import storable
from agent_graph.storage.schema import one_moment
from agent_graph.types import Message, MessageRole

__all__ = ["MemoryRows"]

_RUNS_REMEMBERED = 256
_MAX_CHARS = 10_000_000

_PUT = (
    "INSERT INTO ag_memory (namespace, run_id, position, role, content, metadata) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (namespace, run_id, position) DO UPDATE SET role = excluded.role, content = excluded.content, metadata = excluded.metadata"
)
_PUT_HEAD = (
    "INSERT INTO ag_memory_heads (namespace, run_id, revision) VALUES (?, ?, ?) "
    "ON CONFLICT (namespace, run_id) DO UPDATE SET revision = excluded.revision"
)


class _Saved(NamedTuple):
    """A message as it was when it was saved; messages are mutable, this is not."""

    role: str
    content: str
    metadata: Any


class _Last(NamedTuple):
    revision: str | None
    messages: tuple[_Saved, ...]


class MemoryRows:
    """What is known of the saved lists, and the functions that read and write them inside a transaction."""

    def __init__(self, redact: Redactor | None) -> None:
        self._redact = redact
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()
        self._lock = threading.Lock()

    def save(self, namespace: str, run_id: str, messages: Sequence[Message]) -> Callable[[sqlite3.Connection], None]:
        """Return the function that brings the stored list to `messages`, as they are now."""
        key = (namespace, run_id)
        revision = uuid.uuid4().hex
        with self._lock:
            last = self._last.get(key)
            now = _snapshot(messages, last.messages if last else ())
            self._remember(key, _Last(revision, now))
        changed = _changes(last.messages, now) if last else None
        rows = None if changed is None else [self._row(key, position, now[position]) for position in changed]

        def write(connection: sqlite3.Connection) -> None:
            if last is None or rows is None or _revision(connection, key) != last.revision:
                connection.execute("DELETE FROM ag_memory WHERE namespace = ? AND run_id = ?", key)
                connection.executemany(_PUT, [self._row(key, position, saved) for position, saved in enumerate(now)])
            else:
                connection.executemany(_PUT, rows)
                if len(now) < len(last.messages):
                    connection.execute("DELETE FROM ag_memory WHERE namespace = ? AND run_id = ? AND position >= ?", (*key, len(now)))
            connection.execute(_PUT_HEAD, (*key, revision))

        return write

    def load(self, connection: sqlite3.Connection, namespace: str, run_id: str) -> list[Message]:
        """Return the stored list."""
        key = (namespace, run_id)
        with one_moment(connection):
            revision = _revision(connection, key)
            rows = connection.execute(
                "SELECT role, content, metadata FROM ag_memory WHERE namespace = ? AND run_id = ? ORDER BY position",
                key,
            ).fetchall()
        messages = [Message(MessageRole(role), content, _metadata(metadata)) for role, content, metadata in rows]
        if revision is not None:
            with self._lock:
                self._remember(key, _Last(revision, _snapshot(messages, ())))
        return messages

    def forget(self, namespace: str, run_id: str) -> None:
        """Forget what was saved of a run (it has been deleted)."""
        with self._lock:
            self._last.pop((namespace, run_id), None)

    def _remember(self, key: tuple[str, str], last: _Last) -> None:
        self._last[key] = last
        self._last.move_to_end(key)
        if len(self._last) > _RUNS_REMEMBERED:
            self._last.popitem(last=False)

    def _row(self, key: tuple[str, str], position: int, saved: _Saved) -> tuple[Any, ...]:
        metadata = None
        if saved.metadata:
            metadata = storable(make_storable(saved.metadata, max_chars=_MAX_CHARS).json, self._redact)
        return (*key, position, saved.role, storable(saved.content, self._redact), metadata)


def _revision(connection: sqlite3.Connection, key: tuple[str, str]) -> str | None:
    row = connection.execute("SELECT revision FROM ag_memory_heads WHERE namespace = ? AND run_id = ?", key).fetchone()
    return row[0] if row else None


def _metadata(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {"unreadable": value}


def _snapshot(messages: Sequence[Message], before: Sequence[_Saved]) -> tuple[_Saved, ...]:
    """Return `messages` as they are now, reusing what was saved before where it is equal."""
    known = len(before)
    return tuple(before[i] if i < known and _is_same(message, before[i]) else _freeze(message) for i, message in enumerate(messages))


def _is_same(message: Message, saved: _Saved) -> bool:
    return _content(message) == saved.content and _role(message) == saved.role and message.metadata == saved.metadata


def _freeze(message: Message) -> _Saved:
    return _Saved(_role(message), _content(message), _copied(message.metadata))


def _content(message: Message) -> str:
    content: Any = message.content  # a backend of the user's may hold None, or parts
    return content if isinstance(content, str) else "" if content is None else make_storable(content, max_chars=_MAX_CHARS).json


def _role(message: Message) -> str:
    return str(getattr(message.role, "value", message.role))  # the starter code's own enum serves as well as ours


def _copied(value: Any) -> Any:
    """Return a copy that later changes inside dicts and lists do not reach."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _changes(before: Sequence[_Saved], now: Sequence[_Saved]) -> list[int]:
    known = len(before)
    return [i for i, saved in enumerate(now) if i >= known or saved is not before[i]]
