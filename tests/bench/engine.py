"""The engine: what LangGraph and LangChain themselves take for a step of this shape.

The same two supersteps a step, the same saver, message channel and barriers as the agent's, and nodes that decide nothing: no
limits, prices, rails, validation, ledger, journal, retries or timeouts, the tool's body called as it is. What the agent takes
beyond this is this project's own; what stands here is out of its reach.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from agent_graph.state import messages_channel
from agent_graph.storage.port import TurnRequest, thread_id_of
from agent_graph.storage.sqlite import SqliteStorage
from tests.bench import task
from tests.bench.ways import Run, Way

__all__ = ["ENGINE"]


class State(TypedDict):
    """What grows, and what a `Send` carries."""

    messages: Annotated[list[AnyMessage], messages_channel()]


@contextlib.asynccontextmanager
async def _engine(path: Path) -> AsyncIterator[Run]:
    storage, model = SqliteStorage(path), task.Model()

    async def call_model(state: State) -> Command[Any]:
        await storage.writer.durable()
        reply: AIMessage = await model.ainvoke(state["messages"])
        sends = [Send("run_tool", call) for call in reply.tool_calls]
        return Command(update={"messages": [reply]}, goto=sends or END)

    async def run_tool(call: Any) -> dict[str, Any]:
        await storage.writer.durable()
        result = task.result(**call["args"])
        return {"messages": [ToolMessage(result, tool_call_id=call["id"], name=call["name"], id=str(uuid4()))]}

    graph: Any = StateGraph(State)
    graph.add_node("call_model", call_model, destinations=("run_tool", END))
    graph.add_node("run_tool", run_tool)
    graph.add_edge(START, "call_model")
    graph.add_edge("run_tool", "call_model")
    compiled = graph.compile(checkpointer=storage.checkpointer)

    async def run(run_id: str, steps: int) -> str:
        request = TurnRequest(
            namespace="default", run_id=run_id, agent="engine", input="", request_id=None, fingerprint="", on_unfinished="conflict"
        )
        claim = await storage.claim(request, asyncio.current_task())
        assert claim.turn is not None
        config = {"configurable": {"thread_id": thread_id_of("default", run_id)}, "recursion_limit": 10 * steps + 50}
        begin = {"messages": [HumanMessage(task.question(steps))]}
        async for _ in compiled.astream(begin, config, stream_mode=[], durability="sync"):
            pass
        await storage.durable(claim.turn.key)
        done = await compiled.aget_state(config)
        await storage.release(claim.turn.key, fence=claim.fence)
        return str(done.values["messages"][-1].text)

    yield run
    await storage.close()


ENGINE = Way("LangGraph's engine alone, our saver", _engine)
