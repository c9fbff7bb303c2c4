"""The messages channel and the way from a node to its agent."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels import BinaryOperatorAggregate
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite
from typing_extensions import TypedDict

from agent_graph.errors import ConfigError
from agent_graph.state import AgentKey, agent_of, append_messages, keep_first, messages_channel, plain_channel

ids = st.integers(0, 6).map(lambda number: f"m{number}")
written = st.one_of(
    st.builds(lambda id_, text: HumanMessage(text, id=id_), ids, st.text(max_size=3)),
    st.builds(lambda id_: RemoveMessage(id=id_), ids),
)
batches = st.lists(st.lists(written, max_size=4), max_size=6)


@given(batches, st.integers(0, 6))
@example([[HumanMessage("a", id="m0"), HumanMessage("b", id="m1")], [RemoveMessage(id="m0")], [HumanMessage("c", id="m0")]], 2)
def test_batching_does_not_matter(writes: list[list[BaseMessage]], cut: int) -> None:
    """DeltaChannel replays writes in other batches than they were made in."""
    at_once = append_messages([], writes)
    in_two = append_messages(append_messages([], writes[:cut]), writes[cut:])
    assert at_once == in_two


@given(batches)
def test_no_id_stands_twice(writes: list[list[BaseMessage]]) -> None:
    result = append_messages([], writes)
    assert len({message.id for message in result}) == len(result)


def test_messages_without_an_id_are_kept_apart() -> None:
    assert len(append_messages([], [[HumanMessage("a")], [HumanMessage("a")]])) == 2


def test_the_channel_is_the_one_that_does_not_grow() -> None:
    assert isinstance(messages_channel(), DeltaChannel)


def test_without_the_beta_channel_there_is_a_plain_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "langgraph.channels.delta", None)
    assert isinstance(messages_channel(), BinaryOperatorAggregate)
    assert "stores the whole conversation" in caplog.text


class Delta(TypedDict):
    messages: Annotated[list[Any], messages_channel()]


class Plain(TypedDict):
    messages: Annotated[list[Any], plain_channel()]


@pytest.mark.parametrize("kind", [Delta, Plain], ids=["DeltaChannel", "plain channel"])
async def test_the_channel_keeps_langgraphs_contract(kind: Any) -> None:
    """What DeltaChannel (beta) must go on doing: append, overwrite, and give the same list again from the checkpoints alone."""

    async def act(state: Any) -> dict[str, Any]:
        number = len(state["messages"])
        if number == 3:
            return {"messages": Overwrite([HumanMessage("short", id="s")])}
        return {"messages": [AIMessage(f"reply {number}", id=f"a{number}")]}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(kind)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    graph.add_edge("act", END)
    app = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    seen = []
    for turn in range(4):
        result = await app.ainvoke({"messages": [HumanMessage(f"q{turn}", id=f"q{turn}")]}, config, durability="sync")
        assert (await app.aget_state(config)).values["messages"] == result["messages"]
        seen.append([message.text for message in result["messages"]])
    assert seen[0] == ["q0", "reply 1"]
    assert seen[1] == ["short"]
    assert seen[2] == ["short", "q2", "reply 2"]


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [(None, "a", "a"), ("a", "b", "a"), ("a", None, None), (None, None, None)],
    ids=["first word", "second word", "a new turn clears it", "nothing"],
)
def test_the_first_end_stands(old: Any, new: Any, kept: Any) -> None:
    assert keep_first(old, new) == kept


class _Agent:
    pass


def test_a_key_keeps_its_agent_alive() -> None:
    """`create_production_agent(...).graph` as a node of another graph: nobody else holds the agent."""
    agent = _Agent()
    ref, key = weakref.ref(agent), AgentKey.of(agent, "demo")
    del agent
    gc.collect()
    assert agent_of({"configurable": {"agent_key": key}}) is ref()
    assert agent_of({"configurable": {"agent_key": str(key)}}) is ref()
    del key
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("config", [{}, {"configurable": {}}, {"configurable": {"agent_key": "gone"}}, {"configurable": {"agent_key": 3}}])
def test_an_unbound_graph_says_what_is_missing(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"agent_key.*agent\.graph"):
        agent_of(config)


@pytest.mark.parametrize("form", ["objects", "plain JSON"])
def test_a_saver_that_brings_messages_back_as_plain_json_is_understood(form: str) -> None:
    """LangGraph's development server does so with what stood in an Overwrite: usage, calls and ids have to survive it."""
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    reply = AIMessage("", id="a", tool_calls=[{"id": "c", "name": "f", "args": {"n": 1}}], usage_metadata=usage)  # type: ignore[arg-type]  # a dict
    whole = [HumanMessage("hi", id="h"), reply, ToolMessage("1", tool_call_id="c", id="t", status="error")]
    given = whole if form == "objects" else [json.loads(message.model_dump_json()) for message in whole]
    assert append_messages(given, []) == whole
    assert append_messages([], [given]) == whole
