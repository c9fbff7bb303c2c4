"""Money that is shared: by a turn and its sub-agents, by name over runs and processes. Ground truth is the provider's own bill."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import (
    AgentRun,
    Ask,
    Budget,
    ConfigError,
    ProductionAgent,
    RunInProgress,
    RunNotFound,
    create_production_agent,
    guardrail,
)
from agent_graph.runtime.turn import current_turn
from agent_graph.storage.port import BudgetAnswer, BudgetCap, BudgetUse, LedgerRow
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import FakeClock, ListObservability, ScriptedChatModel
from tests.provider import InternalServerError, PaidModel, Provider, tool_call

FORTY_CENTS = Decimal("0.40") / 1_000
"""USD a token: a reply of 1,000 tokens costs $0.40."""


def paid(provider: Provider, says: Any, *, name: str = "paid", usd_per_token: Decimal = FORTY_CENTS) -> PaidModel:
    return PaidModel(model_name=name, provider=provider, usd_per_token=usd_per_token, says=says)


def agent_of(model: PaidModel, tools: Any = (), *, fallbacks: Any = (), **options: Any) -> ProductionAgent:
    prices = {key: value for each in (model, *fallbacks) for key, value in each.prices.items()}
    defaults = {"max_output_tokens": 1_000, "max_cost_usd": 0.50, "max_tokens": None}
    return create_production_agent(model, tools, prices=prices, fallbacks=fallbacks, **{**defaults, **options})


def greedy(messages: list[BaseMessage], number: int) -> Any:
    """Calls a tool for ever, with all the output it may put out."""
    return tool_call("look", number, at=number), 1_000


def look(at: int) -> str:
    """Look."""
    return "nothing"


# -- the scenario of the peers: a limit of $0.50, calls of $0.40 -----------------------------------------------------------------


async def test_forty_cent_calls_under_a_limit_of_fifty_never_cost_eighty() -> None:
    provider = Provider()
    run = await agent_of(paid(provider, greedy), [look]).run("q")
    assert provider.bill_usd <= Decimal("0.50")
    assert (run.status, run.stop_reason) == ("failed", "max_cost_usd")
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd > 0


async def test_eight_concurrent_runs_on_one_budget_of_fifty_cents_never_cost_three_twenty(tmp_path: Path) -> None:
    provider = Provider()
    team = Budget("team-a", max_cost_usd=0.50, per="total")
    agents = [agent_of(paid(provider, greedy), [look], budget=team, storage=tmp_path / "runs.db") for _ in range(2)]
    runs = await asyncio.gather(*(agents[n % 2].run("q", f"r{n}") for n in range(8)))
    assert Decimal(0) < provider.bill_usd <= Decimal("0.50")
    assert {run.status for run in runs} == {"failed"}
    assert {run.stop_reason for run in runs} <= {"budget", "max_cost_usd"}
    assert sum(Decimal(str(run.total_cost_usd)) for run in runs) == provider.bill_usd
    assert _used(tmp_path / "runs.db", "team-a") == provider.bill_usd
    for agent in agents:
        await agent.aclose()


def _used(file: Path, name: str) -> Decimal:
    connection = sqlite3.connect(file)
    try:
        (nusd,) = connection.execute("SELECT SUM(nusd) FROM ag_budgets WHERE budget = ?", (name,)).fetchone()
        return Decimal(nusd) / 10**9
    finally:
        connection.close()


class Stingy(SqliteStorage):
    """Has nothing left whenever somebody reserves, and everything whenever somebody looks."""

    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        async def no() -> BudgetAnswer:
            return BudgetAnswer(False, tuple(BudgetUse() for _ in caps))

        return no()


async def test_whoever_is_refused_again_and_again_does_not_try_for_ever(tmp_path: Path) -> None:
    provider, storage = Provider(), Stingy(tmp_path / "runs.db")
    team = Budget("team-a", max_cost_usd=5, per="total")
    run = await agent_of(paid(provider, greedy), [look], budget=team, storage=storage).run("q")
    assert (run.status, run.stop_reason, provider.calls) == ("failed", "budget", [])
    assert run.error == "budget: others took what was left, 100 times in a row"
    await storage.close()


# -- a shared limit that has been raised -----------------------------------------------------------------------------------------


def looks_once(messages: list[BaseMessage], number: int) -> Any:
    """Looks, then answers."""
    return (AIMessage("done"), 500) if isinstance(messages[-1], ToolMessage) else (tool_call("look", number, at=number), 500)


async def test_a_turn_that_ended_at_a_shared_limit_goes_on_once_the_limit_holds(tmp_path: Path) -> None:
    """There was no way on but `add_budget` of nothing."""
    provider, seen, file = Provider(), ListObservability(), tmp_path / "runs.db"

    def look(at: int) -> str:
        """Look, and find more than was held for the landing."""
        return "nothing, " * 10_000

    def limited(tokens: int) -> ProductionAgent:
        team = Budget("team-a", max_tokens=tokens, per="total")
        return agent_of(paid(provider, looks_once), [look], budget=team, storage=file, observability=seen, max_cost_usd=5)

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
        assert Decimal(str(run.total_cost_usd)) == provider.bill_usd == _used(file, "team-a")
        with pytest.raises(RunNotFound):
            await agent.resume("r")
    assert [(told.turn, told.status) for told in seen.runs] == [(1, "failed"), (1, "failed"), (1, "complete")]


async def test_a_turn_that_ended_at_another_limit_is_no_matter_of_a_shared_one(tmp_path: Path) -> None:
    agent = agent_of(paid(Provider(), greedy), [look], max_steps=1, budget=Budget("team-a", max_cost_usd=5, per="total"))
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

    quick = agent_of(paid(provider, lambda messages, number: (AIMessage("mine"), 250), name="quick"), budget=team, storage=storage)
    model = paid(provider, lambda messages, number: next(said))
    agent = agent_of(model, [look], budget=team, storage=storage, max_cost_usd=5, clock=Meanwhile(another))
    run = await agent.run("q", "r")
    assert [(other.status, other.stop_reason) for other in others] == [("failed", "budget")]
    assert (run.status, run.output, run.landed) == ("complete", "done", "budget")
    assert provider.calls == ["paid", "paid"], "a refused attempt is not billed"
    assert (await quick.run("q")).status == "failed", "what is left is too little for anything"
    await storage.close()
    assert _used(tmp_path / "runs.db", "team-a") == provider.bill_usd == Decimal(460) * FORTY_CENTS


async def test_a_turn_that_waits_for_a_person_holds_nothing(tmp_path: Path) -> None:
    @guardrail(stages=["tool_args"], name="boss")
    async def boss(stage: Any, payload: Any, run: Any) -> Ask:
        return Ask("may it?")

    provider, team = Provider(), Budget("team-a", max_cost_usd=5, per="total")
    agent = agent_of(paid(provider, looks_once), [look], budget=team, storage=tmp_path / "runs.db", guardrails=[boss])
    run = await agent.run("q", "r")
    assert (run.status, len(run.pending)) == ("running", 1)
    assert _used(tmp_path / "runs.db", "team-a") == provider.bill_usd
    run = await agent.resolve("r", run.pending[0]["call_id"], {"type": "approve"})
    assert (run.status, run.output) == ("complete", "done")
    assert _used(tmp_path / "runs.db", "team-a") == provider.bill_usd
    await agent.aclose()


# -- sub-agents ---------------------------------------------------------------------------------------------------------------


class Family:
    """A parent whose reply calls `ask` n times at once, and a child that answers at a price."""

    def __init__(self, children: int, *, child_tokens: int = 1_000, child_usd: float = 5.0, parent_usd: float = 0.50) -> None:
        self.provider = Provider()
        self.runs: list[AgentRun] = []
        self._number = children
        self.child = agent_of(
            paid(self.provider, lambda messages, number: (AIMessage("done"), child_tokens), name="child"),
            name="child",
            max_cost_usd=child_usd,
        )
        self.parent = agent_of(
            paid(self.provider, self._lead, name="lead", usd_per_token=Decimal("0.000001")), [self.ask], max_cost_usd=parent_usd
        )

    def _lead(self, messages: list[BaseMessage], number: int) -> Any:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("all asked"), 10
        calls = [{"name": "ask", "args": {"what": str(n)}, "id": f"c{n}"} for n in range(self._number)]
        return AIMessage("", tool_calls=calls), 10

    async def ask(self, what: str) -> str:
        """Ask the child."""
        run = await self.child.run(what)
        self.runs.append(run)
        return run.output or str(run.error)


async def test_a_childs_bill_is_its_parents() -> None:
    family = Family(1)
    run = await family.parent.run("q", "p")
    [child] = family.runs
    assert child.status == run.status == "complete"
    assert child.total_cost_usd == pytest.approx(0.4)
    assert Decimal(str(run.total_cost_usd)) == family.provider.bill_usd
    assert (run.steps, child.steps) == (2, 1)
    assert run.cost_uncertain_usd == 0
    rows = await family.parent.storage.ledger((await family.parent.storage.turns("default", "p"))[0].key)
    assert [(row.kind, row.state) for row in rows] == [("step", "settled"), ("subagent", "settled"), ("step", "settled")]
    assert child.run_id.startswith("p/")


async def test_eight_parallel_children_never_pass_their_parents_limit() -> None:
    family = Family(8)
    run = await family.parent.run("q", "p")
    assert Decimal("0.4") <= family.provider.bill_usd <= Decimal("0.50")
    assert Decimal(str(run.total_cost_usd)) == family.provider.bill_usd
    assert run.status == "complete", "what the parent keeps for its own landing is out of its children's reach"
    refused = [child for child in family.runs if child.status == "failed"]
    assert refused
    assert all(child.stop_reason == "max_cost_usd" and "which began this one" in str(child.error) for child in refused)


async def test_a_child_is_held_to_its_own_limit_too() -> None:
    family = Family(1, child_usd=0.2, parent_usd=5)
    await family.parent.run("q", "p")
    assert family.provider.bill_usd < Decimal("0.21")


async def test_grandchildren_count_in_every_turn_above() -> None:
    provider = Provider()
    leaf = agent_of(paid(provider, lambda messages, number: (AIMessage("leaf"), 100), name="leaf"), name="leaf")

    async def ask_leaf() -> str:
        """Ask the leaf."""
        return (await leaf.run("q")).output or ""

    def asks(tool: str) -> Any:
        def says(messages: list[BaseMessage], number: int) -> Any:
            return (AIMessage("ok"), 1) if isinstance(messages[-1], ToolMessage) else (tool_call(tool, 1), 1)

        return says

    middle = agent_of(paid(provider, asks("ask_leaf"), name="middle"), [ask_leaf], name="middle")

    async def ask_middle() -> str:
        """Ask the middle."""
        return (await middle.run("q")).output or ""

    top = agent_of(paid(provider, asks("ask_middle"), name="top"), [ask_middle], name="top")
    run = await top.run("q", "top")
    assert run.status == "complete"
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd == 104 * FORTY_CENTS


async def test_a_budget_shared_by_parent_and_child_counts_each_call_once(tmp_path: Path) -> None:
    provider, file = Provider(), tmp_path / "runs.db"
    team = Budget("team-a", max_cost_usd=5, per="day")
    child = agent_of(
        paid(provider, lambda messages, number: (AIMessage("done"), 100), name="child"), name="child", budget=team, storage=file
    )

    async def ask() -> str:
        """Ask."""
        return (await child.run("q")).output or ""

    def lead(messages: list[BaseMessage], number: int) -> Any:
        return (AIMessage("ok"), 10) if isinstance(messages[-1], ToolMessage) else (tool_call("ask", 1), 10)

    for name, budget in (("both", team), ("child alone", None)):
        before = _used(file, "team-a") if file.exists() else Decimal(0)
        parent = agent_of(paid(provider, lead, name="lead"), [ask], budget=budget, storage=file)
        run = await parent.run("q", name)
        assert run.status == "complete"
        expected = Decimal(str(run.total_cost_usd)) if budget else 100 * FORTY_CENTS
        assert _used(file, "team-a") - before == expected
        await parent.aclose()
    await child.aclose()


async def test_a_child_in_another_storage_counts_in_its_parents_budget(tmp_path: Path) -> None:
    provider = Provider()
    team = Budget("team-a", max_cost_usd=0.5, per="total")
    child = agent_of(paid(provider, greedy, name="child"), [look], name="child", max_cost_usd=5, storage=tmp_path / "child.db")

    async def ask() -> str:
        """Ask."""
        return str((await child.run("q")).error)

    def lead(messages: list[BaseMessage], number: int) -> Any:
        return (AIMessage("ok"), 1) if isinstance(messages[-1], ToolMessage) else (tool_call("ask", 1), 1)

    model = paid(provider, lead, name="lead", usd_per_token=Decimal("0.000001"))
    parent = agent_of(model, [ask], budget=team, max_cost_usd=5, storage=tmp_path / "parent.db")
    run = await parent.run("q", "p")
    assert Decimal("0.3") < provider.bill_usd <= Decimal("0.5")
    assert "budget: team-a (in all)" in str(run.tool_calls[0].result)
    assert _used(tmp_path / "parent.db", "team-a") == provider.bill_usd == Decimal(str(run.total_cost_usd))
    await parent.aclose()
    await child.aclose()


async def test_a_child_has_no_more_time_than_its_parent() -> None:
    seen: list[tuple[float | None, float | None]] = []

    def child_says(messages: list[BaseMessage], number: int) -> Any:
        turn = current_turn.get()
        assert turn is not None
        assert turn.parent is not None
        seen.append((turn.time_left_s, turn.parent.work_time_s))
        return AIMessage("done"), 1

    family = Family(1)
    family.child = agent_of(paid(family.provider, child_says, name="child"), name="child", timeout_s=1_000)
    await family.parent.run("q", "p")
    [(left, above)] = seen
    assert left is not None
    assert above is not None
    assert left <= above + 1 < 120


async def test_waiting_for_an_ancestor_is_refused_over_two_generations() -> None:
    caught: list[str] = []

    async def ask_top() -> str:
        """Ask the top."""
        try:
            await top.run("q", "top")
        except RunInProgress as error:
            caught.append(str(error))
        return "refused"

    def asks(tool: str) -> Any:
        return ScriptedChatModel([tool_call(tool, 1), "ok"])

    middle = create_production_agent(asks("ask_top"), [ask_top], name="middle")

    async def ask_middle() -> str:
        """Ask the middle."""
        return (await middle.run("q")).output or ""

    top = create_production_agent(asks("ask_middle"), [ask_middle], name="top", storage=":memory:")
    run = await asyncio.wait_for(top.run("q", "top"), 30)
    assert run.status == "complete"
    assert caught == ["run 'top' is the very run that this call is made from."]
    await top.aclose()


async def test_a_task_left_behind_by_a_tool_spends_nothing_when_its_parent_has_ended() -> None:
    provider, tasks = Provider(), list[asyncio.Task[AgentRun]]()
    waits, go = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        """Wait."""
        waits.set()
        await go.wait()
        return "ok"

    child = agent_of(paid(provider, lambda messages, number: (tool_call("wait", 1), 1), name="child"), [wait], name="child")

    async def start() -> str:
        """Start."""
        tasks.append(asyncio.create_task(child.run("q")))
        await waits.wait()
        return "started"

    parent = create_production_agent(ScriptedChatModel([tool_call("start", 1), "ok"]), [start])
    assert (await parent.run("q", "p")).status == "complete"
    go.set()
    left = await tasks[0]
    assert left.status == "failed"
    assert "has ended" in str(left.error)
    assert len(provider.calls) == 1


# -- crashes ------------------------------------------------------------------------------------------------------------------


class Life:
    """A parent and its child over a file. `dies_at` says at which moment everything hangs: its file is then copied, and lives on."""

    def __init__(self, provider: Provider, file: Path, dies_at: str, *, idempotent: bool = True) -> None:
        self.file, self._dies_at = file, dies_at
        self.reached = asyncio.Event()
        self.child = agent_of(paid(provider, self._child, name="child"), [look], name="child", storage=file)
        model = paid(provider, self._lead, name="lead", usd_per_token=Decimal("0.000001"))
        ask = tool(extras={"idempotent": idempotent})(self.ask)
        self.parent = agent_of(model, [ask], max_cost_usd=1, storage=file)

    async def _moment(self, name: str) -> None:
        if name == self._dies_at:
            self.reached.set()
            await asyncio.Event().wait()

    async def ask(self) -> str:
        """Ask the child."""
        run = await self.child.run("look")
        await self._moment("after the child")
        return run.output or str(run.error)

    async def _answer(self, messages: list[BaseMessage]) -> Any:
        looked = isinstance(messages[-1], ToolMessage)
        if looked:
            await self._moment("at the child's second call")
        return (AIMessage("seen"), 100) if looked else (tool_call("look", 1, at=1), 200)

    def _child(self, messages: list[BaseMessage], number: int) -> Any:
        return self._answer(messages)

    def _lead(self, messages: list[BaseMessage], number: int) -> Any:
        last = messages[-1]
        return (AIMessage(f"told: {last.content}"), 10) if isinstance(last, ToolMessage) else (tool_call("ask", 1), 10)

    async def dies(self, copy: Path) -> None:
        work = asyncio.ensure_future(self.parent.run("q", "p"))
        await self.reached.wait()
        with closing(sqlite3.connect(self.file)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await self.ends()

    async def ends(self) -> None:
        await self.parent.aclose()
        await self.child.aclose()


async def test_a_resumed_parent_resumes_its_child(tmp_path: Path) -> None:
    provider = Provider()
    await Life(provider, tmp_path / "1.db", "at the child's second call").dies(tmp_path / "2.db")
    assert provider.calls == ["lead", "child"]
    life = Life(provider, tmp_path / "2.db", "never")
    assert (await life.parent.unfinished(), await life.child.unfinished()) == (["p"], [])
    run = await life.parent.resume("p")
    assert (run.status, run.output) == ("complete", "told: seen")
    assert provider.calls == ["lead", "child", "child", "lead"], "the child's first step was not repeated"
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd
    assert run.cost_uncertain_usd == 0.3176, "the call that hung: 794 tokens, which left the child its landing"
    assert len(await life.parent.runs()) == 2
    await life.ends()


async def test_a_child_that_had_ended_is_not_asked_again(tmp_path: Path) -> None:
    provider = Provider()
    await Life(provider, tmp_path / "1.db", "after the child").dies(tmp_path / "2.db")
    life = Life(provider, tmp_path / "2.db", "never")
    run = await life.parent.resume("p")
    assert (run.status, run.output) == ("complete", "told: seen")
    assert provider.calls == ["lead", "child", "child", "lead"]
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd
    assert run.cost_uncertain_usd == 0
    await life.ends()


async def test_a_child_that_is_not_taken_up_again_stays_in_its_parents_account(tmp_path: Path) -> None:
    """The tool may not be repeated: the model is told that its outcome is unknown, and what it had spent stays counted."""
    provider = Provider()
    await Life(provider, tmp_path / "1.db", "at the child's second call", idempotent=False).dies(tmp_path / "2.db")
    life = Life(provider, tmp_path / "2.db", "never", idempotent=False)
    run = await life.parent.resume("p")
    assert run.status == "complete"
    assert "outcome of this call is unknown" in str(run.output)
    assert provider.calls == ["lead", "child", "lead"]
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd
    assert run.cost_uncertain_usd > 0
    await life.ends()


async def test_a_cancelled_parent_goes_on_with_its_child(tmp_path: Path) -> None:
    provider = Provider()
    life = Life(provider, tmp_path / "1.db", "at the child's second call")
    work = asyncio.ensure_future(life.parent.run("q", "p"))
    await life.reached.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    life._dies_at = "never"
    run = await life.parent.run("q", "p")
    assert (run.status, run.output, run.turn) == ("complete", "told: seen", 1)
    assert provider.calls == ["lead", "child", "child", "lead"]
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd
    await life.ends()


# -- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget("team-a", per="day"), "budget: 'team-a' has no limit"),
        (lambda: Budget("", max_cost_usd=1, per="day"), "budget: name: 1 to 255 characters"),
        (lambda: Budget("a\n", max_cost_usd=1, per="day"), "control character"),
        (lambda: Budget("a", max_cost_usd=-1, per="day"), "budget: max_cost_usd: -1 is negative"),
        (lambda: Budget("a", max_cost_usd=float("nan"), per="day"), "NaN"),
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
