"""Sub-agents: a turn that is begun inside a tool of another spends what that one has. Ground truth is the provider's own bill."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import AgentRun, Budget, RunInProgress, create_production_agent
from agent_graph.runtime.turn import current_turn
from agent_graph.testing import ScriptedChatModel
from tests.provider import FORTY_CENTS, Provider, greedy, look, paid, paid_agent, tool_call, used_usd


class Family:
    """A parent whose reply calls `ask` n times at once, and a child that answers at a price."""

    def __init__(self, children: int, *, child_tokens: int = 1_000, child_usd: float = 5.0, parent_usd: float = 0.50) -> None:
        self.provider = Provider()
        self.runs: list[AgentRun] = []
        self._number = children
        self.child = paid_agent(
            paid(self.provider, lambda messages, number: (AIMessage("done"), child_tokens), name="child"),
            name="child",
            max_cost_usd=child_usd,
        )
        self.parent = paid_agent(
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
    leaf = paid_agent(paid(provider, lambda messages, number: (AIMessage("leaf"), 100), name="leaf"), name="leaf")

    async def ask_leaf() -> str:
        """Ask the leaf."""
        return (await leaf.run("q")).output or ""

    def asks(tool: str) -> Any:
        def says(messages: list[BaseMessage], number: int) -> Any:
            return (AIMessage("ok"), 1) if isinstance(messages[-1], ToolMessage) else (tool_call(tool, 1), 1)

        return says

    middle = paid_agent(paid(provider, asks("ask_leaf"), name="middle"), [ask_leaf], name="middle")

    async def ask_middle() -> str:
        """Ask the middle."""
        return (await middle.run("q")).output or ""

    top = paid_agent(paid(provider, asks("ask_middle"), name="top"), [ask_middle], name="top")
    run = await top.run("q", "top")
    assert run.status == "complete"
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd == 104 * FORTY_CENTS


async def test_a_budget_shared_by_parent_and_child_counts_each_call_once(tmp_path: Path) -> None:
    provider, file = Provider(), tmp_path / "runs.db"
    team = Budget("team-a", max_cost_usd=5, per="day")
    child = paid_agent(
        paid(provider, lambda messages, number: (AIMessage("done"), 100), name="child"), name="child", budget=team, storage=file
    )

    async def ask() -> str:
        """Ask."""
        return (await child.run("q")).output or ""

    def lead(messages: list[BaseMessage], number: int) -> Any:
        return (AIMessage("ok"), 10) if isinstance(messages[-1], ToolMessage) else (tool_call("ask", 1), 10)

    for name, budget in (("both", team), ("child alone", None)):
        before = used_usd(file, "team-a") if file.exists() else Decimal(0)
        parent = paid_agent(paid(provider, lead, name="lead"), [ask], budget=budget, storage=file)
        run = await parent.run("q", name)
        assert run.status == "complete"
        expected = Decimal(str(run.total_cost_usd)) if budget else 100 * FORTY_CENTS
        assert used_usd(file, "team-a") - before == expected
        await parent.aclose()
    await child.aclose()


async def test_a_child_in_another_storage_counts_in_its_parents_budget(tmp_path: Path) -> None:
    provider = Provider()
    team = Budget("team-a", max_cost_usd=0.5, per="total")
    child = paid_agent(paid(provider, greedy, name="child"), [look], name="child", max_cost_usd=5, storage=tmp_path / "child.db")

    async def ask() -> str:
        """Ask."""
        return str((await child.run("q")).error)

    def lead(messages: list[BaseMessage], number: int) -> Any:
        return (AIMessage("ok"), 1) if isinstance(messages[-1], ToolMessage) else (tool_call("ask", 1), 1)

    model = paid(provider, lead, name="lead", usd_per_token=Decimal("0.000001"))
    parent = paid_agent(model, [ask], budget=team, max_cost_usd=5, storage=tmp_path / "parent.db")
    run = await parent.run("q", "p")
    assert Decimal("0.3") < provider.bill_usd <= Decimal("0.5")
    assert "budget: team-a (in all)" in str(run.tool_calls[0].result)
    assert used_usd(tmp_path / "parent.db", "team-a") == provider.bill_usd == Decimal(str(run.total_cost_usd))
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
    family.child = paid_agent(paid(family.provider, child_says, name="child"), name="child", timeout_s=1_000)
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

    child = paid_agent(paid(provider, lambda messages, number: (tool_call("wait", 1), 1), name="child"), [wait], name="child")

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
        self.child = paid_agent(paid(provider, self._child, name="child"), [look], name="child", storage=file)
        model = paid(provider, self._lead, name="lead", usd_per_token=Decimal("0.000001"))
        ask = tool(extras={"idempotent": idempotent})(self.ask)
        self.parent = paid_agent(model, [ask], max_cost_usd=1, storage=file)

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
