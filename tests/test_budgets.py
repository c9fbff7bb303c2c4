"""Money that is shared by name, over runs and processes. Ground truth is the provider's own bill. Sub-agents: test_sub_agents.py."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agent_graph import (
    AgentRun,
    Ask,
    Budget,
    ConfigError,
    ProductionAgent,
    RunNotFound,
    create_production_agent,
    guardrail,
)
from agent_graph.storage.port import BudgetAnswer, BudgetCap, BudgetUse, LedgerRow
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import FakeClock, ListObservability
from tests.provider import FORTY_CENTS, InternalServerError, Provider, greedy, look, paid, paid_agent, tool_call, used_usd

# -- the scenario of the peers: a limit of $0.50, calls of $0.40 -----------------------------------------------------------------


async def test_forty_cent_calls_under_a_limit_of_fifty_never_cost_eighty() -> None:
    provider = Provider()
    run = await paid_agent(paid(provider, greedy), [look]).run("q")
    assert provider.bill_usd <= Decimal("0.50")
    assert (run.status, run.stop_reason) == ("failed", "max_cost_usd")
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd > 0


async def test_eight_concurrent_runs_on_one_budget_of_fifty_cents_never_cost_three_twenty(tmp_path: Path) -> None:
    provider = Provider()
    team = Budget("team-a", max_cost_usd=0.50, per="total")
    agents = [paid_agent(paid(provider, greedy), [look], budget=team, storage=tmp_path / "runs.db") for _ in range(2)]
    runs = await asyncio.gather(*(agents[n % 2].run("q", f"r{n}") for n in range(8)))
    assert Decimal(0) < provider.bill_usd <= Decimal("0.50")
    assert {run.status for run in runs} == {"failed"}
    assert {run.stop_reason for run in runs} <= {"budget", "max_cost_usd"}
    assert sum(Decimal(str(run.total_cost_usd)) for run in runs) == provider.bill_usd
    assert used_usd(tmp_path / "runs.db", "team-a") == provider.bill_usd
    for agent in agents:
        await agent.aclose()


class Stingy(SqliteStorage):
    """Has nothing left whenever somebody reserves, and everything whenever somebody looks."""

    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        async def no() -> BudgetAnswer:
            return BudgetAnswer(False, tuple(BudgetUse() for _ in caps))

        return no()


async def test_whoever_is_refused_again_and_again_does_not_try_for_ever(tmp_path: Path) -> None:
    provider, storage = Provider(), Stingy(tmp_path / "runs.db")
    team = Budget("team-a", max_cost_usd=5, per="total")
    run = await paid_agent(paid(provider, greedy), [look], budget=team, storage=storage).run("q")
    assert (run.status, run.stop_reason, provider.calls) == ("failed", "budget", [])
    assert run.error == "budget: others took what was left, 100 times in a row"
    await storage.close()


@pytest.mark.parametrize("picodollars", range(309_081, 309_281, 20))
async def test_prices_and_limits_below_a_nano_dollar_refuse_nobody_for_ever(picodollars: int) -> None:
    """Call and landing fit together, and not once each was rounded up to whole nano-dollars: refused a hundred times in a row."""
    provider, team = Provider(), Budget("team-a", max_cost_usd=Decimal(picodollars) / 10**12, per="total")
    model = paid(provider, looks_once, usd_per_token=Decimal("1e-10"))
    prices = {"paid": {"input": Decimal("1e-4"), "output": Decimal("1e-4")}}
    agent = create_production_agent(model, [look], prices=prices, budget=team, storage=":memory:", max_output_tokens=700, max_cost_usd=None)
    run = await agent.run("q")
    assert (run.status, run.error) == ("complete", None)
    await agent.aclose()


# -- a shared limit that has been raised -----------------------------------------------------------------------------------------


def looks_once(messages: list[BaseMessage], number: int) -> Any:
    """Looks, then answers."""
    return (AIMessage("done"), 500) if isinstance(messages[-1], ToolMessage) else (tool_call("look", number, at=number), 500)


async def test_a_turn_that_ended_at_a_shared_limit_goes_on_once_the_limit_holds(tmp_path: Path) -> None:
    """There was no way on but `add_budget` of nothing."""
    provider, seen, file = Provider(), ListObservability(), tmp_path / "runs.db"

    def rambles(messages: list[BaseMessage], number: int) -> Any:
        """Says more than was held for the landing, and calls a tool."""
        reply, tokens = looks_once(messages, number)
        return (reply.model_copy(update={"content": "Let me see. " * 10_000}) if reply.tool_calls else reply), tokens

    def limited(tokens: int) -> ProductionAgent:
        team = Budget("team-a", max_tokens=tokens, per="total")
        return paid_agent(paid(provider, rambles), [look], budget=team, storage=file, observability=seen, max_cost_usd=5)

    async with limited(4_000) as agent:
        first = await agent.run("q", "r")
        assert (first.status, first.stop_reason, first.steps, first.landed) == ("failed", "budget", 1, None)
        assert await agent.unfinished() == [], "it has ended: nobody has to go on with it"
        again = await agent.resume("r")
        assert (again.status, again.stop_reason, again.turn) == ("failed", "budget", 1)
        assert (again.error or "").startswith("budget: team-a (in all): max_tokens 510 + ")
        assert len(provider.calls) == 1, "as long as the limit stands, nobody is asked"
    async with limited(400_000) as agent:
        run = await agent.resume("r")
        assert (run.status, run.output, run.turn, run.steps) == ("complete", "done", 1, 2)
        assert Decimal(str(run.total_cost_usd)) == provider.bill_usd == used_usd(file, "team-a")
        with pytest.raises(RunNotFound):
            await agent.resume("r")
    assert [(told.turn, told.status) for told in seen.runs] == [(1, "failed"), (1, "failed"), (1, "complete")]


async def test_a_turn_that_ended_at_another_limit_is_no_matter_of_a_shared_one(tmp_path: Path) -> None:
    agent = paid_agent(paid(Provider(), greedy), [look], max_steps=1, budget=Budget("team-a", max_cost_usd=5, per="total"))
    assert (await agent.run("q", "r")).stop_reason == "max_steps"
    with pytest.raises(RunNotFound):
        await agent.resume("r")


# -- a landing that is held ---------------------------------------------------------------------------------------------------


class Meanwhile(FakeClock):
    """A clock under which something else happens whenever somebody waits."""

    def __init__(self, happens: Any) -> None:
        super().__init__(auto=True)
        self._happens = happens

    async def sleep(self, seconds: float) -> None:
        await asyncio.get_running_loop().create_task(self._happens(), context=contextvars.Context())  # no child of the turn that waits


async def test_a_landing_that_was_refused_is_held_for_its_next_attempt(tmp_path: Path) -> None:
    provider, team, others = Provider(), Budget("team-a", max_cost_usd=0.25, per="total"), list[AgentRun]()
    storage = SqliteStorage(tmp_path / "runs.db")  # one for both: each sees at once what the other has given back
    said = iter([(tool_call("look", 1, at=1), 360), InternalServerError("busy"), (AIMessage("done"), 100)])

    async def another() -> None:
        others.append(await quick.run("q"))

    quick = paid_agent(paid(provider, lambda messages, number: (AIMessage("mine"), 250), name="quick"), budget=team, storage=storage)
    model = paid(provider, lambda messages, number: next(said))
    agent = paid_agent(model, [look], budget=team, storage=storage, max_cost_usd=5, clock=Meanwhile(another))
    run = await agent.run("q", "r")
    assert [(other.status, other.stop_reason) for other in others] == [("failed", "budget")]
    assert (run.status, run.output, run.landed) == ("complete", "done", "budget")
    assert provider.calls == ["paid", "paid"], "a refused attempt is not billed"
    assert (await quick.run("q")).status == "failed", "what is left is too little for anything"
    await storage.close()
    assert used_usd(tmp_path / "runs.db", "team-a") == provider.bill_usd == Decimal(460) * FORTY_CENTS


async def test_a_turn_that_waits_for_a_person_holds_nothing(tmp_path: Path) -> None:
    @guardrail(stages=["tool_args"], name="boss")
    async def boss(stage: Any, payload: Any, run: Any) -> Ask:
        return Ask("may it?")

    provider, team = Provider(), Budget("team-a", max_cost_usd=5, per="total")
    agent = paid_agent(paid(provider, looks_once), [look], budget=team, storage=tmp_path / "runs.db", guardrails=[boss])
    run = await agent.run("q", "r")
    assert (run.status, len(run.pending)) == ("running", 1)
    assert used_usd(tmp_path / "runs.db", "team-a") == provider.bill_usd
    run = await agent.resolve("r", run.pending[0]["call_id"], {"type": "approve"})
    assert (run.status, run.output) == ("complete", "done")
    assert used_usd(tmp_path / "runs.db", "team-a") == provider.bill_usd
    await agent.aclose()


# -- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget("team-a", per="day"), "budget: 'team-a' has no limit"),
        (lambda: Budget("", max_cost_usd=1, per="day"), "budget: name: 1 to 255 characters"),
        (lambda: Budget("a\n", max_cost_usd=1, per="day"), "control character"),
        (lambda: Budget("a", max_cost_usd=-1, per="day"), "budget: max_cost_usd: -1 is negative"),
        (lambda: Budget("a", max_cost_usd=float("nan"), per="day"), "NaN"),
        (lambda: Budget("a", max_cost_usd=Decimal("sNaN"), per="day"), "budget: max_cost_usd: NaN"),
        (lambda: create_production_agent("offline", timeout_s=10**400), "timeout_s: infinity is written None"),
        (lambda: Budget("a", max_tokens=1.5, per="day"), "budget: max_tokens: a whole number"),  # type: ignore[arg-type]  # on purpose
        (lambda: Budget("a", max_cost_usd=1, per="week"), "budget: per: 'week' is not one of"),  # type: ignore[arg-type]  # on purpose
        (lambda: create_production_agent("offline", budget="team-a"), "budget=Budget('team-a', max_cost_usd=..., per=\"day\")"),  # type: ignore[arg-type]  # on purpose
        (lambda: create_production_agent("offline", budget=5), "budget: 5 is no Budget"),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make()
    assert words in str(raised.value)
