"""Shared budgets in SQLite: what StorageContract does not say of every storage."""

from __future__ import annotations

import asyncio
import sqlite3
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


async def test_a_zombie_reserves_nothing(make: Any, begin: Any, rows: Any, file: Path) -> None:
    storage = make()
    claim = await begin(storage)
    with sqlite3.connect(file) as connection:  # somebody took the run over
        connection.execute("UPDATE ag_leases SET fence = fence + 1")
    connection.close()
    with pytest.raises(LeaseLost):
        await storage.reserve(reserved(rows, claim.turn.key, 1, 60), fence=claim.fence, caps=[CAP])
    assert await storage.budget_use(TEAM) == BudgetUse()


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
