"""All of our middleware in one agent, in the order that docs/middleware.md gives, and beside LangChain's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import ContextEditingMiddleware, HumanInTheLoopMiddleware, TodoListMiddleware, ToolCallLimitMiddleware
from langchain_core.messages import AIMessageChunk, AnyMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import BaseModel
from typing_extensions import TypedDict

from agent_graph import SqliteStorage
from agent_graph.testing import ScriptedChatModel
from agent_graph_adapters.langchain import (
    BudgetMiddleware,
    CompressionMiddleware,
    GuardrailMiddleware,
    RetryMiddleware,
    ToolJournalMiddleware,
)
from tests.adapters.langchain.middleware.somebodys import THREAD, calls

Invoke = Callable[..., Any]
New = Callable[[], SqliteStorage]
HELLO: Any = {"messages": [("user", "Look at it, please.")]}


@tool(extras={"idempotent": True})
def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


def ours(storage: SqliteStorage) -> list[Any]:
    return [
        CompressionMiddleware(compression_threshold=2_000),
        GuardrailMiddleware(),
        RetryMiddleware(),
        ToolJournalMiddleware(storage=storage),
        BudgetMiddleware(max_steps=10, max_cost_usd=1, max_tokens=50_000, timeout_s=60, storage=storage),
    ]


def looking() -> ScriptedChatModel:
    return ScriptedChatModel(
        [calls(("look", {"at": "a"}), ("look", {"at": "b"})), TimeoutError("once"), calls(("look", {"at": "c"})), "done"]
    )


async def checkpoints(storage: SqliteStorage) -> int:
    return len([checkpoint async for checkpoint in storage.checkpointer.alist(THREAD)])


async def test_together_they_cost_no_superstep(invoke: Invoke, new_storage: New, tmp_path: Any) -> None:
    plain, guarded = SqliteStorage(tmp_path / "plain.db"), new_storage()
    model = ScriptedChatModel([calls(("look", {"at": "a"}), ("look", {"at": "b"})), calls(("look", {"at": "c"})), "done"])
    await invoke(create_agent(model, [look], checkpointer=plain.checkpointer), HELLO)
    state = await invoke(create_agent(looking(), [look], middleware=ours(guarded), checkpointer=guarded.checkpointer), HELLO)
    assert [message.text for message in state["messages"] if message.text] == ["Look at it, please.", "saw a", "saw b", "saw c", "done"]
    assert await checkpoints(guarded) == await checkpoints(plain)
    (run,) = await guarded.runs("create_agent")
    assert [row.state for row in await guarded.journal(run.key)] == ["succeeded"] * 3
    assert [(row.state, row.used) for row in await guarded.ledger(run.key)] == [
        ("settled", True),
        ("unsettled", False),
        ("settled", True),
        ("settled", True),
    ]
    await plain.close()


async def test_structured_output(invoke: Invoke, new_storage: New) -> None:
    class Answer(BaseModel):
        """What was seen."""

        seen: list[str]

    storage = new_storage()
    model = ScriptedChatModel([calls(("look", {"at": "a"})), calls(("Answer", {"seen": ["a"]}))])
    agent = create_agent(model, [look], middleware=ours(storage), response_format=Answer, checkpointer=storage.checkpointer)
    state = await invoke(agent, HELLO)
    assert state["structured_response"] == Answer(seen=["a"])


async def test_streamed(new_storage: New) -> None:
    storage = new_storage()
    agent = create_agent(looking(), [look], middleware=ours(storage), checkpointer=storage.checkpointer)
    text = ""
    async for chunk, _ in agent.astream(HELLO, THREAD, stream_mode="messages"):
        text += chunk.text if isinstance(chunk, AIMessageChunk) else ""
    assert text == "done"


async def test_beside_langchain_s_own(invoke: Invoke, new_storage: New) -> None:
    storage = new_storage()
    theirs: list[Any] = [
        TodoListMiddleware(),
        ContextEditingMiddleware(),
        ToolCallLimitMiddleware(run_limit=5),
        HumanInTheLoopMiddleware({"look": True}),
    ]
    agent = create_agent(
        ScriptedChatModel([calls(("look", {"at": "a"})), "done"]),
        [look],
        middleware=[*theirs, *ours(storage)],
        checkpointer=storage.checkpointer,
    )
    await invoke(agent, HELLO)
    state = await invoke(agent, Command(resume={"decisions": [{"type": "edit", "edited_action": {"name": "look", "args": {"at": "b"}}}]}))
    looked, done = (message.text for message in state["messages"][-2:])
    assert looked.endswith("saw b")
    assert done == "done"


async def test_conversations_at_once_keep_apart(new_storage: New) -> None:
    storage = new_storage()

    def says(messages: Any) -> Any:
        return calls(("look", {"at": messages[-1].text})) if len(messages) % 4 == 1 else "done"

    model = ScriptedChatModel([says], last_forever=True)
    agent = create_agent(model, [look], middleware=ours(storage), checkpointer=storage.checkpointer)

    async def talk(name: str) -> list[str]:
        config: Any = {"configurable": {"thread_id": name}}
        for n in range(2):
            state = await agent.ainvoke({"messages": [("user", f"{name} {n}")]}, config)
        return [message.text for message in state["messages"] if message.text.startswith("saw")]

    seen = await asyncio.gather(*(talk(f"thread {n}") for n in range(6)))
    assert seen == [[f"saw thread {n} 0", f"saw thread {n} 1"] for n in range(6)]


class Conversation(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


async def test_the_journal_serves_any_tool_node(invoke: Invoke, new_storage: New) -> None:
    storage, model = new_storage(), ScriptedChatModel([calls(("look", {"at": "a"})), "done"])
    journal = ToolJournalMiddleware(storage=storage)
    node = ToolNode([look], wrap_tool_call=journal.wrap_tool_call, awrap_tool_call=journal.awrap_tool_call)
    graph = (
        StateGraph(Conversation).add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]}).add_node("tools", node)
    )
    graph.add_edge(START, "model").add_edge("model", "tools")
    state = await invoke(graph.compile(checkpointer=storage.checkpointer), HELLO)
    assert state["messages"][-1].text == "saw a"
    (run,) = await storage.runs("create_agent")
    assert [row.state for row in await storage.journal(run.key)] == ["succeeded"]
