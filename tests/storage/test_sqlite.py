"""SqliteStorage beyond its contract (test_contract.py): its file, its threads, other processes, forks, redaction."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.errors import ConfigError, LeaseLost, NotDurable, RunInProgress, StorageError
from agent_graph.storage.port import JournalRow, LedgerRow, NoteRow, TurnKey, TurnRow
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.types import Message, MessageRole
from tests.stopping import stop


def test_the_constructor_opens_and_creates_nothing(file: Path) -> None:
    before = set(threading.enumerate())
    storage = SqliteStorage(file)
    assert storage.location == str(file)
    assert storage.promises
    assert storage.checkpointer is storage.checkpointer
    assert list(file.parent.iterdir()) == []
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"path": ""}, "storage: a path"), ({"path": 7}, "storage: a path"), ({"path": "a\0b"}, "storage: a path"),
        ({"durability": "none"}, "durability: 'power' or 'process'"), ({"durability": None}, "durability"),
        ({"redact": "secret"}, "redact: a function"), ({"busy_s": -1}, "busy_s"), ({"busy_s": float("nan")}, "busy_s"),
        ({"busy_s": "30"}, "busy_s"), ({"busy_s": 10**9}, "busy_s"), ({"busy_s": True}, "busy_s"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SqliteStorage(**wrong)


async def test_a_closed_storage_says_so_and_closes_twice(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    await begin(storage)
    await storage.close()
    await storage.close()
    with pytest.raises(StorageError, match="closed"):
        await storage.turns("default", "r")
    with pytest.raises(StorageError, match="closed"):
        await storage.claim(rows.request(), asyncio.current_task())


async def test_the_file_is_its_owners_alone(storage: SqliteStorage, begin: Any, file: Path) -> None:
    await begin(storage)
    assert {one.name: one.stat().st_mode & 0o777 for one in file.parent.iterdir()} == {
        "runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600
    }  # fmt: skip


# -- rows ------------------------------------------------------------------------------------------------------------

KEY = TurnKey("default", "r", 1)
TEXTS = st.text(st.characters(), max_size=20)
STORED = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
JOURNALS = st.builds(
    JournalRow, key=st.just(KEY), call_key=st.text("0123456789abcdef", min_size=32, max_size=32), step=st.integers(0, 99),
    index=st.integers(0, 9), call_id=STORED, tool=STORED, args=STORED, idempotent=st.booleans(), attempt=st.integers(0, 5),
    state=st.sampled_from(["planned", "started", "succeeded", "failed", "in_doubt", "rejected", "cancelled"]),
    result=st.none() | STORED, error=st.none() | STORED, latency_ms=st.floats(0, 1e9), used_s=st.floats(0, 1e9),
)  # fmt: skip
LEDGERS = st.builds(
    LedgerRow, key=st.just(KEY), entry=st.integers(1, 5), step=st.integers(0, 99), attempt=st.integers(1, 5), model=STORED,
    kind=st.sampled_from(["step", "summary", "judge", "subagent"]), state=st.sampled_from(["reserved", "settled", "unsettled", "failed"]),
    bound_nusd=NUMBERS, bound_tokens=NUMBERS, cost_nusd=NUMBERS, tokens=NUMBERS, usage=st.none() | STORED, used=st.booleans(),
    used_s=st.floats(0, 1e9),
)  # fmt: skip
NOTES = st.builds(NoteRow, key=st.just(KEY), step=st.integers(0, 99), kind=STORED, body=STORED)


@given(st.lists(JOURNALS | LEDGERS | NOTES, max_size=12))
def test_rows_come_back_as_they_were_put_the_last_of_each_key(put: list[Any]) -> None:
    async def play() -> tuple[Any, Any, Any]:
        storage = SqliteStorage(":memory:")
        for row in put:
            storage.put(row, fence=0)
        read = (await storage.journal(KEY), await storage.ledger(KEY), await storage.notes(KEY))
        await storage.close()
        return read

    journal, ledger, notes = asyncio.run(play())
    last_calls = {row.call_key: row for row in put if isinstance(row, JournalRow)}
    last_entries = {row.entry: row for row in put if isinstance(row, LedgerRow)}
    assert sorted(journal, key=lambda row: row.call_key) == sorted(last_calls.values(), key=lambda row: row.call_key)
    assert [(row.step, row.index) for row in journal] == sorted((row.step, row.index) for row in journal)
    assert ledger == [last_entries[entry] for entry in sorted(last_entries)]
    assert notes == [row for row in put if isinstance(row, NoteRow)]


async def test_texts_that_no_database_can_hold_are_made_storable(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage, text="hi \ud800")
    storage.put(rows.journal(claim.turn.key, 1, result="\udfff!"), fence=claim.fence)
    await storage.durable(claim.turn.key)
    assert [row.result for row in await storage.journal(claim.turn.key)] == ["?!"]
    again = await storage.claim(rows.request("hi \ud801"), asyncio.current_task())
    assert again.outcome == "conflict"  # told apart by what was said, not by what could be stored


# -- claims ----------------------------------------------------------------------------------------------------------


async def test_a_claim_that_is_refused_leaves_no_trace(storage: SqliteStorage, begin: Any, rows: Any, file: Path) -> None:
    await begin(storage)
    await storage.writer.durable()
    before = _dump(file)
    for request in (rows.request("other"), rows.request(), rows.request(None), rows.request(None, run_id="unknown")):
        assert (await storage.claim(request, asyncio.current_task())).fence == 0
    assert _dump(file) == before


def _dump(file: Path) -> dict[str, list[Any]]:
    connection = sqlite3.connect(file)
    try:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("ag_turns", "ag_leases", "ag_meta")}
    finally:
        connection.close()


async def test_a_secret_in_a_tools_name_makes_no_resume_fail(make: Any, begin: Any, rows: Any) -> None:
    """What was stored of the tools is redacted, and so is what it is compared with."""
    storage = make(redact=lambda text: text.replace("walrus", "***"))
    claim = await begin(storage, fingerprint='{"walrus":["0","once"]}')
    await storage.release(claim.turn.key, fence=claim.fence)
    again = await storage.claim(rows.request(fingerprint='{"walrus":["0","once"]}'), asyncio.current_task())
    assert again.outcome == "resume"
    assert "walrus" not in again.turn.fingerprint


async def test_a_lease_lapses_when_its_loop_is_closed_or_its_owner_collected(storage: SqliteStorage, rows: Any) -> None:
    class Owner:
        pass

    owner = Owner()
    assert (await storage.claim(rows.request(), owner)).outcome == "new"
    assert (await storage.claim(rows.request(), owner)).outcome == "busy"
    del owner
    gc.collect()

    def elsewhere() -> str:
        loop = asyncio.new_event_loop()
        task = loop.create_task(storage.claim(rows.request(), loop_owner))
        outcome: str = loop.run_until_complete(task).outcome
        loop_owner.loop = loop
        loop.close()
        return outcome

    class LoopOwner:
        loop: Any = asyncio.get_running_loop()

        def get_loop(self) -> Any:
            return self.loop

    loop_owner = LoopOwner()
    assert await asyncio.to_thread(elsewhere) == "resume"
    assert (await storage.claim(rows.request(), asyncio.current_task())).outcome == "resume"


# -- fences ----------------------------------------------------------------------------------------------------------


async def test_whoever_was_taken_over_writes_nothing_any_more(make: Any, begin: Any, rows: Any, file: Path) -> None:
    zombie = make()
    old = await begin(zombie)
    _expire(file)
    heir = make()
    new = await heir.claim(rows.request(), asyncio.current_task())
    assert new.outcome == "busy"  # the zombie's task is alive in this very process
    _take_over(file)
    key = old.turn.key
    zombie.put(rows.journal(key, 1), fence=old.fence)
    with pytest.raises(LeaseLost):
        await zombie.durable(key)
    with pytest.raises(LeaseLost):
        zombie.put(rows.journal(key, 2), fence=old.fence)
    with pytest.raises(LeaseLost):
        await zombie.save_memory("default", "r", [])
    config = {"configurable": {"thread_id": "r", "checkpoint_ns": ""}}
    with pytest.raises(LeaseLost):
        await zombie.checkpointer.aput(config, {"id": "1", "channel_values": {}}, {}, {})
    await zombie.release(key, fence=old.fence)
    assert await heir.journal(key) == []


def _expire(file: Path) -> None:
    _write(file, "UPDATE ag_leases SET until_monotonic = 0, until_wall = 0")


def _take_over(file: Path) -> None:
    _write(file, "UPDATE ag_leases SET fence = fence + 1, token = 'somebody'")


def _write(file: Path, sql: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(sql)
    connection.close()


async def test_a_failure_without_a_lease_is_told_once(storage: SqliteStorage, rows: Any) -> None:
    storage.put(rows.ledger(KEY, 1, tokens=2**70), fence=0)
    await storage.writer.ready()
    with pytest.raises(NotDurable):
        storage.put(rows.ledger(KEY, 2), fence=0)
    storage.put(rows.ledger(KEY, 3), fence=0)
    await storage.durable(KEY)
    assert [row.entry for row in await storage.ledger(KEY)] == [3]
    storage.put(rows.ledger(KEY, 4, tokens=2**70), fence=0)
    with pytest.raises(NotDurable):
        await storage.durable(KEY)
    storage.put(rows.ledger(KEY, 5), fence=0)
    await storage.durable(KEY)


# -- other processes -------------------------------------------------------------------------------------------------

HOLDER = """
import asyncio, sys
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.storage.port import TurnRequest
async def main():
    storage = SqliteStorage(sys.argv[1])
    request = TurnRequest(namespace="default", run_id="r", agent="agent", input="hello", request_id=None, fingerprint="f",
                          on_unfinished="conflict", lease_s=float(sys.argv[2]))
    claim = await storage.claim(request, asyncio.current_task())
    print(claim.outcome, claim.fence, flush=True)
    while True:
        line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        if not line:
            return
        from agent_graph.storage.port import NoteRow
        try:
            storage.put(NoteRow(key=claim.turn.key, step=1, kind="zombie", body="{}"), fence=claim.fence)
            await storage.durable(claim.turn.key)
            print("written", flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)
asyncio.run(main())
"""


async def test_a_dead_processs_lease_is_free_at_once(storage: SqliteStorage, rows: Any, file: Path, child: Any) -> None:
    holder = child(HOLDER, file, 3600)
    assert holder.stdout.readline().startswith("new")
    assert (await storage.claim(rows.request(), asyncio.current_task())).outcome == "busy"
    assert await storage.unfinished("default", "agent") == []
    holder.kill()  # not yet reaped: a zombie of the kernel's kind counts as dead
    while _state(holder.pid) != "Z":
        await asyncio.sleep(0.01)
    assert [turn.key.run_id for turn in await storage.unfinished("default", "agent")] == ["r"]
    assert (await storage.claim(rows.request(), asyncio.current_task())).outcome == "resume"
    holder.communicate()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_living_processs_lease_is_renewed(file: Path, child: Any) -> None:
    """Beyond its first end; that a lease that has not ended is respected, the tests above show without a clock."""
    lease_s = 0.9
    holder = child(HOLDER, file, lease_s)
    assert holder.stdout.readline().startswith("new")
    first = _until(file)
    while _until(file) < first + lease_s:
        await asyncio.sleep(0.05)
    holder.communicate("x\n")


def _until(file: Path) -> float:
    connection = sqlite3.connect(file)
    try:
        until: float = connection.execute("SELECT until_monotonic FROM ag_leases").fetchone()[0]
        return until
    finally:
        connection.close()


async def test_a_stopped_processs_lease_lapses_and_its_writes_are_refused(
    storage: SqliteStorage, rows: Any, file: Path, child: Any
) -> None:
    holder = child(HOLDER, file, 0.6)
    assert holder.stdout.readline().startswith("new")
    stop(holder.pid, file)
    deadline = time.monotonic() + 20
    while (claim := await storage.claim(rows.request(), asyncio.current_task())).outcome == "busy":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert claim.outcome == "resume"
    os.kill(holder.pid, signal.SIGCONT)
    output, _ = holder.communicate("write\nwrite\n", timeout=30)
    assert output.split() == ["LeaseLost", "LeaseLost"]
    assert await storage.notes(claim.turn.key) == []


async def test_of_contending_processes_one_runs(file: Path, child: Any) -> None:
    holders = [child(HOLDER, file, 30) for _ in range(4)]
    outcomes = sorted(holder.stdout.readline().split()[0] for holder in holders)
    assert outcomes == ["busy", "busy", "busy", "new"]
    for holder in holders:
        holder.communicate()


# -- housekeeping ----------------------------------------------------------------------------------------------------


async def test_delete_removes_everything_of_a_run_and_nothing_else(storage: SqliteStorage, begin: Any, rows: Any, file: Path) -> None:
    for run in ("r", "keep"):
        claim = await begin(storage, run_id=run)
        key = claim.turn.key
        for row in (rows.journal(key, 1), rows.ledger(key, 1), rows.note(key, 1)):
            storage.put(row, fence=claim.fence)
        await storage.save_memory("default", run, [Message(MessageRole.USER, "hi")])
        config = {"configurable": {"thread_id": run, "checkpoint_ns": ""}}
        config = await storage.checkpointer.aput(config, {"id": "1", "channel_values": {}}, {}, {})
        await storage.checkpointer.aput_writes(config, [("a", 1)], "task")
        with pytest.raises(RunInProgress):
            await storage.delete("default", run)
        await storage.release(key, fence=claim.fence)
    before = _counts(file)
    assert set(before.values()) == {2}
    await storage.delete("default", "r")
    assert set(_counts(file).values()) == {1}
    assert await storage.load_memory("default", "r") == []
    assert await storage.checkpointer.aget_tuple({"configurable": {"thread_id": "r"}}) is None
    await storage.delete("default", "unknown")


def _counts(file: Path) -> dict[str, int]:
    connection = sqlite3.connect(file)
    try:
        names = [
            n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'") if n not in ("ag_meta", "ag_budgets")
        ]
        return {name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in names}
    finally:
        connection.close()


async def test_an_unclosed_storage_can_be_collected_and_ends_its_threads(file: Path, rows: Any) -> None:
    storage = SqliteStorage(file)
    await storage.claim(rows.request(), asyncio.current_task())
    storage.put(TurnRow(key=KEY, agent="a", input="last", status="running"), fence=1)
    writer = storage.writer
    del storage
    gc.collect()
    assert await asyncio.to_thread(writer.join, 10)
    other = SqliteStorage(file)
    assert [turn.input for turn in await other.turns("default", "r")] == ["last"]
    assert (await other.claim(rows.request(), asyncio.current_task())).outcome == "resume"
    await other.close()


FORK = """
import asyncio, os, sys
from agent_graph.errors import LeaseLost
from agent_graph.storage.port import NoteRow, TurnRequest
from agent_graph.storage.sqlite import SqliteStorage
def request(run):
    return TurnRequest(namespace="default", run_id=run, agent="a", input="hello", request_id=None, fingerprint="f",
                       on_unfinished="conflict")
storage = SqliteStorage(sys.argv[1])
async def parent():
    claim = await storage.claim(request("r"), asyncio.current_task())
    pid = os.fork()
    if pid == 0:
        return claim, None
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
    storage.put(NoteRow(key=claim.turn.key, step=1, kind="parent", body=""), fence=claim.fence)
    await storage.release(claim.turn.key, fence=claim.fence)
    await storage.close()
    os._exit(0)
async def child(claim):
    try:
        storage.put(NoteRow(key=claim.turn.key, step=1, kind="child", body=""), fence=claim.fence)
        os._exit(3)
    except LeaseLost:
        pass
    assert (await storage.claim(request("r"), asyncio.current_task())).outcome == "busy"
    own = await storage.claim(request("child"), asyncio.current_task())
    assert own.outcome == "new"
    await storage.save_memory("default", "child", [])
    await storage.release(own.turn.key, fence=own.fence)
    await storage.close()
    os._exit(0)
loop = asyncio.new_event_loop()
claim, _ = loop.run_until_complete(parent())
asyncio.events._set_running_loop(None)
try:
    asyncio.new_event_loop().run_until_complete(child(claim))
finally:
    os._exit(4)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_child_holds_nothing_of_its_parents(storage: SqliteStorage, file: Path, child: Callable[..., Any]) -> None:
    process: subprocess.Popen[str] = child(FORK, file)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [note.kind for note in await storage.notes(KEY)] == ["parent"]
    assert {turn.key.run_id for turn in await storage.runs()} == {"r", "child"}


# -- redaction -------------------------------------------------------------------------------------------------------


async def test_no_secret_reaches_the_bytes_of_any_file(make: Any, begin: Any, rows: Any, file: Path) -> None:
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.types import Send

    secret = "sk-Ünseen-123"

    def redact(text: str) -> str:
        return text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")

    storage = make(redact=redact)
    claim = await begin(storage, text=f"use {secret}")
    key, fence = claim.turn.key, claim.fence
    quoted = json.dumps({"a": secret})
    storage.put(replace(claim.turn, result=quoted), fence=fence)
    storage.put(rows.journal(key, 1, args=quoted, result=quoted, error=secret, call_id=secret), fence=fence)
    storage.put(rows.ledger(key, 1, usage=quoted), fence=fence)
    storage.put(replace(rows.note(key, 1), body=quoted), fence=fence)
    await storage.save_memory("default", "r", [Message(MessageRole.USER, secret, {"deep": [{"x": secret}]})])
    call = {"name": "t", "args": {"key": secret, secret: 1}, "id": "1", "type": "tool_call"}
    values = {
        "messages": [HumanMessage(secret), AIMessage(f"a {secret} b", tool_calls=[call], additional_kwargs={"raw": quoted})],
        "task": Send("node", {"x": secret}), "raw": secret.encode(), "deep": {"set": {secret}, "tuple": (secret,)},
    }  # fmt: skip
    config = {"configurable": {"thread_id": "r", "checkpoint_ns": ""}, "metadata": {"who": secret}}
    following = await storage.checkpointer.aput(config, {"id": "1", "channel_values": values}, {"source": "loop"}, {})
    await storage.checkpointer.aput_writes(following, [("messages", values["messages"]), ("bytes", secret.encode())], "task")
    await storage.durable(key)
    for one in file.parent.iterdir():
        assert secret.encode() not in one.read_bytes(), one.name
        assert json.dumps(secret)[1:-1].encode() not in one.read_bytes(), one.name
    found = await storage.checkpointer.aget_tuple({"configurable": {"thread_id": "r"}})
    assert found is not None
    read = found.checkpoint["channel_values"]
    assert [message.content for message in read["messages"]] == ["***", "a *** b"]
    assert read["messages"][1].tool_calls[0]["args"] == {"key": "***", "***": 1}
    assert read["task"] == Send("node", {"x": "***"})
    assert (read["raw"], read["deep"]) == (b"***", {"set": {"***"}, "tuple": ["***"]})
    assert found.metadata["who"] == "***"
    assert await storage.load_memory("default", "r") == [Message(MessageRole.USER, "***", {"deep": [{"x": "***"}]})]
    await storage.release(key, fence=fence)
    same = await storage.claim(rows.request(f"use {secret}"), asyncio.current_task())
    assert same.outcome == "resume"  # the same input is recognised though its text was not stored
