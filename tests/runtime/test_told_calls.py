"""Each finished tool call is told once while its process lives, before `run()` returns: over waits, stops and closed turns too."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_graph import Allow, Approve, Ask, ProductionAgent, Reject, SqliteStorage
from agent_graph.resolutions import Resolution
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call
from agent_graph.types import ToolCall

LOOK = {"name": "look", "idempotent": True}


class Boss:
    """Asks a person at `stage`, from the `after`-th check on."""

    name = "boss"

    def __init__(self, stage: str, after: int = 0) -> None:
        self.stages = (stage,)
        self._free = after

    async def check(self, stage: str, payload: Any, run: Any) -> Any:
        self._free -= 1
        return Allow() if self._free >= 0 else Ask("look at it first")


class Held(ListObservability):
    """Takes a call only once somebody has waited for it: whoever does not wait does not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        self.free.wait(30)
        super().record_tool_call(call, run_id)


async def look() -> str:
    return "it"


def agent_in(folder: Path, seen: ListObservability, *replies: Any, tool: Any = look, rails: tuple[Any, ...] = ()) -> ProductionAgent:
    storage = SqliteStorage(folder / "runs.db", durability="process")
    model = ScriptedLLM(replies, cost_usd=0.01)
    agent = ProductionAgent(model, [LOOK], FakeTools({"look": tool}), DictMemory(), seen, {}, storage=storage, guardrails=list(rails))
    delivered = agent.recorder.delivered
    free = getattr(seen, "free", None)

    async def waited(wait_s: float = 0) -> None:
        if free is not None:
            free.set()
        await delivered(60.0)  # a loaded machine is no slow backend

    vars(agent.recorder)["delivered"] = waited
    return agent


def told(seen: ListObservability) -> list[str]:
    return [call.call_id for call, _ in seen.calls]


@pytest.mark.parametrize(
    ("word", "result"),
    [(Approve(), "it"), (Reject("not for the model"), "The result was withheld: not for the model")],
)
async def test_a_call_whose_result_a_person_looks_at_is_told_once_with_what_the_person_let_through(
    tmp_path: Path, word: Resolution, result: str
) -> None:
    """It was never told: before the wait its end was not out, after it it was taken for told."""
    seen = ListObservability()
    agent = agent_in(tmp_path, seen, call("look"), "Fine.", rails=(Boss("tool_result"),))
    run = await agent.run("go", "r")
    assert (run.status, told(seen)) == ("running", []), "nobody hears of a result before its verdict"
    run = await agent.resolve("r", run.pending[0]["call_id"], outcome=word)
    assert (run.status, [call.result for call, _ in seen.calls]) == ("complete", [result])
    await agent.aclose()


async def test_a_turn_that_waits_has_told_its_calls_before_run_returns_and_does_not_tell_them_again(tmp_path: Path) -> None:
    seen = Held()
    agent = agent_in(tmp_path, seen, call("look", call_id="a"), call("look", call_id="b"), "Fine.", rails=(Boss("tool_args", after=1),))
    run = await agent.run("go", "r")
    assert (run.status, told(seen)) == ("running", ["a"])
    run = await agent.resolve("r", run.pending[0]["call_id"], outcome=Approve())
    assert (run.status, told(seen)) == ("complete", ["a", "b"])
    await agent.aclose()


class Hangs:
    """A tool that answers once, then says when it is at work and does not end."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self._asked = 0

    async def look(self) -> str:
        self._asked += 1
        if self._asked == 1:
            return "it"
        self.began.set()
        await asyncio.Event().wait()
        return "never"


async def stopped(folder: Path, seen: ListObservability) -> None:
    """Leave run "r" stopped in its second call."""
    tool = Hangs()
    agent = agent_in(folder, seen, call("look", call_id="a"), call("look", call_id="b"), tool=tool.look)
    task = asyncio.ensure_future(agent.run("go", "r"))
    await tool.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await agent.storage.close()


async def test_a_turn_that_is_stopped_has_told_its_calls_when_its_caller_is_let_go_and_does_not_tell_them_again(tmp_path: Path) -> None:
    seen = Held()
    await stopped(tmp_path, seen)
    assert told(seen) == ["a"]
    agent = agent_in(tmp_path, seen, "Fine.")
    assert (await agent.resume("r")).status == "complete"
    assert told(seen) == ["a", "b"]
    await agent.aclose()


async def test_of_a_stopped_turn_that_another_input_closes_no_call_is_told_again(tmp_path: Path) -> None:
    seen = ListObservability()
    await stopped(tmp_path, seen)
    agent = agent_in(tmp_path, seen, "Fine.")
    await agent.run("another", "r")
    assert (told(seen), [run.turn for run in seen.runs]) == (["a"], [1, 2])
    await agent.aclose()


async def test_a_result_that_waits_for_its_verdict_is_told_to_nobody_by_whoever_goes_on_after_a_crash(tmp_path: Path) -> None:
    seen = ListObservability()
    agent = agent_in(tmp_path, seen, call("look"), "Fine.", rails=(Boss("tool_result"),))
    await agent.run("go", "r")
    row = (await agent.storage.turns("default", "r"))[-1]
    agent.storage.put(replace(row, status="running", delivered=False), fence=0)  # as a process leaves it that is killed before it waits
    run = await agent.resume("r")
    assert (run.status, told(seen)) == ("running", [])
    run = await agent.resolve("r", run.pending[0]["call_id"], outcome=Approve())
    assert (run.status, told(seen)) == ("complete", [run.tool_calls[0].call_id])
    await agent.aclose()


async def test_a_caller_that_goes_away_before_it_goes_on_leaves_what_died_as_it_was(tmp_path: Path) -> None:
    """It was written down as stopped, so the next one took the calls of the killed process for told."""
    agent = agent_in(tmp_path, ListObservability(), call("look", call_id="a"), "Fine.", rails=(Boss("tool_args", after=1),))
    await agent.run("go", "r")
    row = (await agent.storage.turns("default", "r"))[-1]
    agent.storage.put(replace(row, status="running", result=None, delivered=False), fence=0)  # as a killed process leaves it
    await agent.storage.durable(row.key)

    async def gone(key: Any) -> Any:
        raise asyncio.CancelledError

    vars(agent.storage)["journal"] = gone  # what is asked between the claim and the graph
    with pytest.raises(asyncio.CancelledError):
        await agent.resume("r")
    del vars(agent.storage)["journal"]
    assert [row.status for row in await agent.storage.turns("default", "r")] == ["running"]
    await agent.aclose()
