"""A chain and a LangGraph app tell an ObservabilityBackend of their runs and tool calls."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agent_graph import ConfigError, ObservabilityBackend
from agent_graph.testing import ListObservability, ScriptedChatModel
from agent_graph_adapters.langchain import as_callback_handler


@tool
def weather(city: str) -> str:
    """Weather in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"sunny in {city}"


class Told(ListObservability):
    """What was told, once all of it has been: on a busy machine the handler's own second may not be enough."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = as_callback_handler(self)

    def all(self) -> Told:
        self.handler._recorder.wait(60)
        return self


def asking(*cities: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": f"c{n}", "name": "weather", "args": {"city": city}} for n, city in enumerate(cities)])


def app_of(*replies: Any, **options: Any) -> Any:
    return create_agent(ScriptedChatModel(replies, usage=(1000, 100), model_name="gpt-4o-mini"), [weather], **options)


async def test_a_create_agent_app() -> None:
    seen = Told()
    app = app_of(asking("Paris", "Rome"), "It is sunny.", checkpointer=InMemorySaver())
    config: Any = {"callbacks": [seen.handler], "configurable": {"thread_id": "t"}}
    await app.ainvoke({"messages": [("user", "Paris and Rome?")]}, config)
    [run] = seen.all().runs
    assert (run.run_id, run.input, run.output, run.status, run.steps) == ("t", "Paris and Rome?", "It is sunny.", "complete", 2)
    assert (run.total_tokens, run.total_cost_usd) == (2200, pytest.approx(2 * (1000 * 0.15e-6 + 100 * 0.60e-6), abs=1e-12))
    assert sorted((c.tool_name, c.call_id, c.args["city"], c.result) for c in run.tool_calls) == [
        ("weather", "c0", "Paris", "sunny in Paris"),
        ("weather", "c1", "Rome", "sunny in Rome"),
    ]
    assert sorted(c.call_id for c in seen.calls_of("t")) == ["c0", "c1"]
    assert all(c.latency_ms > 0 for c in run.tool_calls)


def test_invoked_synchronously() -> None:
    seen = Told()
    app_of("hi").invoke({"messages": [("user", "q")]}, {"callbacks": [seen.handler]})
    assert [(run.output, run.steps) for run in seen.all().runs] == [("hi", 1)]


async def test_what_failed_is_told_as_failed() -> None:
    seen = Told()
    with pytest.raises(ValueError, match="no such city"):
        await app_of(asking("Atlantis")).ainvoke({"messages": [("user", "q")]}, {"callbacks": [seen.handler]})
    [run] = seen.all().runs
    assert (run.status, run.error) == ("failed", "ValueError: no such city")
    assert [c.error for c in run.tool_calls] == ["ValueError: no such city"]


async def test_concurrent_runs_are_kept_apart() -> None:
    seen = Told()
    handler = seen.handler
    app = create_agent(ScriptedChatModel(["hi"], last_forever=True), [])
    await asyncio.gather(
        *(app.ainvoke({"messages": [("user", f"q{n}")]}, {"callbacks": [handler], "metadata": {"thread_id": f"t{n}"}}) for n in range(20))
    )
    assert sorted((run.run_id, run.input, run.steps) for run in seen.all().runs) == sorted((f"t{n}", f"q{n}", 1) for n in range(20))
    assert (handler._root_of, handler._calls) == ({}, {}), "nothing is kept of what has ended"


async def test_a_model_alone_a_chain_and_a_tool_alone() -> None:
    seen = Told()
    config: Any = {"callbacks": [seen.handler]}
    await ScriptedChatModel(["hi"]).ainvoke("q", config)
    await RunnableLambda(lambda question: {"answer": 17, "to": question}).ainvoke({"question": "q"}, config)
    await weather.ainvoke({"city": "Paris"}, config)
    assert [(run.input, run.output) for run in seen.all().runs] == [
        ("q", "hi"),
        ('{"question":"q"}', '{"answer":17,"to":{"question":"q"}}'),
    ]
    [(call, _)] = seen.all().calls
    assert call.result == "sunny in Paris"


async def test_a_cost_that_the_provider_tells_wins() -> None:
    seen = Told()
    reply = AIMessage("hi", response_metadata={"cost_usd": 0.25, "model_name": "gpt-4o-mini"})
    await ScriptedChatModel([reply], usage=(10, 5)).ainvoke("q", {"callbacks": [seen.handler]})
    assert seen.all().runs[0].total_cost_usd == 0.25


class Broken(ObservabilityBackend):
    def record_run(self, run: Any) -> None:
        raise RuntimeError("disk full")

    def record_tool_call(self, call: Any, run_id: str) -> None:
        raise RuntimeError("disk full")


async def test_a_backend_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    handler = as_callback_handler(Broken())
    with caplog.at_level(logging.WARNING, logger="agent_graph"):
        out = await app_of(asking("Paris"), "sunny").ainvoke({"messages": [("user", "q")]}, {"callbacks": [handler]})
        handler._recorder.wait(60)
    assert out["messages"][-1].text == "sunny"
    assert "disk full" in caplog.text


@pytest.mark.parametrize("wrong", [ListObservability, object(), None], ids=["a class", "an object", "None"])
def test_what_is_no_backend_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="no ObservabilityBackend"):
        as_callback_handler(wrong)
