"""Whose error it is: `AgentRun.error` and the warnings name the port, the method or the hook that failed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware

from agent_graph import AgentRun, Message, ProductionAgent, ToolCall, create_production_agent
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM, call

DOWN = "OSError: db down"


def raises(*args: Any, **options: Any) -> Any:
    raise OSError("db down")


class Overridden(ProductionAgent):
    """An agent whose methods may be replaced by attributes, as a subclass's would replace them."""

    failing = ""

    async def _check_budgets(self, run: AgentRun) -> str | None:
        return raises() if self.failing == "_check_budgets" else await super()._check_budgets(run)

    async def _compress_if_needed(self, messages: list[Message]) -> list[Message]:
        return raises() if self.failing == "_compress_if_needed" else await super()._compress_if_needed(messages)


async def run_of(where: str) -> AgentRun:
    """The turn of an agent in which `where` fails."""
    llm, memory = ScriptedLLM([call("look"), "Seen."]), DictMemory()
    port, _, method = where.partition(".")
    if where == "llm.stream":
        llm.stream = raises  # type: ignore[attr-defined]  # a backend may have it; this one has not
    elif method:
        setattr({"llm": llm, "memory": memory}[port], method, raises)
    tools = FakeTools({"look": lambda: "seen"})
    agent = Overridden(llm, [{"name": "look"}], tools, memory, ListObservability(), {"retry_attempts": 1})
    agent.failing = where
    async with agent:
        if where != "llm.stream":
            return await agent.run("Look.")
        return [event async for event in agent.stream("Look.")][-1].run  # type: ignore[union-attr]  # the last is a RunFinished


@pytest.mark.parametrize(
    "where", ["memory.load", "llm.complete", "llm.stream", "llm.count_tokens", "_check_budgets", "_compress_if_needed"]
)
async def test_a_turn_that_fails_says_whose_error_it_is(where: str) -> None:
    """It ended with "OSError: db down": whose database, nobody could tell."""
    run = await run_of(where)
    assert (run.status, run.error) == ("failed", f"{where}: {DOWN}")


async def test_a_save_that_fails_says_so_in_a_warning() -> None:
    run = await run_of("memory.save")
    assert (run.status, run.output) == ("complete", "Seen.")
    assert f"memory.save: {DOWN}; the next turn will not know this one." in run.warnings


async def test_a_chat_model_s_error_that_could_be_anybody_s_names_the_model() -> None:
    class ProviderError(Exception):
        """As a provider's library has them."""

    for error, told in ((OSError("db down"), f"scripted: {DOWN}"), (ProviderError("no"), "ProviderError: no")):
        async with create_production_agent(ScriptedChatModel([error]), retry_attempts=1) as agent:
            assert (await agent.run("Look.")).error == told


async def test_a_hook_s_error_names_the_hook() -> None:
    class Breaks(AgentMiddleware[Any, Any, Any]):
        async def abefore_model(self, state: Any, runtime: Any) -> Any:
            raises()

    async with create_production_agent(ScriptedChatModel(["Hi."]), middleware=[Breaks()]) as agent:
        assert (await agent.run("Look.")).error == f"middleware: Breaks.before_model: {DOWN}"


async def test_a_tool_s_error_is_its_call_s_and_the_observability_s_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(ListObservability):
        def record_tool_call(self, call: ToolCall, run_id: str) -> None:
            raises()

    llm = ScriptedLLM([call("look"), "Not seen."])
    with caplog.at_level(logging.WARNING, "agent_graph"):
        async with ProductionAgent(
            llm, [{"name": "look"}], FakeTools({"look": raises}), DictMemory(), Silent(), {"retry_attempts": 1}
        ) as agent:
            run = await agent.run("Look.")
    assert [(made.tool_name, made.error) for made in run.tool_calls] == [("look", DOWN)]
    assert "observability: Silent.record_tool_call raised OSError('db down')" in caplog.text
