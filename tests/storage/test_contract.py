"""SqliteStorage keeps the storage's contract, in a file and in memory; and each rule fails for a storage that breaks it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_graph.errors import RunInProgress
from agent_graph.storage.opening import open_storage as opened
from agent_graph.storage.port import BudgetAnswer, BudgetCap, Claim, LedgerRow, Row, Storage, TurnKey, TurnRequest, TurnRow
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import StorageContract
from agent_graph.types import Message


class TestSqliteStorageInAFile(StorageContract):
    @pytest.fixture
    def open_storage(self, file: Path) -> Callable[[], Storage]:
        return lambda: opened(file)


class TestSqliteStorageThatSurvivesAKilledProcessOnly(StorageContract):
    @pytest.fixture
    def open_storage(self, file: Path) -> Callable[[], Storage]:
        return lambda: opened(str(file), durability="process")


class TestSqliteStorageInMemory(StorageContract):
    shared = False

    @pytest.fixture
    def open_storage(self) -> Callable[[], Storage]:
        return lambda: opened(":memory:")


# -- storages that break one rule each -------------------------------------------------------------------------------


class Generous(SqliteStorage):
    """Lets everybody run."""

    async def claim(self, request: TurnRequest, owner: object) -> Claim:
        claim = await super().claim(request, owner)
        return replace(claim, outcome="new", fence=claim.fence or 1) if claim.outcome == "busy" else claim


class Possessive(SqliteStorage):
    """Keeps a lease until it has run out, whatever became of the attempt."""

    kept: list[object]

    async def claim(self, request: TurnRequest, owner: object) -> Claim:
        self.kept = [*getattr(self, "kept", []), Immortal()]
        return await super().claim(request, self.kept[-1])


class Immortal:
    pass


class Fenceless(SqliteStorage):
    """Writes whatever it is given, and says that it is on disk."""

    def put(self, row: Row, *, fence: int) -> None:
        self.writer.queue(lambda connection: connection.execute("UPDATE ag_leases SET token = NULL"))
        super().put(row, fence=0)

    async def durable(self, key: TurnKey, *, fence: int | None = None) -> None:
        await self.writer.durable()


class Lagging(SqliteStorage):
    """Reads what was there a moment ago."""

    async def journal(self, key: TurnKey) -> Sequence[Any]:
        return (await super().journal(key))[:-1]


class Reversed(SqliteStorage):
    async def runs(self, namespace: str | None = None, *, limit: int = 50) -> Sequence[TurnRow]:
        return list(reversed(await super().runs(namespace, limit=limit)))

    async def unfinished(self, namespace: str, agent: str) -> Sequence[TurnRow]:
        return list(reversed(await super().unfinished(namespace, agent)))


class Hoarding(SqliteStorage):
    """Deletes less than everything, and prunes nothing."""

    async def delete(self, namespace: str, run_id: str) -> None:
        saved = await self.load_memory(namespace, run_id)
        await super().delete(namespace, run_id)
        await self.save_memory(namespace, run_id, saved)

    async def prune(self, *, before: float, namespace: str | None = None) -> Sequence[tuple[str, str]]:
        return []


class Eager(SqliteStorage):
    """Prunes what is not over."""

    async def prune(self, *, before: float, namespace: str | None = None) -> Sequence[tuple[str, str]]:
        names = [(row.key.namespace, row.key.run_id) for row in await self.runs(namespace) if row.updated_at < before]
        for name in names:
            await self.delete(*name)
        return names


class Forgetful(SqliteStorage):
    async def load_memory(self, namespace: str, run_id: str) -> list[Message]:
        return (await super().load_memory(namespace, run_id))[:1]


class Careless(SqliteStorage):
    """Tells nobody that a write failed."""

    async def durable(self, key: TurnKey, *, fence: int | None = None) -> None:
        await self.writer.ready()


class Dropping(SqliteStorage):
    """Does not write what is queued when it is closed, and can be used afterwards."""

    async def close(self) -> None:
        pass


class Spendthrift(SqliteStorage):
    """Grants every reservation."""

    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        return super().reserve(row, fence=fence, caps=[replace(cap, max_nusd=None, max_tokens=None) for cap in caps])


class Unmoved(SqliteStorage):
    """Lets what becomes of a row leave its budget as it is, and every row be anybody's."""

    def put(self, row: Row, *, fence: int) -> None:
        super().put(replace(row, charges=()) if isinstance(row, LedgerRow) else row, fence=fence)

    async def unfinished(self, namespace: str, agent: str) -> Sequence[TurnRow]:
        return [row for row in await self.runs(namespace) if row.status == "stopped"]


BROKEN: list[tuple[str, type[SqliteStorage]]] = [
    ("a_run_goes_through_its_life", Generous),
    ("of_many_contenders_one_runs", Generous),
    ("a_lease_ends_with_its_attempt", Possessive),
    ("a_lease_ends_with_its_event_loop", Possessive),
    ("whoever_was_taken_over_writes_nothing_any_more", Fenceless),
    ("a_fence_that_was_not_handed_out_is_refused", Fenceless),
    ("without_a_lease_one_may_write_only_while_nobody_holds_one", Fenceless),
    ("rows_come_back_as_they_were_put_the_last_of_each_key", Lagging),
    ("a_read_sees_what_was_queued_a_moment_ago", Lagging),
    ("it_is_used_from_several_threads_and_loops_at_once", Lagging),
    ("runs_are_listed_newest_first_with_their_newest_turn", Reversed),
    ("unfinished_are_this_agents_dead_turns_oldest_first", Reversed),
    ("delete_removes_everything_of_a_run_and_nothing_else", Hoarding),
    ("prune_deletes_what_is_over_and_old", Hoarding),
    ("prune_deletes_what_is_over_and_old", Eager),
    ("the_memory_is_the_list_that_was_saved_last", Forgetful),
    ("a_write_that_failed_is_told_for_ever_and_to_its_own_turn_alone", Careless),
    ("close_writes_what_is_queued_frees_what_is_held_and_is_final", Dropping),
    ("a_reservation_that_does_not_fit_leaves_no_trace", Spendthrift),
    ("each_budget_of_a_reservation_has_to_hold_it", Spendthrift),
    ("of_a_row_that_is_there_the_difference_has_to_fit", Spendthrift),
    ("of_many_at_once_as_many_are_granted_as_fit", Spendthrift),
    ("the_end_of_a_row_moves_its_budget_and_a_deleted_run_does_not", Unmoved),
    ("a_turn_begun_inside_another_is_told_apart", Unmoved),
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_storage_that_breaks_a_rule_fails_its_test(rule: str, broken: type[SqliteStorage], file: Path) -> None:
    made: list[SqliteStorage] = []

    def one() -> Storage:
        made.append(broken(file))
        return made[-1]

    test = getattr(StorageContract(), f"test_{rule}")
    given = {"storage": one, "opened": lambda: one, "again": lambda: 1}
    try:
        with pytest.raises((AssertionError, RunInProgress, pytest.fail.Exception)):
            test(**{name: given[name]() for name in inspect.signature(test).parameters})
    finally:
        for storage in made:
            asyncio.run(SqliteStorage.close(storage))
