"""Tools that have state, store and runtime injected, return Commands and artifacts: as under LangGraph's ToolNode."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from agent_graph import create_production_agent
from agent_graph.testing import ScriptedChatModel


@tool
def counts(state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Count the messages."""
    return f"{len(state['messages'])} messages, the last {state['messages'][-1].type}"


@tool
async def reads(messages: Annotated[list[Any], InjectedState("messages")]) -> str:
    """Read the first message."""
    text = str(messages[0].text)
    messages.clear()  # the list is the tool's own: nobody else is to notice
    return text


@tool
async def remembers(word: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Remember a word."""
    await store.aput(("words",), word, {"word": word})
    return f"{len(await store.asearch(('words',)))} known"


@tool
def looks(word: str, runtime: ToolRuntime) -> str:
    """Look around."""
    return f"{word} {runtime.tool_call_id} {len(runtime.state['messages'])} {runtime.store is not None}"


@tool
def commands(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Answer by a Command."""
    return Command(update={"messages": [ToolMessage("commanded", tool_call_id=tool_call_id)]})


@tool(response_format="content_and_artifact")
async def draws() -> tuple[str, dict[str, Any]]:
    """Draw."""
    return "a chart", {"points": [1, 2]}


TOOLS = [counts, reads, remembers, looks, commands, draws]


def calling(wanted: BaseTool) -> AIMessage:
    args = {"word": "hi"} if "word" in wanted.get_input_schema().model_fields else {}
    return AIMessage("", tool_calls=[{"id": "c1", "name": wanted.name, "args": args}])


async def under_tool_node(wanted: BaseTool) -> ToolMessage:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "tools")
    out = await graph.compile(store=InMemoryStore()).ainvoke({"messages": [HumanMessage("q"), calling(wanted)]})
    message: ToolMessage = out["messages"][-1]
    return message


async def under_our_agent(wanted: BaseTool, *, embedded: bool) -> ToolMessage:
    agent = create_production_agent(ScriptedChatModel([calling(wanted), "done"]), TOOLS, store=None if embedded else InMemoryStore())
    if embedded:
        outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
        outer.add_node("agent", agent.graph)
        outer.add_edge(START, "agent")
        out = await outer.compile(store=InMemoryStore()).ainvoke({"messages": [HumanMessage("q")]}, {"configurable": {"thread_id": "t"}})
    else:
        await agent.run("q", "t")
        out = (await agent.graph.aget_state({"configurable": {"thread_id": "t"}})).values
    assert [message.type for message in out["messages"]] == ["human", "ai", "tool", "ai"], "nothing else has changed"
    message: ToolMessage = out["messages"][2]
    return message


@pytest.mark.parametrize("embedded", [False, True], ids=["alone", "in another graph"])
@pytest.mark.parametrize("wanted", TOOLS, ids=lambda wanted: wanted.name)
async def test_what_a_tool_is_given_and_gives_is_what_it_is_under_tool_node(wanted: BaseTool, embedded: bool) -> None:
    ours, theirs = await under_our_agent(wanted, embedded=embedded), await under_tool_node(wanted)
    assert (ours.content, ours.artifact, ours.status) == (theirs.content, theirs.artifact, theirs.status)
    assert theirs.status == "success"


async def test_injected_arguments_are_not_the_models_to_give() -> None:
    agent = create_production_agent(ScriptedChatModel([]), TOOLS)
    assert {spec.name: list(spec.parameters["properties"]) for spec in agent.specs.values()} == {
        "counts": [], "reads": [], "remembers": ["word"], "looks": ["word"], "commands": [], "draws": [],
    }  # fmt: skip


async def test_an_artifact_without_a_json_form_ends_no_run() -> None:
    @tool(response_format="content_and_artifact")
    def odd() -> tuple[str, Any]:
        """Odd."""
        return "fine", object()

    call = AIMessage("", tool_calls=[{"id": "c1", "name": "odd", "args": {}}])
    agent = create_production_agent(ScriptedChatModel([call, "done"]), [odd])
    assert (await agent.run("q", "t")).status == "complete"
