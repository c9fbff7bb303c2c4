"""`stream`: a turn told while it goes on, and stopped when its reader has heard enough."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import AIMessage

from agent_graph import (
    Allow,
    Block,
    Event,
    GuardrailVerdict,
    RunFinished,
    RunStarted,
    StepFinished,
    TextDelta,
    ToolFinished,
    ToolStarted,
    create_production_agent,
    guardrail,
)
from agent_graph.testing import FakeTools, ScriptedChatModel, call
from tests.scripted import agent_of


async def test_the_stream_tells_a_turn_in_order() -> None:
    agent = agent_of(call("weather", city="Paris"), "Sunny.")
    events: list[Event] = [event async for event in agent.stream("q", "r")]
    assert [type(event) for event in events] == [
        RunStarted, StepFinished, ToolStarted, ToolFinished, TextDelta, StepFinished, RunFinished,
    ]  # fmt: skip
    assert isinstance(events[-1], RunFinished)
    assert events[-1].run == await agent.get("r")


async def test_deltas_make_the_answer() -> None:
    model = ScriptedChatModel([AIMessage("The weather in Paris is sunny and mild.")])
    agent = create_production_agent(model)
    deltas = [event.text async for event in agent.stream("q") if isinstance(event, TextDelta)]
    assert len(deltas) > 1
    assert "".join(deltas) == "The weather in Paris is sunny and mild."


@guardrail(stages=["output"], pure=True)
async def no_secrets(stage: str, payload: Any, run: Any) -> Any:
    return Block("it tells a secret") if "secret" in payload else Allow()


async def test_text_is_held_until_the_rails_have_spoken() -> None:
    """No effect leaves before every verdict on it is in: a blocked text was never shown."""
    agent = create_production_agent(ScriptedChatModel([AIMessage("The secret is 42.")]), guardrails=[no_secrets])
    events = [event async for event in agent.stream("q")]
    assert not [event for event in events if isinstance(event, TextDelta)]
    assert [event.verdict for event in events if isinstance(event, GuardrailVerdict)] == ["block"]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].run.status == "failed"


@guardrail(stages=["reply", "output"], changes_text=False)
async def looks_on(stage: str, payload: Any, run: Any) -> Any:
    await asyncio.sleep(0)
    return Allow()


async def test_text_that_no_rail_may_change_is_told_once() -> None:
    """A rail that waits sends the reply by way of `guard`, which told the text a second time."""
    agent = create_production_agent(ScriptedChatModel([AIMessage("The weather in Paris is sunny.")]), guardrails=[looks_on])
    deltas = [event.text async for event in agent.stream("q") if isinstance(event, TextDelta)]
    assert "".join(deltas) == "The weather in Paris is sunny."
    assert len(deltas) > 1


async def test_unheld_text_is_marked_provisional() -> None:
    agent = create_production_agent(ScriptedChatModel([AIMessage("The secret is 42.")]), guardrails=[no_secrets], hold_text=False)
    deltas = [event async for event in agent.stream("q") if isinstance(event, TextDelta)]
    assert deltas
    assert all(delta.provisional for delta in deltas)


async def test_a_closed_stream_stops_the_turn_and_it_can_go_on() -> None:
    started = asyncio.Event()

    async def slow(city: str) -> str:
        started.set()
        await asyncio.sleep(30)
        return "never"

    agent = agent_of(call("weather", city="Paris"), "Sunny.", tools={"weather": slow})
    stream = agent.stream("q", "r")
    async for event in stream:
        if isinstance(event, ToolStarted):
            await started.wait()
            break
    await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert await agent.unfinished() == ["r"]
    assert (await agent.get("r")).status == "running"
    agent._tools.backend = FakeTools({"weather": lambda city: "sunny"})
    run = await agent.run("q", "r")
    assert (run.status, run.turn, run.steps) == ("complete", 1, 2)
