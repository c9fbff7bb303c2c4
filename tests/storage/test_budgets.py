"""Shared budgets in the storage: what is reserved fits, whoever else reserves, and every row moves its budget by what it counts."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.errors import LeaseLost
from agent_graph.storage import schema
from agent_graph.storage.port import BudgetCap, BudgetUse, Charge, LedgerRow, TurnKey
from agent_graph.storage.sqlite import SqliteStorage
from tests.storage.conftest import Rows

TEAM = Charge("default", "team-a", "2026-11-25")
CAP = BudgetCap(TEAM, 100, None)


def reserved(rows: Any, key: Any, entry: int, nusd: int, **other: Any) -> LedgerRow:
    row: LedgerRow = rows.ledger(key, entry, bound_nusd=nusd, charges=(TEAM,), **other)
    return row


async def test_a_reservation_that_does_not_fit_leaves_no_trace(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage)
    key, fence = claim.turn.key, claim.fence
    first = await storage.reserve(reserved(rows, key, 1, 60), fence=fence, caps=[CAP])
    assert (first.granted, first.uses) == (True, (BudgetUse(60, 0),))
    second = await storage.reserve(reserved(rows, key, 2, 41), fence=fence, caps=[CAP])
    assert (second.granted, second.uses) == (False, (BudgetUse(60, 0),))
    assert [row.entry for row in await storage.ledger(key)] == [1]
    third = await storage.reserve(reserved(rows, key, 2, 40), fence=fence, caps=[CAP])
    assert third.granted, "a limit may be used up exactly"


async def test_tokens_are_limited_like_money(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage)
    row = reserved(rows, claim.turn.key, 1, 0, bound_tokens=11)
    assert not (await storage.reserve(row, fence=claim.fence, caps=[BudgetCap(TEAM, None, 10)])).granted
    assert (await storage.reserve(row, fence=claim.fence, caps=[BudgetCap(TEAM, None, 11)])).granted


@pytest.mark.parametrize(
    ("end", "counts"),
    [
        ({"state": "settled", "cost_nusd": 5, "tokens": 7}, BudgetUse(5, 7)),
        ({"state": "failed"}, BudgetUse(0, 0)),
        ({"state": "unsettled"}, BudgetUse(60, 0)),
    ],
)
async def test_the_end_of_a_row_moves_its_budget(storage: SqliteStorage, begin: Any, rows: Any, end: Any, counts: BudgetUse) -> None:
    claim = await begin(storage)
    row = reserved(rows, claim.turn.key, 1, 60)
    await storage.reserve(row, fence=claim.fence, caps=[CAP])
    storage.put(replace(row, **end), fence=claim.fence)
    assert await storage.budget_use(TEAM) == counts
    await storage.release(claim.turn.key, fence=claim.fence)
    await storage.delete("default", "r")
    assert await storage.budget_use(TEAM) == counts, "the money of a deleted run is spent"


async def test_periods_and_namespaces_are_budgets_of_their_own(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage)
    await storage.reserve(reserved(rows, claim.turn.key, 1, 60), fence=claim.fence, caps=[CAP])
    for other in (replace(TEAM, period=""), replace(TEAM, namespace="n"), replace(TEAM, budget="team-b")):
        assert await storage.budget_use(other) == BudgetUse()


async def test_who_does_not_hold_the_lease_reserves_nothing(storage: SqliteStorage, begin: Any, rows: Any) -> None:
    claim = await begin(storage)
    with pytest.raises(LeaseLost):
        storage.reserve(reserved(rows, claim.turn.key, 1, 60), fence=claim.fence + 1, caps=[CAP])
    assert await storage.budget_use(TEAM) == BudgetUse()


async def test_a_zombie_reserves_nothing(make: Any, begin: Any, rows: Any, file: Path) -> None:
    storage = make()
    claim = await begin(storage)
    with sqlite3.connect(file) as connection:  # somebody took the run over
        connection.execute("UPDATE ag_leases SET fence = fence + 1")
    connection.close()
    with pytest.raises(LeaseLost):
        await storage.reserve(reserved(rows, claim.turn.key, 1, 60), fence=claim.fence, caps=[CAP])
    assert await storage.budget_use(TEAM) == BudgetUse()


async def test_of_many_at_once_as_many_are_granted_as_fit(make: Any, begin: Any, rows: Any) -> None:
    storages = [make(), make()]
    claims = [(storage := storages[n % 2], await begin(storage, run_id=f"r{n}")) for n in range(10)]
    asked = (s.reserve(reserved(rows, c.turn.key, 1, 30), fence=c.fence, caps=[CAP]) for s, c in claims)
    answers = await asyncio.gather(*asked)
    assert [answer.granted for answer in answers].count(True) == 3
    assert await storages[0].budget_use(TEAM) == BudgetUse(90, 0)


STATES = st.sampled_from(["reserved", "settled", "unsettled", "failed"])
WRITES = st.lists(st.tuples(st.integers(1, 3), STATES, st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=12)


@given(writes=WRITES)
def test_the_sum_is_always_that_of_the_rows(writes: Any, tmp_path_factory: Any) -> None:
    async def work() -> None:
        storage = SqliteStorage(":memory:")
        try:
            claim = await storage.claim(Rows.request(), asyncio.current_task())
            assert claim.turn is not None
            for entry, state, bound, cost, reserving in writes:
                row = reserved(Rows, claim.turn.key, entry, bound, state=state, cost_nusd=cost, tokens=cost)
                if reserving:
                    await storage.reserve(row, fence=claim.fence, caps=[CAP])
                else:
                    storage.put(row, fence=claim.fence)
            ledger = await storage.ledger(claim.turn.key)
            open_ = [row.bound_nusd for row in ledger if row.state in ("reserved", "unsettled")]
            assert (await storage.budget_use(TEAM)).nusd == sum(row.cost_nusd for row in ledger) + sum(open_)
        finally:
            await storage.close()

    asyncio.run(work())


async def test_a_file_of_the_first_version_is_read_and_takes_part(file: Path, make: Any) -> None:
    """Version 1 had no budgets: its rows come back without any."""
    connection = sqlite3.connect(file)
    for statement in schema._statements(schema._CHECKPOINT_TABLES + schema._MIGRATIONS[0]):
        connection.execute(statement)
    connection.execute("INSERT INTO ag_ledger VALUES ('default', 'r', 1, 1, 1, 'step', 1, 'm', 'settled', 7, 0, 5, 3, '{}', 1, 0.5)")
    connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    storage = make()
    [row] = await storage.ledger(TurnKey("default", "r", 1))
    assert (row.cost_nusd, row.charges) == (5, ())
    assert await storage.budget_use(TEAM) == BudgetUse()
