"""What of a caller's RunnableConfig and options `as_runnable` honours, seen from the callbacks and from inside a tool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from langchain.tools import ToolRuntime
from langchain_core.callbacks import AsyncCallbackHandler
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from agent_graph import Ask, ConfigError, NoAnswer, create_production_agent, guardrail
from agent_graph.testing import ScriptedChatModel, call, calls
from agent_graph_adapters.langchain import as_runnable


@guardrail(stages=["tool_args"])
async def wants_to_see(stage: str, payload: Any, run: Any) -> Any:
    return Ask("may it look?")


class _Started(AsyncCallbackHandler):
    """The root run of a call, and the tools that its callbacks saw."""

    def __init__(self) -> None:
        self.name, self.run_id, self.tools = "", UUID(int=0), list[str]()
        self.tags, self.metadata = list[str](), dict[str, Any]()

    async def on_chain_start(self, serialized: Any, inputs: Any, **seen: Any) -> None:
        if seen.get("parent_run_id") is None:
            self.name, self.run_id, self.tags, self.metadata = seen["name"], seen["run_id"], seen["tags"] or [], seen["metadata"] or {}

    async def on_tool_start(self, serialized: Any, input_str: str, **seen: Any) -> None:
        self.tools.append(serialized["name"])


class _Seen:
    """What a turn under CONFIG saw of it."""

    def __init__(self) -> None:
        self.started, self.config, self.context, self.runs = _Started(), dict[str, Any](), None, list[Any]()
        self.now = self.most_at_once = 0

    async def look(self, runtime: ToolRuntime) -> str:
        """Look."""
        self.config, self.context = dict(runtime.config), runtime.context
        self.now += 1
        self.most_at_once = max(self.now, self.most_at_once)
        await asyncio.sleep(0)
        self.now -= 1
        return "seen"


CONFIG: dict[str, Any] = {
    "tags": ["vip"],
    "metadata": {"user": "u1"},
    "run_name": "ask",
    "run_id": UUID(int=7),
    "max_concurrency": 1,
    "recursion_limit": 3,
    "configurable": {"thread_id": "t", "tenant": "acme", "agent_key": "forged", "checkpoint_id": "forged"},
}
HONOURED: dict[str, Callable[[_Seen], Any]] = {
    "tags": lambda seen: "vip" in seen.config["tags"] and "vip" in seen.started.tags,
    "metadata": lambda seen: (seen.config["metadata"]["user"], seen.started.metadata["user"]) == ("u1", "u1"),
    "run_name": lambda seen: seen.started.name == "ask",
    "run_id": lambda seen: seen.started.run_id == UUID(int=7),
    "callbacks": lambda seen: seen.started.tools == ["look", "look"],
    "max_concurrency": lambda seen: seen.most_at_once == 1,
    "configurable.thread_id": lambda seen: [row.key.run_id for row in seen.runs] == ["t"],
    "configurable, keys of one's own": lambda seen: seen.config["configurable"]["tenant"] == "acme",
    "context=": lambda seen: seen.context == {"user": "u1"},
    "not recursion_limit: max_steps is the limit": lambda seen: seen.config["recursion_limit"] > 3,
    "not the agent's own keys": lambda seen: "forged" not in map(str, seen.config["configurable"].values()),
}
"""What of a RunnableConfig (docs/langchain.md) does what a LangChain user expects, and how that is seen."""


async def _asked(runnable: Any, config: Any) -> None:
    await runnable.ainvoke("q", config, context={"user": "u1"})


async def _asked_in_sync(runnable: Any, config: Any) -> None:
    await asyncio.to_thread(runnable.invoke, "q", config, context={"user": "u1"})


async def _streamed(runnable: Any, config: Any) -> None:
    _ = [chunk async for chunk in runnable.astream({"messages": [("user", "q")]}, config, context={"user": "u1"})]


@pytest.mark.parametrize("ask", [_asked, _asked_in_sync, _streamed])
async def test_what_of_a_configuration_is_honoured(ask: Any) -> None:
    seen = _Seen()
    looks = calls(call("look", call_id="a"), call("look", call_id="b"))
    async with create_production_agent(ScriptedChatModel([looks, "done"]), [seen.look], unmarked_tools="retry") as agent:
        await ask(as_runnable(agent), {**CONFIG, "callbacks": [seen.started]})
        seen.runs = await agent.runs()
    assert [what for what, holds in HONOURED.items() if not holds(seen)] == []


async def test_a_person_s_word_goes_on_under_the_caller_s_configuration() -> None:
    """Neither callbacks nor context of `Command(resume=...)` reached the rest of the turn."""
    seen, config = _Seen(), {"configurable": {"thread_id": "t"}}
    model = ScriptedChatModel([call("look", call_id="a"), "done"])
    async with create_production_agent(model, [seen.look], guardrails=[wants_to_see], unmarked_tools="retry") as agent:
        runnable = as_runnable(agent)
        with pytest.raises(NoAnswer):
            await runnable.ainvoke("q", config)  # type: ignore[arg-type]  # a RunnableConfig
        more: Any = {**config, "callbacks": [seen.started], "tags": ["vip"]}
        await runnable.ainvoke(Command(resume="approve"), more, context="late")
    assert (seen.started.tools, seen.context) == (["look"], "late")
    assert "vip" in seen.started.tags


async def test_a_graph_around_gives_its_context_on() -> None:
    seen = _Seen()
    model = ScriptedChatModel([call("look", call_id="a"), "done"])
    async with create_production_agent(model, [seen.look], unmarked_tools="retry") as agent:
        builder = StateGraph(MessagesState, context_schema=dict)
        builder.add_node("agent", as_runnable(agent))
        builder.add_edge(START, "agent")
        await builder.compile().ainvoke({"messages": [("user", "q")]}, context={"user": "u1"})
    assert seen.context == {"user": "u1"}


async def test_an_option_that_would_be_lost_is_refused() -> None:
    runnable = as_runnable(create_production_agent(ScriptedChatModel(["hi"])))
    with pytest.raises(ConfigError, match="durability= is no option of an agent's runnable"):
        await runnable.ainvoke("q", durability="exit")
    with pytest.raises(ConfigError, match="stream_mode= is no option"):
        await runnable.ainvoke("q", stream_mode="values")
    with pytest.raises(ConfigError, match="subgraphs= is no option"):
        _ = [chunk async for chunk in runnable.astream("q", subgraphs=True)]
