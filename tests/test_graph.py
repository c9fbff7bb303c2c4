"""The loop's shape, and the loop as a part of somebody else's graph."""

from __future__ import annotations

import asyncio
import gc
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from agent_graph import ConfigError, RunInProgress, create_production_agent, graph
from agent_graph.graph import build_graph
from agent_graph.testing import ListObservability, ScriptedLLM, call
from tests.scripted import agent_of

NODES = {"load_memory", "check_budget", "compress", "call_model", "guard", "run_tool", "finish"}


def test_seven_nodes_on_one_screen() -> None:
    drawn = build_graph().compile().get_graph()
    assert set(drawn.nodes) - {"__start__", "__end__"} == NODES
    assert len(inspect.getsource(graph).splitlines()) < 80


def test_every_edge_of_the_drawing_is_there() -> None:
    drawn = {(edge.source, edge.target) for edge in build_graph().compile().get_graph().edges}
    assert drawn == {
        ("__start__", "load_memory"),
        ("load_memory", "call_model"),
        ("load_memory", "finish"),
        ("check_budget", "call_model"),
        ("check_budget", "finish"),
        ("compress", "call_model"),
        ("call_model", "check_budget"),
        ("call_model", "compress"),
        ("call_model", "guard"),
        ("call_model", "run_tool"),
        ("call_model", "finish"),
        ("guard", "run_tool"),
        ("guard", "call_model"),
        ("guard", "finish"),
        ("run_tool", "call_model"),
        ("finish", "__end__"),
    }


async def test_the_steady_path_is_two_supersteps_a_step() -> None:
    """More would be checkpoints, and their disk, for supersteps that decide nothing."""
    agent = agent_of(*[call("weather", city=str(number)) for number in range(5)], "done")
    run = await agent.run("q", "r")
    assert run.steps == 6
    states = [state async for state in agent.graph.aget_state_history({"configurable": {"thread_id": "r"}})]
    # input, load_memory, 6 x call_model, 5 x run_tool, finish, and the state before each
    assert len(states) == 1 + 1 + 1 + 6 + 5 + 1


@dataclass
class OtherContext:
    user: str


@pytest.mark.parametrize("child", [None, True, "its own"], ids=["parent's saver", "stateful", "agent.graph"])
async def test_as_a_subgraph_of_a_graph_with_another_context(child: Any) -> None:
    """Two turns: nothing doubled, ids stable, each turn booked, though nobody keeps the agent alive."""
    agent = agent_of(call("weather", city="Paris"), "It is sunny.", call("weather", city="Rome"), "There too.")
    observability = agent.observability
    inner = (
        agent.graph if child == "its own" else build_graph().compile(checkpointer=child).with_config(configurable={"agent_key": agent.key})
    )
    del agent
    gc.collect()
    outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState, context_schema=OtherContext)
    outer.add_node("agent", inner)
    outer.add_edge(START, "agent")
    outer.add_edge("agent", END)
    app = outer.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    first = await app.ainvoke({"messages": [("user", "Paris?")]}, config, context=OtherContext("u"), durability="sync")
    second = await app.ainvoke({"messages": [("user", "Rome?")]}, config, context=OtherContext("u"), durability="sync")
    assert [message.type for message in second["messages"]] == ["human", "ai", "tool", "ai"] * 2
    assert [message.id for message in second["messages"][:4]] == [message.id for message in first["messages"]]
    assert len({message.id for message in second["messages"]}) == 8
    assert isinstance(observability, ListObservability)
    assert [(run.run_id, run.turn, run.status) for run in observability.runs] == [("t/agent", 1, "complete"), ("t/agent", 2, "complete")]


async def test_an_outer_graphs_own_keys_are_left_alone() -> None:
    """Its `step` and `outcome` came back as ours."""

    class Outer(MessagesState):
        step: str
        outcome: str

    outer: StateGraph[Any, Any, Any, Any] = StateGraph(Outer)
    outer.add_node("agent", agent_of("hello").graph)
    outer.add_edge(START, "agent")
    app = outer.compile(checkpointer=InMemorySaver())
    result = await app.ainvoke(
        {"messages": [("user", "hi")], "step": "mine", "outcome": "mine too"}, {"configurable": {"thread_id": "t"}}, durability="sync"
    )
    assert (result["step"], result["outcome"], result["messages"][-1].text) == ("mine", "mine too", "hello")


OUTCOME = {"status": "complete", "error": None, "stop_reason": "answer"}


@pytest.mark.parametrize(
    "more",
    [
        {"step": 5, "turn": 7, "run_id": "other"},
        {"outcome": OUTCOME, "stop": "max_steps: 3 of 3", "landing": "max_steps", "ended_by": "me"},
        {"kept": "KEPT ", "revisions": {"size": 9}, "first": 9, "compressed_at": 0, "hooked": 0, "given": [AIMessage("GIVEN")]},
        {"nobody's": 1},
    ],
    ids=str,
)
async def test_only_the_messages_of_an_input_are_read(more: dict[str, Any]) -> None:
    """The state's own keys are the turn's, and begin anew with it: whoever writes them in would spend, skip or answer in its name."""
    agent = agent_of(call("weather", city="Paris"), "It is sunny.")
    out = await agent.graph.ainvoke({"messages": [("user", "What is the weather?")], **more}, {"configurable": {"thread_id": "t"}})
    assert [message.text for message in out["messages"]] == ["What is the weather?", "", "sunny in Paris", "It is sunny."]
    run = await agent.get("t")
    assert (run.turn, run.status, run.steps, run.error) == (1, "complete", 2, None)
    assert [row.key.run_id for row in await agent.runs()] == ["t"]


async def test_an_input_that_names_a_turn_at_work_does_not_enter_it() -> None:
    """It worked on under the other's lease, and its answer and its bill were the other's."""
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(messages: Any, tools: Any) -> str:
        asked.set()
        await goes_on.wait()
        return "for the one at work"

    agent = agent_of(slow, "for the other")
    working = asyncio.ensure_future(agent.run("q", "victim"))
    await asked.wait()
    named = {"messages": [("user", "q")], "run_id": "victim", "turn": 1}
    out = await agent.graph.ainvoke(named, {"configurable": {"thread_id": "t"}})
    with pytest.raises(RunInProgress):
        await agent.graph.ainvoke(named, {"configurable": {"thread_id": "victim"}})
    goes_on.set()
    assert (out["messages"][-1].text, (await working).output) == ("for the other", "for the one at work")
    runs = [(await agent.get(run_id)) for run_id in ("victim", "t")]
    assert [(run.steps, run.output) for run in runs] == [(1, "for the one at work"), (1, "for the other")]


async def test_without_a_saver_it_runs_too() -> None:
    """As `langgraph dev` loads it: the server brings its own saver."""
    agent = agent_of("hello")
    app = build_graph().compile().with_config(configurable={"agent_key": agent.key})
    result = await app.ainvoke({"messages": [("user", "hi")]})
    assert isinstance(result["messages"][-1], AIMessage)
    assert result["messages"][-1].text == "hello"


async def test_without_a_question_it_says_what_is_missing() -> None:
    agent = agent_of("hello")
    with pytest.raises(ConfigError, match="at least one human message"):
        await agent.graph.ainvoke({"messages": []}, {"configurable": {"thread_id": "t"}})


async def test_unbound_it_says_so() -> None:
    with pytest.raises(ConfigError, match="agent_key"):
        await build_graph().compile().ainvoke({"messages": [("user", "hi")]})


async def test_each_of_many_threads_is_written_under_its_own_lease() -> None:
    """LangGraph's saver writes beside the node that claims the run: one thread in six was told that somebody works on it."""
    agent = create_production_agent(ScriptedLLM(["hello"] * 60), storage=":memory:")
    for number in range(60):
        result = await agent.graph.ainvoke({"messages": [("user", "hi")]}, {"configurable": {"thread_id": f"t{number}"}})
        assert result["messages"][-1].text == "hello"
    await agent.aclose()


async def test_without_a_thread_it_says_what_names_the_run() -> None:
    agent = agent_of("hello")
    with pytest.raises(ConfigError, match="thread_id"):
        await agent.graph.ainvoke({"messages": [("user", "hi")]})


def test_its_schemas_can_be_drawn() -> None:
    assert "messages" in agent_of("hello").graph.get_input_jsonschema()["properties"]
