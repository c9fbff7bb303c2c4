"""A turn that another input closes is told to the observability backend, with what it cost, whoever dies on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_graph import ProductionAgent, SqliteStorage, failpoints
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

LOOK = {"name": "look", "idempotent": True}


class Died(BaseException):
    """Stands for the end of a process."""


class Hangs:
    """A tool that says when it is at work, and does not end."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def look(self) -> str:
        self.began.set()
        await asyncio.Event().wait()
        return "never"


def agent_in(file: Path, seen: ListObservability, tool: Any, *replies: Any, memory: DictMemory | None = None) -> ProductionAgent:
    model = ScriptedLLM(replies, cost_usd=0.01)
    return ProductionAgent(
        model, [LOOK], FakeTools({"look": tool}), memory or DictMemory(), seen, {}, storage=SqliteStorage(file, durability="process")
    )


async def given_up(file: Path, seen: ListObservability) -> None:
    """Leave turn 1 of run "r" stopped in its tool call."""
    tool = Hangs()
    agent = agent_in(file, seen, tool.look, call("look"))
    task = asyncio.ensure_future(agent.run("first", "r"))
    await tool.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await agent.aclose()
    await agent.storage.close()


async def look() -> str:
    return "it"


async def test_a_turn_that_is_closed_is_told_with_what_it_cost_before_the_next(tmp_path: Path) -> None:
    """It had spent money, and no backend ever heard of it."""
    seen = ListObservability()
    await given_up(tmp_path / "runs.db", seen)
    assert seen.runs == [], "a turn that was stopped has not ended: it may go on"
    agent = agent_in(tmp_path / "runs.db", seen, look, "Fine.", "Fine again.")
    await agent.run("second", "r")
    await agent.run("third", "r")
    told = [(run.turn, run.status, run.stop_reason, run.total_cost_usd) for run in seen.runs]
    assert told == [(1, "failed", "closed", 0.01), (2, "complete", "answer", 0.01), (3, "complete", "answer", 0.01)]
    assert seen.runs[0].error == "closed: it was given up, and the run went on with another input"
    assert [row.status for row in await agent.storage.turns("default", "r")] == ["closed", "complete", "complete"]
    await agent.storage.close()


async def test_killed_as_it_closed_a_turn_whoever_goes_on_tells_it_and_remembers_it(tmp_path: Path) -> None:
    seen, memory = ListObservability(), DictMemory()
    await given_up(tmp_path / "runs.db", seen)

    def dies(name: str) -> None:
        if name == "claim.after":
            raise Died

    dying = agent_in(tmp_path / "runs.db", seen, look, "never", memory=memory)
    failpoints.arm(dies)
    try:
        with pytest.raises(Died):
            await dying.run("second", "r")
    finally:
        failpoints.disarm()
    await dying.storage.close()
    assert seen.runs == []

    agent = agent_in(tmp_path / "runs.db", seen, look, "Fine.", memory=memory)
    run = await agent.resume("r")
    assert (run.status, run.turn) == ("complete", 2)
    assert [(run.turn, run.status) for run in seen.runs] == [(1, "failed"), (2, "complete")]
    contents = [entry.content for entry in await memory.load("r")]
    assert (contents[0], contents[-1]) == ("first", "Fine."), "the next turn knew of it"
    await agent.storage.close()


async def test_without_a_backend_nothing_is_told(tmp_path: Path) -> None:
    await given_up(tmp_path / "runs.db", ListObservability())
    agent = agent_in(tmp_path / "runs.db", None, look, "Fine.")  # type: ignore[arg-type]  # nobody listens
    assert (await agent.run("second", "r")).turn == 2
    await agent.storage.close()


class Forgetful(DictMemory):
    """A memory whose saves do not end."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def save(self, run_id: str, messages: Any) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_cancelled_as_it_closes_a_turn_the_next_one_is_stopped_and_makes_way(tmp_path: Path) -> None:
    """It stayed "running", and every other input was refused."""
    seen, memory = ListObservability(), Forgetful()
    await given_up(tmp_path / "runs.db", seen)
    agent = agent_in(tmp_path / "runs.db", seen, look, "never", memory=memory)
    task = asyncio.ensure_future(agent.run("second", "r"))
    await memory.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [row.status for row in await agent.storage.turns("default", "r")] == ["closed", "stopped"]
    await agent.storage.close()

    agent = agent_in(tmp_path / "runs.db", seen, look, "Fine.")
    assert (await agent.run("third", "r")).turn == 3
    assert [(run.turn, run.stop_reason) for run in seen.runs] == [(1, "closed"), (2, "closed"), (3, "answer")]
    await agent.storage.close()


async def test_a_memory_that_hangs_keeps_no_turn_from_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_graph.runtime.closing.SAVE_S", 0.01)
    monkeypatch.setattr("agent_graph.runtime.memory.SAVE_S", 0.01)
    await given_up(tmp_path / "runs.db", ListObservability())
    agent = agent_in(tmp_path / "runs.db", ListObservability(), look, "Fine.", memory=Forgetful())
    assert (await agent.run("second", "r")).status == "complete"
    await agent.storage.close()
