"""A turn is cancelled at its n-th await, for every n: what is left can be gone on with, and comes to the same end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_graph import AgentRun, MessageRole, ProductionAgent, ToolCall
from agent_graph.testing import DictMemory, ListObservability, ScriptedLLM, call, calls
from agent_graph.testing.crash.killing import counting_awaits

TOOLS = [{"name": "look", "idempotent": True}, {"name": "pay", "idempotent": False}]
SCRIPT = [calls(call("look", call_id="c1"), call("pay", call_id="c2")), call("pay", call_id="c3"), "done"]


def said(messages: list[Any], tools: Any) -> Any:
    return SCRIPT[sum(message.role is MessageRole.ASSISTANT for message in messages)]


class Tools:
    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()

    async def execute(self, call: ToolCall) -> ToolCall:
        await asyncio.sleep(0)
        self.effects[call.call_id] += 1
        await asyncio.sleep(0)
        call.result = "ok"
        return call


async def cancelled_at(n: int, work: Callable[[], Awaitable[AgentRun]]) -> AgentRun | None:
    """Return what `work` returns, or None where it was cancelled at the n-th await of all tasks."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[AgentRun]] = []
    loop.set_task_factory(counting_awaits(lambda count: tasks[0].cancel() if count == n and tasks else None))
    try:
        tasks.append(loop.create_task(work()))  # type: ignore[arg-type]  # a coroutine, as `run` is
        return await tasks[0]
    except asyncio.CancelledError:
        return None
    finally:
        loop.set_task_factory(None)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["run", "resume"])
async def test_a_turn_cancelled_at_any_await_goes_on_to_the_same_end(again: str) -> None:
    """Cancelled after its last checkpoint, a turn began anew, with its question twice in the conversation; and a reply that was paid
    for and not kept counted as two steps."""
    for n in range(1, 1_000):
        tools, seen = Tools(), ListObservability()
        model = ScriptedLLM([said], last_forever=True, cost_usd=0.001)
        agent = ProductionAgent(model, TOOLS, tools, DictMemory(), seen, {}, storage=":memory:")  # type: ignore[arg-type]  # by shape
        first = await cancelled_at(n, lambda agent=agent: agent.run("go", "r"))  # type: ignore[misc]  # the default binds the loop's own agent
        unfinished = await agent.unfinished()
        run = first or await (agent.resume("r") if again == "resume" and unfinished else agent.run("go", "r"))
        at = f"cancelled at await {n}"
        doubtful = [call.call_id for call in run.tool_calls if (call.error or "").startswith("OutcomeUnknown")]
        assert (run.status, run.output, run.steps, run.turn) == ("complete", "done", 3, 1), at
        assert [call.call_id for call in run.tool_calls] == ["c1", "c2", "c3"], at
        assert all(times == 1 for call_id, times in tools.effects.items() if call_id != "c1"), at
        assert {"c1", "c2", "c3"} <= set(tools.effects) | set(doubtful), at
        assert [run.status for run in seen.runs] == ["complete"], at
        assert await agent.unfinished() == [], at
        billed = 0.001 * len(model.requests)
        assert run.total_cost_usd <= billed + 1e-9 <= run.total_cost_usd + run.cost_uncertain_usd + 0.001 + 1e-9, at
        await agent.aclose()
        if first is not None:
            break
    assert n > 50
