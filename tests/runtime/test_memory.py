"""The default memory: the run's own checkpoints, and a list only of what they do not hold."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agent_graph import ProductionAgent, create_production_agent
from agent_graph.testing import ScriptedChatModel


def agent_that_says(*replies: Any, **options: Any) -> tuple[ProductionAgent, ScriptedChatModel]:
    model = ScriptedChatModel(replies, usage=(10, 2))
    return create_production_agent(model, **options), model


def asked(model: ScriptedChatModel) -> list[str]:
    """Return what the model was shown last, without the system prompt."""
    return [str(message.content) for message in model.requests[-1][0] if message.type != "system"]


async def rows(agent: ProductionAgent) -> list[str]:
    """Return what the memory keeps beside the checkpoints."""
    return [message.content for message in await agent.storage.load_memory("default", "r")]


async def test_the_next_turn_knows_the_last_and_no_list_is_kept() -> None:
    agent, model = agent_that_says("one", "two")
    async with agent:
        await agent.run("a", "r")
        await agent.run("b", "r")
        assert asked(model) == ["a", "one", "b"]
        assert await rows(agent) == []
        assert [entry.message.content for entry in await agent.history("r")] == ["a", "one", "b", "two"]


async def test_the_memory_can_be_read() -> None:
    """The quickstart's `agent.memory.load(run_id)` gave nothing, where the checkpoints had it all."""
    agent, _ = agent_that_says("one", "two")
    async with agent:
        await agent.run("a", "r")
        await agent.run("b", "r")
        assert [message.content for message in await agent.memory.load("r")] == ["a", "one", "b", "two"]
        assert await agent.memory.load("unknown") == []


async def test_a_turn_writes_what_it_adds_and_not_the_whole_conversation_again() -> None:
    """Else a conversation of n turns would take n² on disk."""
    agent, _ = agent_that_says(*("x" * 10_000 for _ in range(4)))
    async with agent:
        for text in "abcd":
            await agent.run(text, "r")
        written = [
            len(str(value))
            async for item in agent.storage.checkpointer.alist({"configurable": {"thread_id": "r"}})
            for _, channel, value in item.pending_writes or ()
            if channel == "messages"
        ]
    assert sum(size > 10_000 for size in written) == 4, "each answer once"


async def test_a_failed_turn_is_remembered_as_far_as_it_came() -> None:
    agent, model = agent_that_says(ValueError("no"), "two", retry_attempts=1)
    async with agent:
        assert (await agent.run("a", "r")).status == "failed"
        await agent.run("b", "r")
        assert asked(model) == ["a", "b"]


async def test_a_turn_of_another_graph_is_remembered_by_a_list_until_our_own_checkpoints_know_it() -> None:
    agent, model = agent_that_says("one", "two", "three")
    async with agent:
        await agent.graph.ainvoke({"messages": [HumanMessage("a")]}, {"configurable": {"thread_id": "r"}}, durability="sync")
        assert await rows(agent) == ["a", "one"]
        await agent.run("b", "r")
        assert asked(model) == ["a", "one", "b"]
        assert await rows(agent) == []
        await agent.run("c", "r")
        assert asked(model) == ["a", "one", "b", "two", "c"]


@pytest.mark.parametrize("given", [1, 3])
async def test_what_a_caller_gives_takes_the_place_of_the_memory_unless_it_is_the_input_alone(given: int) -> None:
    from agent_graph import as_runnable

    agent, model = agent_that_says("one", "two", "three")
    async with agent:
        await agent.run("a", "r")
        messages = [HumanMessage(text) for text in "xyz"][-given:]
        await as_runnable(agent).ainvoke(messages, {"configurable": {"run_id": "r"}})
        assert asked(model) == (["a", "one", "z"] if given == 1 else ["x", "y", "z"])
