"""More for a turn that ended at a limit: it goes on where it was, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import (
    AgentRun,
    ConfigError,
    ProductionAgent,
    RunConflict,
    RunInProgress,
    RunNotFound,
)
from agent_graph.testing import FakeClock, ListObservability
from tests.provider import PaidModel, Provider, paid_agent, scripted, tool_call


@tool(extras={"idempotent": True})
def look(at: int = 0) -> str:
    """Look."""
    return f"nothing at {at}"


def agent_of(model: PaidModel, *fallbacks: PaidModel, **options: Any) -> ProductionAgent:
    return paid_agent(model, [look], fallbacks=fallbacks, **{"max_cost_usd": 1, "clock": FakeClock(auto=True), **options})


def two_steps(messages: list[BaseMessage]) -> Any:
    looked = sum(isinstance(message, ToolMessage) for message in messages)
    return (AIMessage("done"), 100) if looked >= 3 else (tool_call("look", looked, at=looked), 1_000)


async def test_a_turn_that_ended_at_a_limit_goes_on_where_it_was(tmp_path: Path) -> None:
    provider, seen = Provider(), ListObservability()
    options: dict[str, Any] = {"max_cost_usd": 0.0101, "observability": seen, "storage": tmp_path / "runs.db"}
    agent = agent_of(scripted(provider, two_steps), **options)
    run = await agent.run("q", "r")
    assert (run.status, run.stop_reason, run.steps, len(run.tool_calls)) == ("failed", "max_cost_usd", 1, 1)
    run = await agent.resume("r", add_budget={"max_cost_usd": 0.0101})
    assert (run.status, run.turn, run.steps, len(run.tool_calls)) == ("failed", 1, 3, 2)
    assert run.landed == "max_cost_usd"
    await agent.aclose()
    agent = agent_of(scripted(provider, two_steps), **options)  # another process
    run = await agent.resume("r", add_budget={"max_cost_usd": 0.5})
    assert (run.status, run.output, run.turn, run.landed, len(run.tool_calls)) == ("complete", "done", 1, None, 2)
    assert Decimal(str(run.total_cost_usd)) == provider.bill_usd
    assert [(told.turn, told.status) for told in seen.runs] == [(1, "failed"), (1, "failed"), (1, "complete")]
    assert (await agent.run("again", "r")).turn == 2
    await agent.aclose()


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"max_steps": 1}, {"max_steps": 10}),
        ({"max_tokens": 1_200}, {"max_tokens": 100_000}),
        ({"timeout_s": 0.0}, {"timeout_s": 60}),
    ],
)
async def test_every_limit_can_be_added_to(options: dict[str, Any], more: dict[str, Any]) -> None:
    agent = agent_of(scripted(Provider(), two_steps), **options)
    run = await agent.run("q", "r")
    assert run.status in ("failed", "timeout")
    run = await agent.resume("r", add_budget=more)
    assert (run.status, run.output, run.turn) == ("complete", "done", 1)


async def test_what_is_added_at_once_is_added_or_refused_never_lost() -> None:
    """Of three calls at once two were lost without a word: they waited for the first one's result."""
    agent = agent_of(scripted(Provider(), two_steps), max_steps=1)
    await agent.run("q", "r")
    outcomes = await asyncio.gather(*(agent.resume("r", add_budget={"max_steps": 1}) for _ in range(3)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, RunInProgress)]
    added = [outcome for outcome in outcomes if isinstance(outcome, AgentRun)]
    assert len(refused) + len(added) == 3
    assert added
    assert all("nothing was added" in str(error) for error in refused)
    assert (await agent.get("r")).steps == 1 + len(added)


async def test_what_was_added_survives_a_crash_after_it(tmp_path: Path) -> None:
    from tests.test_money import World

    world = World([], tmp_path)

    def agent() -> ProductionAgent:
        return agent_of(scripted(world.provider, two_steps), max_cost_usd=0.0101, storage=world.file)

    first = agent()
    await first.run("q", "r")
    reached = asyncio.Event()

    async def hangs() -> Any:
        reached.set()
        await asyncio.Event().wait()

    second = agent_of(scripted(world.provider, lambda messages: hangs()), max_cost_usd=0.0101, storage=world.file)
    work = asyncio.ensure_future(second.resume("r", add_budget={"max_cost_usd": 0.5}))
    await reached.wait()
    world._copy()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    for each in (first, second):
        await each.aclose()
    world.lives += 1
    third = agent()
    run = await third.resume("r")
    assert (run.status, run.output, run.turn) == ("complete", "done", 1)
    assert run.cost_uncertain_usd == 0.01
    await third.aclose()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "add_budget: a mapping such as"),
        (0.5, "add_budget: a mapping such as"),
        ({"max_cost_us": 1}, "add_budget: 'max_cost_us' is no limit. Did you mean 'max_cost_usd'?"),
        ({"retry_attempts": 1}, "add_budget: 'retry_attempts' is no limit."),
        ({"max_cost_usd": -1}, "add_budget: max_cost_usd: -1 is negative"),
        ({"max_cost_usd": None}, "add_budget: max_cost_usd: a number to add is due"),
        ({"max_cost_usd": float("nan")}, "NaN"),
        ({"max_steps": 1.5}, "add_budget: max_steps: a whole number is due"),
        ({"max_tokens": 5}, "add_budget: max_tokens is None: there is no limit to add to"),
    ],
)
async def test_an_addition_that_cannot_be_is_refused_and_changes_nothing(more: Any, words: str) -> None:
    agent = agent_of(scripted(Provider(), two_steps), max_steps=1)
    before = await agent.run("q", "r")
    with pytest.raises(ConfigError) as raised:
        await agent.resume("r", add_budget=more)
    assert words in str(raised.value)
    assert await agent.get("r") == before


async def test_a_turn_that_ended_at_no_limit_is_not_continued() -> None:
    agent = agent_of(scripted(Provider(), (AIMessage("hi"), 1)))
    await agent.run("q", "r")
    with pytest.raises(RunConflict, match=r"run 'r': add_budget cannot continue turn 1: it ended complete \(answer\), at no limit"):
        await agent.resume("r", add_budget={"max_steps": 1})
    with pytest.raises(RunNotFound):
        await agent.resume("unknown", add_budget={"max_steps": 1})
