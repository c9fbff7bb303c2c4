"""Our saver as the `checkpointer=` of graphs that know nothing of us."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelCallLimitMiddleware
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from agent_graph import SqliteStorage
from agent_graph.testing import ScriptedChatModel
from tests.adapters.langchain.middleware.somebodys import THREAD, calls

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
New = Callable[[], SqliteStorage]


@tool
def look(at: str) -> str:
    """Look."""
    return f"saw {at}"


async def test_a_conversation_goes_on_in_the_next_process(invoke: Invoke, new_storage: New) -> None:
    for question, answer in (("one", "first"), ("two", "second")):
        model = ScriptedChatModel([calls(("look", {"at": question})), answer])
        state = await invoke(create_agent(model, [look], checkpointer=new_storage().checkpointer), {"messages": [("user", question)]})
    assert [message.text for message in state["messages"]] == ["one", "", "saw one", "first", "two", "", "saw two", "second"]


async def test_a_person_s_word_comes_after_a_restart(invoke: Invoke, new_storage: New) -> None:
    def agent(*replies: Any) -> Any:
        middleware: Any = [HumanInTheLoopMiddleware({"look": True}), ModelCallLimitMiddleware(thread_limit=5)]
        return create_agent(ScriptedChatModel(replies), [look], middleware=middleware, checkpointer=new_storage().checkpointer)

    waits = await invoke(agent(calls(("look", {"at": "it"}))), {"messages": [("user", "look")]})
    assert waits["__interrupt__"]
    state = await invoke(agent("done"), Command(resume={"decisions": [{"type": "approve"}]}))
    assert state["messages"][-1].text == "done"


class Tally(TypedDict):
    numbers: Annotated[list[int], operator.add]


async def test_fan_out_subgraphs_and_history_of_any_graph(invoke: Invoke, new_storage: New) -> None:
    inner = StateGraph(Tally).add_node("one", lambda state: {"numbers": [len(state["numbers"])]}).add_edge(START, "one").compile()
    outer = StateGraph(Tally).add_node("inner", inner).add_node("leaf", lambda state: {"numbers": state["numbers"]})
    outer.add_conditional_edges(START, lambda _: [Send("leaf", {"numbers": [n]}) for n in range(3)], ["leaf"])
    graph: Any = outer.add_edge("leaf", "inner").add_edge("inner", END).compile(checkpointer=new_storage().checkpointer)
    state = await invoke(graph, {"numbers": [7]})
    assert state["numbers"][:4] == [7, 0, 1, 2]
    reopened = new_storage().checkpointer
    history = [checkpoint async for checkpoint in reopened.alist(THREAD)]
    assert history[0].checkpoint["channel_values"]["numbers"] == state["numbers"]


async def test_many_loops_and_threads_share_it(new_storage: New) -> None:
    storage = new_storage()
    agent = create_agent(ScriptedChatModel(["hello"], last_forever=True), checkpointer=storage.checkpointer)

    def talk(name: str) -> None:
        config: Any = {"configurable": {"thread_id": name}}
        asyncio.run(agent.ainvoke({"messages": [("user", "hi")]}, config))
        agent.invoke({"messages": [("user", "hi")]}, config)

    threads = [threading.Thread(target=talk, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    for n in range(4):
        state = await agent.aget_state({"configurable": {"thread_id": f"thread {n}"}})
        assert len(state.values["messages"]) == 4
