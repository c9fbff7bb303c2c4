"""The default memory: what was saved is what is loaded, and only what changed is written."""

from __future__ import annotations

import asyncio
import copy
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.errors import NotDurable
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.types import Message, MessageRole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.builds(
    Message, st.sampled_from(MessageRole), st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.dictionaries(st.sampled_from(["tool_calls", "usage", "name"]), JSON, max_size=2),
)  # fmt: skip
WAYS = ["append", "cut", "replace", "mutate", "clear", "delete", "load"]
CHANGES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(WAYS), MESSAGES, st.integers(0, 9)),
    max_size=15,
)


@pytest.mark.slow
@given(CHANGES)
def test_whoever_saves_last_is_what_is_loaded(tmp_path_factory: Any, changes: list[Any]) -> None:
    """Two processes (here: two storages) take turns on one run; lists grow, shrink, and change in the middle and in place."""
    file = tmp_path_factory.mktemp("memory") / "runs.db"

    async def play() -> None:
        storages = [SqliteStorage(file, durability="process") for _ in range(2)]
        messages: list[Message] = []
        for who, what, message, position in changes:
            match what:
                case "append":
                    messages = [*messages, message, copy.deepcopy(message)]
                case "cut":
                    messages = messages[: len(messages) // 2]
                case "replace" if messages:
                    messages[position % len(messages)] = message
                case "mutate" if messages:
                    _mutate(messages[position % len(messages)], position)
                case "clear":
                    messages = []
                case "delete":
                    await storages[who].delete("default", "r")
                    messages = []
                case "load":
                    messages = await storages[who].load_memory("default", "r")
            if what != "delete":
                await storages[who].save_memory("default", "r", messages)
                await storages[who].writer.ready()  # the lease is what keeps two processes from saving at once
            assert await storages[1 - who].load_memory("default", "r") == messages
            assert await storages[who].load_memory("default", "r") == messages
        for storage in storages:
            await storage.close()

    asyncio.run(play())


def _mutate(message: Message, number: int) -> None:
    """Change a message that has been saved, as a backend may: the object stays the same."""
    deep = message.metadata.setdefault("deep", [{}])
    deep[0]["n"] = deep[0].get("n", 0) + 1
    if number % 2:
        message.content += "!"


async def test_only_what_changed_is_written(storage: SqliteStorage, file: Path) -> None:
    messages = [Message(MessageRole.USER, f"{i}", {"i": [i]}) for i in range(200)]
    await storage.save_memory("default", "r", messages)
    await storage.writer.ready()
    assert await _rows_written(storage, messages) == 0
    messages.append(Message(MessageRole.ASSISTANT, "new"))
    assert await _rows_written(storage, messages) == 1
    messages[5] = Message(MessageRole.USER, "edited")
    assert await _rows_written(storage, list(messages)) == 1
    messages[7].metadata["i"].append(7)
    assert await _rows_written(storage, copy.deepcopy(messages)) == 1
    del messages[150:]
    assert await _rows_written(storage, messages) == 51
    fresh = SqliteStorage(file)
    loaded = await fresh.load_memory("default", "r")
    assert await _rows_written(fresh, [*loaded, Message(MessageRole.USER, "x")]) == 1  # a resumed process knows what it loaded
    await fresh.close()


async def _rows_written(storage: SqliteStorage, messages: list[Message]) -> int:
    """Return how many rows of messages a save touches (the head's row is not counted)."""
    before = await storage.writer.run(lambda connection: connection.total_changes)
    await storage.save_memory("default", "r", messages)
    after = await storage.writer.run(lambda connection: connection.total_changes)
    return after - before - 1


async def test_a_save_that_failed_is_made_good_by_the_next(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage)
    await storage.save_memory("default", "r", [Message(MessageRole.USER, "one")])
    await storage.durable(claim.turn.key)
    storage.put(rows.ledger(claim.turn.key, 1, tokens=2**70), fence=claim.fence)  # breaks the attempt
    await storage.save_memory("default", "r", [Message(MessageRole.USER, "one"), Message(MessageRole.USER, "two")])
    await storage.writer.ready()
    with pytest.raises(NotDurable):
        await storage.release(claim.turn.key, fence=claim.fence)
    assert (await storage.claim(rows.request(None), asyncio.current_task())).outcome == "resume"
    saved = [Message(MessageRole.USER, text) for text in ("one", "two", "three")]
    await storage.save_memory("default", "r", saved)
    await storage.durable(claim.turn.key)
    other = SqliteStorage(storage.location)
    assert await other.load_memory("default", "r") == saved
    await other.close()


async def test_a_backends_own_messages_serve_as_well(storage: SqliteStorage, file: Path) -> None:
    """The starter code's classes are pasted, not imported; contents and metadata may be anything."""
    import enum
    import types

    class MessageRole2(enum.Enum):
        USER = "user"

    odd: Any = types.SimpleNamespace(role=MessageRole2.USER, content=None, metadata={"f": float("nan"), "o": object(), "s": "\ud800"})
    parts: Any = types.SimpleNamespace(role="assistant", content=[{"type": "text"}], metadata={})
    await storage.save_memory("default", "r", [odd, parts])
    first, second = await storage.load_memory("default", "r")
    assert (first.role, first.content) == (MessageRole.USER, "")
    assert (second.role, second.content) == (MessageRole.ASSISTANT, '[{"type":"text"}]')
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT COUNT(*) FROM ag_memory WHERE json_valid(metadata)").fetchone() == (1,)
    connection.close()


async def test_runs_and_namespaces_are_apart(storage: SqliteStorage) -> None:
    for namespace in ("default", "other"):
        for run in ("a", "b"):
            await storage.save_memory(namespace, run, [Message(MessageRole.USER, namespace + run)])
    assert [m.content for m in await storage.load_memory("other", "a")] == ["othera"]
    assert [m.content for m in await storage.load_memory("default", "b")] == ["defaultb"]
    assert await storage.load_memory("default", "c") == []
