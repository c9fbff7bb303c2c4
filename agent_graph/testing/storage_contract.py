"""StorageContract: what a `Storage` owes, as tests for any implementation (docs/storage.md).

```python
class TestMyStorage(StorageContract):
    @pytest.fixture
    def open_storage(self, tmp_path):
        return lambda: MyStorage(tmp_path / "runs")
```

The suite calls a storage as agents do: two objects over one place, several threads and event loops at once, attempts that end
without a word. It needs pytest alone, no plugin for async tests. What it cannot bring about for every storage are the faults of
what lies beneath (a disk that is full, a server that is gone, a process that is killed): those tests are its author's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from agent_graph.errors import LeaseLost, NotDurable, RunInProgress, StorageError
from agent_graph.storage.port import (
    NoteRow,
    Row,
    Storage,
    TurnKey,
    thread_id_of,
)
from agent_graph.testing.storage_budgets import BudgetsContract
from agent_graph.testing.storage_cases import (
    WIDEST,
    Attempt,
    begun,
    checkpointed,
    ended,
    in_a_loop,
    journal_row,
    ledger_row,
    left,
    request,
    thread,
    turn_row,
)
from agent_graph.testing.storage_claims import ClaimsContract
from agent_graph.types import Message, MessageRole

__all__ = ["StorageContract"]


class StorageContract(ClaimsContract, BudgetsContract):
    """What a `Storage` owes."""

    # -- rows ----------------------------------------------------------------------------------------------------------

    @in_a_loop
    async def test_rows_come_back_as_they_were_put_the_last_of_each_key(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        journal = [
            journal_row(turn.key, 2, state="succeeded", attempt=3, result='{"a": "ü 東京 🙂"}', latency_ms=1.5, used_s=0.1),
            journal_row(turn.key, 1, state="failed", error="it broke", args='{"x": "\\u0000"}', idempotent=True, index=4),
            journal_row(turn.key, 3, result="x" * 1_000_000, call_id="", tool="'; --"),
        ]
        ledger = [
            ledger_row(turn.key, 2, state="settled", cost_nusd=WIDEST, tokens=-1, usage='{"model": "m"}', used=True, used_s=1e9),
            ledger_row(turn.key, 1, bound_nusd=0, bound_tokens=WIDEST, kind="subagent"),
        ]
        notes = [NoteRow(key=turn.key, step=number, kind="k", body=str(number)) for number in (3, 1, 2)]
        first: list[Row] = [*(replace(row, state="started") for row in journal), *(replace(row, model="old") for row in ledger)]
        for row in [*first, *journal, *ledger, *notes]:
            storage.put(row, fence=fence)
        await storage.durable(turn.key, fence=fence)
        assert list(await storage.journal(turn.key)) == sorted(journal, key=lambda row: row.step)
        assert list(await storage.ledger(turn.key)) == sorted(ledger, key=lambda row: row.entry)
        assert list(await storage.notes(turn.key)) == notes
        elsewhere = [replace(turn.key, turn=2), replace(turn.key, run_id="other"), replace(turn.key, namespace="other")]
        assert [[*await storage.journal(key), *await storage.ledger(key), *await storage.notes(key)] for key in elsewhere] == [[], [], []]

    @in_a_loop
    async def test_a_turn_is_rewritten_and_read(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        ended = replace(turn, status="complete", result='{"output": "ü"}', used_s=1.5, delivered=True, updated_at=7.0)
        storage.put(ended, fence=fence)
        assert list(await storage.turns("default", "r")) == [ended]
        assert list(await storage.turns("default", "unknown")) == list(await storage.turns("other", "r")) == []

    @in_a_loop
    async def test_text_that_no_database_can_hold_is_made_storable(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task(), text="hi \ud800")
        storage.put(journal_row(turn.key, 1, result="a\ud800b\x00c", error="\udfff"), fence=fence)
        await storage.durable(turn.key, fence=fence)
        [row] = await storage.journal(turn.key)
        assert row.result is not None
        assert row.result.startswith("a")
        row.result.encode()
        again = await storage.claim(request("hi \ud801"), asyncio.current_task())
        assert again.outcome == "conflict", "inputs are told apart by what was said, not by what could be stored"

    @in_a_loop
    async def test_a_read_sees_what_was_queued_a_moment_ago(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        for number in range(30):
            storage.put(journal_row(turn.key, number), fence=fence)
            assert len(await storage.journal(turn.key)) == number + 1

    @in_a_loop
    async def test_runs_are_listed_newest_first_with_their_newest_turn(self, storage: Storage) -> None:
        for at, (run_id, number) in enumerate([("a", 1), ("b", 1), ("c", 1), ("a", 2)]):
            storage.put(turn_row(run_id, number, "complete", float(at)), fence=0)
        storage.put(turn_row("z", 1, "complete", 9.0, namespace="other"), fence=0)
        assert [(row.key.run_id, row.key.turn) for row in await storage.runs("default")] == [("a", 2), ("c", 1), ("b", 1)]
        assert [row.key.run_id for row in await storage.runs()] == ["z", "a", "c", "b"]
        assert [row.key.run_id for row in await storage.runs(limit=2)] == ["z", "a"]

    @in_a_loop
    async def test_a_write_that_failed_is_told_for_ever_and_to_its_own_turn_alone(self, storage: Storage) -> None:
        me = asyncio.current_task()
        (bad, bad_fence), (good, good_fence) = await begun(storage, me, run_id="bad"), await begun(storage, me, run_id="good")
        storage.put(ledger_row(bad.key, 1, cost_nusd=2**70), fence=bad_fence)
        storage.put(ledger_row(good.key, 1), fence=good_fence)
        await storage.durable(good.key, fence=good_fence)
        for _ in range(2):
            with pytest.raises(NotDurable):
                await storage.durable(bad.key, fence=bad_fence)
            with pytest.raises(NotDurable):
                storage.put(ledger_row(bad.key, 2), fence=bad_fence)
        with pytest.raises(NotDurable):
            await storage.release(bad.key, fence=bad_fence)
        again = await storage.claim(request(run_id="bad"), me)
        assert again.outcome == "resume", "a new attempt begins with a clean sheet"
        storage.put(ledger_row(bad.key, 1), fence=again.fence)
        await storage.durable(bad.key, fence=again.fence)
        assert len(await storage.ledger(bad.key)) == 1

    # -- memory and checkpoints ----------------------------------------------------------------------------------------

    @in_a_loop
    async def test_the_memory_is_the_list_that_was_saved_last(self, opened: Callable[[], Storage]) -> None:
        storage, reader = opened(), opened()
        said = [Message(MessageRole.USER, "Zürich?"), Message(MessageRole.ASSISTANT, "21 °C", {"usage": {"input_tokens": 3}})]
        for messages in (said[:1], said, said[1:], [], said):
            await storage.save_memory("default", "r", messages)
            await storage.durable(TurnKey("default", "r", 1))
            assert await storage.load_memory("default", "r") == await reader.load_memory("default", "r") == messages
        assert await storage.load_memory("other", "r") == await storage.load_memory("default", "unknown") == []

    @in_a_loop
    async def test_a_checkpoint_obeys_the_fence_and_is_read_back(self, opened: Callable[[], Storage]) -> None:
        storage, reader, owner = opened(), opened(), Attempt()
        turn, _ = await begun(storage, owner, namespace="tenant")
        config: Any = {"configurable": {"thread_id": thread_id_of("tenant", "r"), "checkpoint_ns": ""}}
        identifier = await checkpointed(storage, turn.key, config)
        found = await reader.checkpointer.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["id"] == identifier
        if not self.shared:
            return
        owner.over = True
        assert (await reader.claim(request(namespace="tenant"), asyncio.current_task())).outcome == "resume"
        with pytest.raises(LeaseLost):
            await checkpointed(storage, turn.key, config)
        after = await reader.checkpointer.aget_tuple(config)
        assert after is not None
        assert after.checkpoint["id"] == identifier

    # -- many at once --------------------------------------------------------------------------------------------------

    def test_it_is_used_from_several_threads_and_loops_at_once(self, opened: Callable[[], Storage]) -> None:
        storages = [opened(), opened()]

        async def work(thread: int) -> list[int]:
            storage, run_id = storages[thread % 2], f"r{thread}"
            turn, fence = await begun(storage, asyncio.current_task(), run_id=run_id)
            for number in range(20):
                storage.put(journal_row(turn.key, number), fence=fence)
                if number % 5 == 0:
                    await storage.durable(turn.key, fence=fence)
            await ended(storage, turn, fence)
            return [row.step for row in await storages[(thread + 1) % 2].journal(turn.key)]

        def run(thread: int) -> list[int]:
            return asyncio.run(work(thread))

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(run, range(6))) == [list(range(20))] * 6

    # -- housekeeping --------------------------------------------------------------------------------------------------

    @in_a_loop
    async def test_delete_removes_everything_of_a_run_and_nothing_else(self, storage: Storage) -> None:
        keys: dict[str, TurnKey] = {}
        for run_id in ("r", "keep"):
            turn, fence = await begun(storage, asyncio.current_task(), run_id=run_id)
            keys[run_id] = turn.key
            for row in (journal_row(turn.key, 1), ledger_row(turn.key, 1), NoteRow(key=turn.key, step=1, kind="k", body="{}")):
                storage.put(row, fence=fence)
            await storage.save_memory("default", run_id, [Message(MessageRole.USER, "hi")])
            await checkpointed(storage, turn.key, thread(run_id))
            with pytest.raises(RunInProgress):
                await storage.delete("default", run_id)
            await storage.release(turn.key, fence=fence)
        assert await left(storage, keys["r"]) == await left(storage, keys["keep"]) == [1, 1, 1, 1, 1, 1]
        await storage.delete("default", "r")
        await storage.delete("default", "unknown")
        assert await left(storage, keys["r"]) == [0, 0, 0, 0, 0, 0]
        assert await left(storage, keys["keep"]) == [1, 1, 1, 1, 1, 1]
        assert (await storage.claim(request(), asyncio.current_task())).outcome == "new"

    @in_a_loop
    async def test_prune_deletes_what_is_over_and_old(self, storage: Storage) -> None:
        for row in (
            turn_row("old", 1, "complete", 10), turn_row("closed", 1, "closed", 10), turn_row("revived", 1, "complete", 10),
            turn_row("revived", 2, "failed", 99), turn_row("new", 1, "timeout", 99), turn_row("theirs", 1, "failed", 10, namespace="other"),
            *(turn_row(status, 1, status, 10) for status in ("running", "waiting", "stopped")),
        ):  # fmt: skip
            storage.put(row, fence=0)
        for parent in ("running", "old"):
            child = turn_row(f"child of {parent}", 1, "complete", 10)
            storage.put(replace(child, parent=f'["default","{parent}",1]'), fence=0)
        turn, fence = await begun(storage, asyncio.current_task(), run_id="busy")
        storage.put(replace(turn, status="complete", updated_at=10.0), fence=fence)
        assert sorted(await storage.prune(before=50, namespace="default")) == [
            ("default", "child of old"), ("default", "closed"), ("default", "old")
        ]  # fmt: skip
        assert list(await storage.prune(before=50)) == [("other", "theirs")]
        left = {row.key.run_id for row in await storage.runs()}
        assert left == {"revived", "new", "running", "waiting", "stopped", "busy", "child of running"}

    @in_a_loop
    async def test_unfinished_are_this_agents_dead_turns_oldest_first(self, storage: Storage) -> None:
        for row in (
            turn_row("late", 1, "running", 20), turn_row("early", 1, "stopped", 10), turn_row("waits", 1, "waiting", 5),
            turn_row("over", 1, "complete", 5), turn_row("theirs", 1, "running", 5, agent="another"),
            turn_row("tenant", 1, "running", 5, namespace="other"),
        ):  # fmt: skip
            storage.put(row, fence=0)
        await begun(storage, asyncio.current_task(), run_id="alive")
        assert [row.key.run_id for row in await storage.unfinished("default", "agent")] == ["early", "late"]

    @in_a_loop
    async def test_close_writes_what_is_queued_frees_what_is_held_and_is_final(self, opened: Callable[[], Storage]) -> None:
        storage = opened()
        turn, fence = await begun(storage, asyncio.current_task())
        storage.put(journal_row(turn.key, 1), fence=fence)
        await storage.close()
        await storage.close()
        with pytest.raises(StorageError):
            await storage.turns("default", "r")
        with pytest.raises(StorageError):
            await storage.claim(request(), asyncio.current_task())
        if self.shared:
            other = opened()
            assert [row.step for row in await other.journal(turn.key)] == [1]
            assert (await other.claim(request(), asyncio.current_task())).outcome == "resume"

    def test_it_says_where_it_is_and_what_it_survives(self, storage: Storage) -> None:
        assert storage.location
        assert all(storage.promises)
        assert storage.promises
        assert storage.checkpointer is storage.checkpointer
