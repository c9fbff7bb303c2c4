"""The part of the storage's contract that says what fits into a shared budget, whoever else reserves there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from agent_graph.errors import LeaseLost
from agent_graph.storage.port import BudgetCap, BudgetUse, Charge, LedgerRow, Storage, TurnKey
from agent_graph.testing.storage_cases import StorageFixtures, begun, ended, in_a_loop, ledger_row, request, turn_row

__all__ = ["BudgetsContract"]

TEAM = Charge("default", "team-ü", "2026-11-25")
CAP = BudgetCap(TEAM, 100, None)


def charged(key: TurnKey, entry: int, nusd: int, **other: Any) -> LedgerRow:
    """Return a reservation that counts in the budget."""
    return ledger_row(key, entry, bound_nusd=nusd, charges=(TEAM,), **other)


class BudgetsContract(StorageFixtures):
    """What counts in a shared budget, and what is let into it."""

    @in_a_loop
    async def test_a_reservation_that_does_not_fit_leaves_no_trace(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        first = await storage.reserve(charged(turn.key, 1, 60), fence=fence, caps=[CAP])
        assert (first.granted, first.uses) == (True, (BudgetUse(60, 0),))
        second = await storage.reserve(charged(turn.key, 2, 41), fence=fence, caps=[CAP])
        assert (second.granted, second.uses) == (False, (BudgetUse(60, 0),))
        assert list(await storage.ledger(turn.key)) == [charged(turn.key, 1, 60)]
        third = await storage.reserve(charged(turn.key, 2, 40), fence=fence, caps=[CAP])
        assert third.granted, "a limit may be used up exactly"

    @in_a_loop
    async def test_each_budget_of_a_reservation_has_to_hold_it(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        other = replace(TEAM, budget="other")
        row = replace(charged(turn.key, 1, 60, bound_tokens=11), charges=(TEAM, other))
        answer = await storage.reserve(row, fence=fence, caps=[CAP, BudgetCap(other, None, 10)])
        assert (answer.granted, answer.uses) == (False, (BudgetUse(), BudgetUse()))
        answer = await storage.reserve(row, fence=fence, caps=[CAP, BudgetCap(other, None, 11)])
        assert (answer.granted, answer.uses) == (True, (BudgetUse(60, 11), BudgetUse(60, 11)))

    @in_a_loop
    async def test_of_a_row_that_is_there_the_difference_has_to_fit(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        for nusd, granted in ((60, True), (100, True), (101, False), (30, True)):
            assert (await storage.reserve(charged(turn.key, 1, nusd), fence=fence, caps=[CAP])).granted == granted
        assert await storage.budget_use(TEAM) == BudgetUse(30, 0)

    @in_a_loop
    async def test_a_row_that_asks_for_no_more_fits_in_a_budget_that_is_over(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        await storage.reserve(charged(turn.key, 1, 60), fence=fence, caps=[CAP])
        less = BudgetCap(TEAM, 50, None)
        assert (await storage.reserve(charged(turn.key, 1, 60), fence=fence, caps=[less])).granted
        assert (await storage.reserve(charged(turn.key, 1, 55), fence=fence, caps=[less])).granted
        assert not (await storage.reserve(charged(turn.key, 1, 56), fence=fence, caps=[less])).granted

    @in_a_loop
    @pytest.mark.parametrize("how", ["closed", "deleted"])
    async def test_what_a_dead_turn_held_for_its_landing_is_given_back(self, storage: Storage, how: str) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        await storage.reserve(charged(turn.key, 1, 60), fence=fence, caps=[CAP])
        await storage.reserve(charged(turn.key, 2, 40, kind="landing"), fence=fence, caps=[CAP])
        await ended(storage, turn, fence, status="stopped", result=None)
        assert await storage.budget_use(TEAM) == BudgetUse(100, 0)
        if how == "closed":
            assert (await storage.claim(request("other"), asyncio.current_task())).outcome == "new"
        else:
            await storage.delete("default", "r")
        assert await storage.budget_use(TEAM) == BudgetUse(60, 0)

    @in_a_loop
    async def test_the_end_of_a_row_moves_its_budget_and_a_deleted_run_does_not(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        row = charged(turn.key, 1, 60)
        await storage.reserve(row, fence=fence, caps=[CAP])
        for end, counts in (
            (replace(row, state="unsettled"), BudgetUse(60, 0)),
            (replace(row, state="failed"), BudgetUse(0, 0)),
            (replace(row, cost_nusd=5, tokens=7, bound_nusd=20, kind="subagent"), BudgetUse(25, 7)),
            (replace(row, state="settled", cost_nusd=5, tokens=7), BudgetUse(5, 7)),
        ):
            storage.put(end, fence=fence)
            assert await storage.budget_use(TEAM) == counts
        await ended(storage, turn, fence)
        await storage.delete("default", "r")
        assert await storage.budget_use(TEAM) == BudgetUse(5, 7), "its money is spent"
        for other in (replace(TEAM, period=""), replace(TEAM, namespace="n"), replace(TEAM, budget="other")):
            assert await storage.budget_use(other) == BudgetUse()

    @in_a_loop
    async def test_all_that_were_used_are_listed_by_name_the_newest_day_first(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        days = [replace(TEAM, period=f"2026-01-{day}") for day in ("30", "31")]
        charges = (replace(TEAM, budget="Zoë's"), *days, replace(TEAM, budget="all", period=""))
        for entry, charge in enumerate(charges, 1):
            row = replace(charged(turn.key, entry, 10 * entry, bound_tokens=entry), charges=(charge,))
            assert (await storage.reserve(row, fence=fence, caps=[BudgetCap(charge, None, None)])).granted
        zoe, older, newer, all_time = [(charge, BudgetUse(10 * entry, entry)) for entry, charge in enumerate(charges, 1)]
        assert list(await storage.budgets(TEAM.namespace)) == sorted([zoe, all_time, newer, older], key=lambda use: use[0].budget)
        assert list(await storage.budgets("another")) == []

    @in_a_loop
    async def test_who_does_not_hold_the_lease_reserves_nothing(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task())
        with pytest.raises(LeaseLost):
            await storage.reserve(charged(turn.key, 1, 60), fence=fence + 1, caps=[CAP])
        assert await storage.budget_use(TEAM) == BudgetUse()

    def test_of_many_at_once_as_many_are_granted_as_fit(self, opened: Callable[[], Storage]) -> None:
        storages = [opened(), opened()]

        async def work(thread: int) -> bool:
            storage = storages[thread % 2]
            turn, fence = await begun(storage, asyncio.current_task(), run_id=f"r{thread}")
            return (await storage.reserve(charged(turn.key, 1, 30), fence=fence, caps=[CAP])).granted

        def run(thread: int) -> bool:
            return asyncio.run(work(thread))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(run, range(8))).count(True) == 3

    @in_a_loop
    async def test_a_turn_begun_inside_another_is_told_apart(self, storage: Storage) -> None:
        turn, fence = await begun(storage, asyncio.current_task(), parent='["default", "p", 1]')
        await ended(storage, turn, fence, status="stopped", result=None)
        storage.put(turn_row("alone", 1, "stopped", 1.0), fence=0)
        assert [row.key.run_id for row in await storage.unfinished("default", "agent")] == ["alone"]
        again = await storage.claim(request(), asyncio.current_task())
        assert again.outcome == "resume"
        assert again.turn is not None
        assert again.turn.parent == '["default", "p", 1]'
