"""Budgets shared by name, under a parent and its sub-agent: what counts in which, once. Ground truth is the provider's own bill."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import AgentRun, Budget, ProductionAgent
from agent_graph.runtime.account import totals
from agent_graph.runtime.turn_account import _booked
from agent_graph.storage.port import BudgetAnswer, BudgetCap, LedgerRow, TurnKey
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import FakeClock
from tests.provider import FORTY_CENTS, Hangs, Provider, look, paid, paid_agent, tool_call, used_usd

DAY_S = 86_400


def total(name: str, usd: str) -> Budget:
    return Budget(name, max_cost_usd=Decimal(usd), per="total")


class Pair:
    """A lead that asks its clerk once, each over its own file; `says` is the clerk's model."""

    def __init__(
        self, provider: Provider, says: Any, *, tools: Any = (), lead: dict[str, Any], clerk: dict[str, Any], idempotent: bool = True
    ) -> None:
        self.told: list[AgentRun] = []
        options: dict[str, Any] = {"max_cost_usd": 5, "timeout_s": None, "max_output_tokens": 400}
        self.clerk = paid_agent(paid(provider, says, name="clerk"), tools, **{"name": "clerk", **options, **clerk})
        model = paid(provider, self._leads, name="lead", usd_per_token=Decimal("0.000001"))
        self.lead: ProductionAgent = paid_agent(model, [tool(extras={"idempotent": idempotent})(self.ask)], **{**options, **lead})

    async def ask(self) -> str:
        """Ask the clerk."""
        self.told.append(await self.clerk.run("q"))
        return self.told[-1].output or ""

    @staticmethod
    def _leads(messages: list[BaseMessage], number: int) -> Any:
        return (AIMessage("ok"), 10) if isinstance(messages[-1], ToolMessage) else (tool_call("ask", number), 10)

    async def aclose(self) -> None:
        await self.lead.aclose()
        await self.clerk.aclose()


def answers(messages: list[BaseMessage], number: int) -> Any:
    return AIMessage("done"), 100


@pytest.mark.parametrize(("limit", "way"), [("5", "runs.db"), ("3", "runs.db"), ("5", "link/runs.db")])
async def test_a_budget_that_both_name_counts_a_sub_agents_call_once(limit: str, way: str, tmp_path: Path) -> None:
    """With limits of their own, or the file reached by another path, each call of the sub-agent counted twice."""
    (tmp_path / "link").symlink_to(tmp_path)
    provider, file = Provider(), tmp_path / "runs.db"
    of_clerk = {"budget": total("team-a", limit), "storage": tmp_path / way}
    pair = Pair(provider, answers, lead={"budget": total("team-a", "5"), "storage": file}, clerk=of_clerk)
    run = await pair.lead.run("q", "p")
    assert used_usd(file, "team-a") == provider.bill_usd == Decimal(str(run.total_cost_usd)) > 0
    await pair.aclose()


async def test_the_tighter_of_two_limits_on_one_budget_holds(tmp_path: Path) -> None:
    provider, file = Provider(), tmp_path / "runs.db"
    of_clerk = {"budget": total("team-a", "5"), "storage": file}
    pair = Pair(provider, answers, lead={"budget": total("team-a", "0.05"), "storage": file}, clerk=of_clerk)
    await pair.lead.run("q", "p")
    assert pair.told[0].stop_reason == "budget"
    assert provider.bill_usd <= Decimal("0.05")
    await pair.aclose()


async def test_midnight_within_a_sub_agent_in_another_storage(tmp_path: Path) -> None:
    """All that it spent counted in the budget of the day it had begun on; once that was full, it was refused a hundred times."""
    provider, clock = Provider(), FakeClock(auto=True)
    clock.advance(DAY_S - clock.time() % DAY_S - 1)

    @tool(extras={"idempotent": True})
    async def wait(at: int) -> str:
        """Wait until tomorrow."""
        clock.advance(10 if at == 2 else 0)
        return "waited"

    def says(messages: list[BaseMessage], number: int) -> Any:
        return (tool_call("wait", number, at=number), 300) if number < 6 else (AIMessage("done"), 300)

    of_lead = {"budget": Budget("team-a", max_cost_usd=Decimal("0.6"), per="day"), "storage": tmp_path / "lead.db", "clock": clock}
    pair = Pair(provider, says, tools=[wait], lead=of_lead, clerk={"storage": tmp_path / "clerk.db", "clock": clock})
    run = await pair.lead.run("q", "p")
    assert (run.status, [told.status for told in pair.told]) == ("complete", ["complete"])
    today, yesterday = [Decimal(use.nusd) / 10**9 for _, use in await pair.lead.storage.budgets("default")]
    assert yesterday == 600 * FORTY_CENTS + Decimal("0.00001")
    assert today + yesterday == provider.bill_usd == Decimal(str(run.total_cost_usd)) > Decimal("0.6")
    await pair.aclose()


@pytest.mark.parametrize("before", [None, "team-a"])
async def test_after_a_crash_a_sub_agent_in_another_storage_counts_in_the_budget_that_its_parent_has_then(
    before: str | None, tmp_path: Path
) -> None:
    """It counted in the budget of its first life, or in none: past every limit of the new one."""
    provider, reached = Provider(), asyncio.Event()

    async def hangs() -> None:
        reached.set()
        await asyncio.Event().wait()

    def pair(life: int, says: Any, budget: Budget | None) -> Pair:
        files = [tmp_path / f"{name}-{life}.db" for name in ("lead", "clerk")]
        return Pair(provider, says, lead={"budget": budget, "storage": files[0]}, clerk={"storage": files[1]})

    first = pair(1, lambda messages, number: Hangs(hangs), None if before is None else total(before, "5"))
    work = asyncio.ensure_future(first.lead.run("q", "p"))
    await reached.wait()
    for name in ("lead", "clerk"):
        with closing(sqlite3.connect(tmp_path / f"{name}-1.db")) as here, closing(sqlite3.connect(tmp_path / f"{name}-2.db")) as there:
            here.backup(there)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await first.aclose()
    lost = provider.bill_usd

    second = pair(2, answers, total("team-b", "5"))
    run = await second.lead.resume("p")
    assert run.status == "complete"
    uses = {charge.budget: Decimal(use.nusd) / 10**9 for charge, use in await second.lead.storage.budgets("default")}
    assert uses["team-b"] == provider.bill_usd - lost
    assert uses.get("team-a") == (None if before is None else lost), "what is unknown stays where it was"
    assert Decimal(str(run.total_cost_usd)) + Decimal(str(run.cost_uncertain_usd)) == provider.bill_usd
    await second.aclose()


@pytest.mark.parametrize("then", ["not called again", "closed", "deleted"])
async def test_a_dead_sub_agent_holds_no_landing_when_its_parent_is_over(then: str, tmp_path: Path) -> None:
    """Its parent was told that the call was in doubt, or was closed, or deleted: nobody takes the sub-agent up, and it held for ever."""
    provider, reached, team = Provider(), asyncio.Event(), total("team-a", "5")

    async def hangs() -> None:
        reached.set()
        await asyncio.Event().wait()

    def says(messages: list[BaseMessage], number: int) -> Any:
        return Hangs(hangs) if isinstance(messages[-1], ToolMessage) else (tool_call("look", number, at=number), 100)

    def pair(file: Path, says: Any) -> Pair:
        return Pair(
            provider,
            says,
            tools=[look],
            lead={"budget": team, "storage": file, "on_unfinished": "close"},
            clerk={"budget": team, "storage": file},
            idempotent=False,
        )

    first = pair(tmp_path / "1.db", says)
    work = asyncio.ensure_future(first.lead.run("q", "p"))
    await reached.wait()
    with closing(sqlite3.connect(tmp_path / "1.db")) as here, closing(sqlite3.connect(tmp_path / "2.db")) as there:
        here.backup(there)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await first.aclose()

    second = pair(tmp_path / "2.db", answers)
    if then == "not called again":
        run = await second.lead.resume("p")
        assert "outcome of this call is unknown" in str(run.tool_calls[0].error)
    elif then == "deleted":
        await second.lead.delete("p")
    else:
        assert (await second.lead.run("other", "p")).turn == 2
    assert used_usd(tmp_path / "2.db", "team-a") == provider.bill_usd
    await second.aclose()


class Queue(SqliteStorage):
    """Notes the ledger rows in the order in which they are queued."""

    queued: list[tuple[str, str]]

    def put(self, row: Any, *, fence: int) -> None:
        if isinstance(row, LedgerRow):
            self.queued.append((row.key.run_id, row.kind))
        super().put(row, fence=fence)

    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        self.queued.append((row.key.run_id, row.kind))
        return super().reserve(row, fence=fence, caps=caps)


async def test_no_kill_leaves_a_sub_agent_that_its_parent_does_not_know(tmp_path: Path) -> None:
    """Its reservation came first: killed between the two rows, its parent knew nothing of it, and what it held was never given back."""
    storage, provider, team = Queue(tmp_path / "runs.db"), Provider(), total("team-a", "5")
    storage.queued = []
    options: dict[str, Any] = {"budget": team, "storage": storage}
    pair = Pair(provider, lambda *_: (AIMessage("done"), 100), tools=[look], lead=options, clerk=options)
    assert (await pair.lead.run("q", "p")).status == "complete"
    of_clerk = next(place for place, (run_id, _) in enumerate(storage.queued) if run_id.startswith("p/"))
    assert storage.queued[of_clerk - 1 : of_clerk + 1] == [("p", "subagent"), (storage.queued[of_clerk][0], "landing")]
    await pair.aclose()
    await storage.close()


def row(bound: int, cost: int) -> LedgerRow:
    return LedgerRow(
        key=TurnKey("default", "p", 1),
        entry=1,
        step=1,
        kind="subagent",
        attempt=1,
        model="clerk",
        state="reserved",
        bound_nusd=bound,
        bound_tokens=bound,
        cost_nusd=cost,
        tokens=cost,
    )


@pytest.mark.parametrize(
    ("place", "uncertain", "settled", "booked"),
    [
        pytest.param(2, 25, 7, [(10, 1), (5, 2), (10, 4)], id="the difference is where it was made"),
        pytest.param(0, 10, 9, [(5, 5), (5, 2), (0, 2)], id="an older one is settled where it was reserved"),
        pytest.param(2, 11, 9, [(10, 1), (1, 2), (0, 6)], id="what it cannot go below, the newest other one gives"),
        pytest.param(2, 3, 5, [(3, 1), (0, 2), (0, 2)], id="and then those before"),
        pytest.param(0, 0, 5, [(0, 1), (0, 2), (0, 2)], id="all of it"),
    ],
)
def test_the_rows_of_a_child_add_up_to_its_sums(place: int, uncertain: int, settled: int, booked: Any) -> None:
    rows = [row(10, 1), row(5, 2), row(0, 2)]
    sums = totals([row(uncertain, settled)])
    assert [(one.bound_nusd, one.cost_nusd) for one in _booked(rows, place, sums, over=False)] == booked
    assert [one.state for one in _booked(rows, place, sums, over=True)] == ["unsettled" if bound else "settled" for bound, _ in booked]
