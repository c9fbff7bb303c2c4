"""The part of the storage's contract that says who may run: claims, leases, fences."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from agent_graph.errors import LeaseLost
from agent_graph.storage.port import Claim, Storage
from agent_graph.testing.storage_cases import (
    Attempt,
    StorageFixtures,
    begun,
    claimed,
    ended,
    in_a_loop,
    journal_row,
    remembered,
    request,
    turn_of,
    written,
)

__all__ = ["ClaimsContract"]


class ClaimsContract(StorageFixtures):
    """Who may run, and what becomes of those who may not any more."""

    # -- who may run ---------------------------------------------------------------------------------------------------

    @in_a_loop
    async def test_a_run_goes_through_its_life(self, storage: Storage) -> None:
        me = asyncio.current_task()
        first, fence = await begun(storage, me, text="one")
        assert (first.key.turn, first.status, first.input, first.agent) == (1, "running", "one", "agent")
        assert [(await storage.claim(request(text), me)).outcome for text in ("one", "two")] == ["busy", "conflict"]
        first = await ended(storage, first, fence)
        stored = await storage.claim(request("one"), me)
        assert (stored.outcome, stored.turn, stored.fence) == ("stored", first, 0)
        storage.put(replace(first, delivered=True), fence=0)
        assert (await storage.claim(request(None), me)).outcome == "not_found"
        second, fence = await begun(storage, me, text="one")
        assert second.key.turn == 2
        await ended(storage, second, fence, status="stopped", result=None)
        resumed = await storage.claim(request("one"), me)
        assert (resumed.outcome, turn_of(resumed).key.turn, turn_of(resumed).status) == ("resume", 2, "running")
        await ended(storage, second, resumed.fence, status="stopped", result=None)
        third = await storage.claim(request("three"), me)
        assert (third.outcome, third.closed is not None and (third.closed.key.turn, third.closed.status)) == ("new", (2, "closed"))
        assert [turn.status for turn in await storage.turns("default", "r")] == ["complete", "closed", "running"]
        assert [claim.died for claim in (stored, resumed, third)] == [False] * 3

    @in_a_loop
    async def test_who_left_a_turn_without_a_word_is_told_to_have_died(self, storage: Storage) -> None:
        async def attempt(text: str | None, on_unfinished: Any) -> Claim:
            return await storage.claim(request(text, on_unfinished=on_unfinished), asyncio.current_task())

        claims = [
            await asyncio.create_task(attempt(text, policy))
            for text, policy in (("one", "conflict"), (None, "conflict"), ("two", "close"), ("two", "conflict"))
        ]
        assert [(claim.outcome, claim.died) for claim in claims] == [("new", False), ("resume", True), ("new", True), ("resume", True)]

    @in_a_loop
    async def test_a_request_id_finds_its_turn(self, storage: Storage) -> None:
        me = asyncio.current_task()
        turn, fence = await begun(storage, me, request_id="job")
        turn = await ended(storage, turn, fence, delivered=True)
        assert (await storage.claim(request(request_id="job"), me)).turn == turn
        assert (await storage.claim(request("other", request_id="job"), me)).outcome == "conflict"
        assert (await storage.claim(request(request_id="job", run_id="r2"), me)).outcome == "new"
        assert (await storage.claim(request(awaited=1), me)).outcome == "stored"

    @in_a_loop
    async def test_other_tools_are_refused_and_force_adopts_them(self, storage: Storage) -> None:
        me = asyncio.current_task()
        turn, fence = await begun(storage, me)
        await ended(storage, turn, fence, status="stopped", result=None)
        changed = await storage.claim(request(None, fingerprint="g"), me)
        assert (changed.outcome, bool(changed.reason)) == ("changed", True)
        forced = await storage.claim(request(None, fingerprint="g", force=True), me)
        assert (forced.outcome, turn_of(forced).fingerprint) == ("resume", "g")

    @in_a_loop
    async def test_a_turn_that_failed_is_taken_up_again_where_that_is_asked_for(self, storage: Storage) -> None:
        me = asyncio.current_task()
        turn, fence = await begun(storage, me)
        await ended(storage, turn, fence, status="failed", delivered=True)
        assert (await storage.claim(request(None), me)).outcome == "not_found"
        again = await storage.claim(request(None, reopen=True), me)
        assert (again.outcome, turn_of(again).status, turn_of(again).delivered) == ("resume", "running", False)

    @in_a_loop
    async def test_a_turn_that_ended_at_a_shared_limit_is_taken_up_again_by_a_resume(self, storage: Storage) -> None:
        me = asyncio.current_task()
        turn, fence = await begun(storage, me)
        await ended(storage, turn, fence, status="failed", delivered=True, result='{"stop_reason": "budget"}')
        again = await storage.claim(request(None), me)
        assert (again.outcome, turn_of(again).status, turn_of(again).delivered) == ("resume", "running", False)

    @in_a_loop
    async def test_a_persons_word_takes_up_a_turn_that_waits_and_no_other(self, storage: Storage) -> None:
        me, word = asyncio.current_task(), request(None, settles=True, fingerprint="")
        assert (await storage.claim(word, me)).outcome == "not_found"
        turn, fence = await begun(storage, me)
        assert (await storage.claim(word, me)).outcome == "busy"
        await ended(storage, turn, fence, status="waiting")
        assert (await storage.claim(request(None), me)).outcome == "waiting"
        taken = await storage.claim(word, me)
        assert (taken.outcome, turn_of(taken).result, turn_of(taken).fingerprint) == ("resume", "{}", "f")
        assert (await storage.claim(word, me)).outcome == "busy"
        await ended(storage, turn, taken.fence)
        assert (await storage.claim(word, me)).outcome == "conflict"

    @in_a_loop
    async def test_a_claim_that_is_refused_changes_nothing(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        for refused in (request("other"), request(), request(None), request(None, run_id="unknown")):
            assert (await storage.claim(refused, asyncio.current_task())).fence == 0
        assert list(await storage.turns("default", "r")) == [turn]
        assert list(await storage.turns("default", "unknown")) == []
        storage.put(journal_row(turn.key, 1), fence=fence)
        await storage.durable(turn.key, fence=fence)

    @pytest.mark.parametrize("again", range(3))
    def test_of_many_contenders_one_runs(self, opened: Callable[[], Storage], again: int) -> None:
        storages = [opened() for _ in range(3)]
        outcomes: list[str] = []
        everybody_has_asked, lock = threading.Event(), threading.Lock()

        def contend(storage: Storage) -> None:
            async def run() -> None:
                outcome: str
                try:
                    outcome = (await storage.claim(request(), asyncio.current_task())).outcome
                except Exception as error:  # noqa: BLE001  an error is an outcome, or the others would wait for ever
                    outcome = repr(error)
                with lock:
                    outcomes.append(outcome)
                    if len(outcomes) == 8:
                        everybody_has_asked.set()
                await asyncio.to_thread(everybody_has_asked.wait)  # whoever got it lives until everybody has asked

            asyncio.run(run())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(contend, [storages[i % 3] for i in range(8)]))
        assert sorted(outcomes) == ["busy"] * 7 + ["new"]

    @in_a_loop
    async def test_a_lease_ends_with_its_attempt(self, storage: Storage) -> None:
        async def attempt() -> str:
            return (await storage.claim(request(), asyncio.current_task())).outcome

        assert await asyncio.create_task(attempt()) == "new"
        assert [turn.key.run_id for turn in await storage.unfinished("default", "agent")] == ["r"]
        assert await asyncio.create_task(attempt()) == "resume"
        owner = Attempt()
        assert (await storage.claim(request(), owner)).outcome == "resume"
        assert list(await storage.unfinished("default", "agent")) == []
        owner.over = True
        assert (await storage.claim(request(), owner)).outcome == "resume"

    def test_a_lease_ends_with_its_event_loop(self, storage: Storage) -> None:
        assert asyncio.run(claimed(storage)).outcome == "new"
        assert asyncio.run(claimed(storage)).outcome == "resume"

    @in_a_loop
    async def test_a_claim_whose_caller_goes_away_is_given_back(self, storage: Storage) -> None:
        await storage.turns("default", "r")
        owner = Attempt()
        claiming = asyncio.create_task(storage.claim(request(), owner))
        await asyncio.sleep(0)
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
        assert (await storage.claim(request(), owner)).outcome in {"new", "resume"}
        assert len(await storage.turns("default", "r")) == 1

    # -- fences --------------------------------------------------------------------------------------------------------

    @in_a_loop
    async def test_whoever_was_taken_over_writes_nothing_any_more(self, opened: Callable[[], Storage]) -> None:
        zombie, heir, owner = opened(), opened(), Attempt()
        turn, fence = await begun(zombie, owner)
        owner.over = True
        taken = await heir.claim(request(), asyncio.current_task())
        assert (taken.outcome, taken.fence > fence) == ("resume", True)
        with pytest.raises(LeaseLost):
            await written(zombie, journal_row(turn.key, 1), fence)
        with pytest.raises(LeaseLost):
            await zombie.durable(turn.key, fence=fence)
        if self.shared:
            with pytest.raises(LeaseLost):
                await remembered(zombie, turn.key, "of a zombie")
        await zombie.release(turn.key, fence=fence)
        heir.put(journal_row(turn.key, 2), fence=taken.fence)
        await heir.durable(turn.key, fence=taken.fence)
        assert [row.step for row in await heir.journal(turn.key)] == [2]
        assert await heir.load_memory("default", "r") == []

    @in_a_loop
    async def test_a_fence_that_was_not_handed_out_is_refused(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        for wrong in (fence + 1, fence + 99):
            with pytest.raises(LeaseLost):
                await written(storage, journal_row(turn.key, 1), wrong)
        await storage.release(turn.key, fence=fence)
        with pytest.raises(LeaseLost):
            await written(storage, journal_row(turn.key, 1), fence)
        assert list(await storage.journal(turn.key)) == []

    @in_a_loop
    async def test_without_a_lease_one_may_write_only_while_nobody_holds_one(self, opened: Callable[[], Storage]) -> None:
        if not self.shared:
            pytest.skip("takes two storages over one place")
        storage, other = opened(), opened()
        turn, fence = await begun(storage, asyncio.current_task())
        for _ in range(2):
            with pytest.raises(LeaseLost):
                await written(other, journal_row(turn.key, 1), 0)
        await storage.release(turn.key, fence=fence)
        await written(other, journal_row(turn.key, 2), 0)
        assert [row.step for row in await other.journal(turn.key)] == [2]

    @in_a_loop
    async def test_a_fence_is_never_handed_out_twice(self, storage: Storage) -> None:
        """Else a zombie of a run that was deleted and begun anew would hold a valid number."""
        me = asyncio.current_task()
        turn, first = await begun(storage, me)
        await storage.release(turn.key, fence=first)
        await storage.delete("default", "r")
        _, second = await begun(storage, me)
        _, other = await begun(storage, me, run_id="other")
        assert len({first, second, other}) == 3
        assert first < second
