"""Turns of graphs that are not ours: one at a time, one object, one account."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from agent_graph import LeaseLost, RunConflict, RunInProgress, SqliteStorage
from agent_graph_adapters.langchain.middleware import turns
from agent_graph_adapters.langchain.middleware.both_ways import AWAITING, BLOCKING, as_async, run_through
from agent_graph_adapters.langchain.middleware.names import Begun
from agent_graph_adapters.langchain.middleware.turns import NAMESPACE, Hosted, Turns, storage_of, turns_in

New = Callable[[], SqliteStorage]
TURN = Begun(run_id="t/h1", thread_id="t", input="Pay.", agent="create_agent")


async def test_whoever_shares_a_storage_is_in_the_same_turn(new_storage: New) -> None:
    storage = new_storage()
    async with turns_in(storage).at_work(TURN, AWAITING) as one, turns_in(storage).at_work(TURN, AWAITING) as two:
        assert one is two
        assert one.presence.inside == 2


async def test_many_at_once_make_one_claim(new_storage: New) -> None:
    storage, seen = new_storage(), set[int]()
    all_in = asyncio.Barrier(8)

    async def work() -> None:
        async with turns_in(storage).at_work(TURN, AWAITING) as hosted:
            seen.add(id(hosted))
            await all_in.wait()

    await asyncio.gather(*(work() for _ in range(8)))
    assert len(seen) == 1


def test_threads_without_a_loop_work_on_one_turn(tmp_path: Path) -> None:
    storage, seen, all_in = SqliteStorage(tmp_path / "runs.db"), set[int](), threading.Barrier(4)

    async def work() -> None:
        async with turns_in(storage).at_work(TURN, BLOCKING) as hosted:
            seen.add(id(hosted))
            await as_async(lambda _: all_in.wait())(None)

    threads = [threading.Thread(target=lambda: run_through(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1
    asyncio.run(storage.close())


async def test_another_process_waits_and_is_then_refused(new_storage: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
    async with turns_in(new_storage()).at_work(TURN, AWAITING):
        with pytest.raises(RunInProgress, match="another process"):
            async with turns_in(new_storage()).at_work(TURN, AWAITING):
                pass


async def test_a_turn_that_was_left_is_taken_over_with_its_account(new_storage: New) -> None:
    async with turns_in(new_storage()).at_work(TURN, AWAITING) as hosted:
        entry = hosted.turn.reserve(step=1, kind="step", attempt=1, model="m", bound_usd=Decimal("0.5"), bound_tokens=10)
        await hosted.turn.durable()
    async with turns_in(new_storage()).at_work(TURN, AWAITING) as taken:
        assert entry == taken.turn.account.entries == 1
        assert taken.turn.spent.uncertain_usd == Decimal("0.5")
        assert taken.turn.key == hosted.turn.key


async def test_whoever_was_taken_over_writes_nothing_more(new_storage: New) -> None:
    async with turns_in(new_storage()).at_work(TURN, AWAITING) as first:
        first.presence.leave()  # as a process that stood still for longer than its claim holds
        assert first.presence.done()
        async with turns_in(new_storage()).at_work(TURN, AWAITING):
            with pytest.raises(LeaseLost):
                await _writes(first)


async def _writes(hosted: Hosted) -> None:
    hosted.turn.note("late", {}, step=1)
    await hosted.turn.durable()


async def test_a_turn_ends_and_may_go_on_all_the_same(new_storage: New) -> None:
    storage = new_storage()
    ours = turns_in(storage)
    async with ours.at_work(TURN, AWAITING) as hosted:
        ours.end(hosted)
    (row,) = await storage.turns(NAMESPACE, TURN.run_id)
    assert row.status == "complete"
    async with ours.at_work(TURN, AWAITING) as again:
        assert again is not hosted
        assert again.turn.key == hosted.turn.key, "the same turn, with its account"


async def test_a_message_that_was_edited_begins_another_turn(new_storage: New) -> None:
    ours = turns_in(new_storage())
    other = replace(TURN, input="Pay twice.")
    async with turns_in(new_storage()).at_work(TURN, AWAITING):
        with pytest.raises(RunConflict, match="another input"):
            async with ours.at_work(other, AWAITING):
                pass
    async with ours.at_work(other, AWAITING) as hosted:
        assert hosted.turn.key.turn == 2


async def test_time_counts_only_while_somebody_is_inside() -> None:
    ours = Turns(None)
    async with ours.at_work(TURN, AWAITING) as hosted:
        pass
    used = hosted.turn.used_s
    await asyncio.sleep(0.01)
    assert hosted.turn.used_s == used
    async with ours.at_work(TURN, AWAITING) as again:
        assert again is hosted


async def test_of_unstored_turns_the_oldest_is_forgotten_never_one_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "KEPT_UNSTORED", 2)
    ours = Turns(None)
    async with ours.at_work(TURN, AWAITING) as first:
        for number in range(5):
            async with ours.at_work(replace(TURN, run_id=f"other {number}"), AWAITING):
                pass
        assert ours.live(TURN) is first
        assert len(ours._live) == 2


def test_one_path_is_one_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = storage_of("runs.db")
    assert storage_of(tmp_path / "runs.db") is one
    assert storage_of(":memory:") is not storage_of(":memory:")
    assert storage_of(one) is one
