"""LangGraph as it comes: `create_agent` with the SQLite saver of langgraph-checkpoint-sqlite, used with care.

The most careful use that its own means allow: every superstep is on disk before the next one (`durability="sync"`), and a resume
asks whether tasks are left, not whether `next` is empty. The model, the tools and what they do to the world are those of our agent.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agent_graph.testing.crash import Account, RecordedCall, Said, TurnAccount, World
from agent_graph.testing.crash.world import views_of
from tests.crash.scenario import CALL_S, COST_USD, SCRIPT, TASK

CONFIG: Any = {"configurable": {"thread_id": "crash"}}


@dataclass(frozen=True)
class StockSubject:
    """`create_agent` as a subject of the harness."""

    durability: Literal["sync", "async"] = "sync"

    def prepare(self) -> None:
        """Nothing can be done beforehand."""

    async def attempt(self, world: World, *, resume: bool) -> None:
        async with AsyncSqliteSaver.from_conn_string(str(world.storage)) as saver:
            agent = _agent(world, saver)
            state = await agent.aget_state(CONFIG)
            if state.created_at and not state.tasks:
                return
            begin = None if state.created_at else {"messages": [HumanMessage(TASK)]}
            world.begins()
            await agent.ainvoke(begin, CONFIG, durability=self.durability)

    async def account(self, world: World) -> Account:
        async with AsyncSqliteSaver.from_conn_string(str(world.storage)) as saver:
            state = await _agent(world, saver).aget_state(CONFIG)
        messages = state.values.get("messages", [])
        replies = [message for message in messages if isinstance(message, AIMessage)]
        turn = TurnAccount(
            status="running" if state.tasks else "complete",
            output=messages[-1].text if messages else None,
            steps=len(replies),
            cost_usd=COST_USD * len(replies),
            uncertain_usd=Decimal(0),
            calls=_calls(messages),
        )
        said = [
            Said(role=v.role, text=m.text, call_ids=v.calls, answers=v.answers) for m, v in zip(messages, views_of(messages), strict=True)
        ]
        return Account(turns=(turn,), transcript=tuple(said), idempotent={"look": True, "pay": False})


def _agent(world: World, saver: AsyncSqliteSaver) -> Any:
    async def act(name: str, call_id: str, what: str) -> str:
        await asyncio.sleep(CALL_S)
        world.effect(tool=name, key=call_id, call_id=call_id)
        await asyncio.sleep(CALL_S)
        return f"{what} is done"

    @tool
    async def look(what: str, call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Look at something."""
        return await act("look", call_id, what)

    @tool
    async def pay(what: str, call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Pay something."""
        return await act("pay", call_id, what)

    return create_agent(world.chat_model(SCRIPT, cost_usd=COST_USD, latency_s=CALL_S), [look, pay], checkpointer=saver)


def _calls(messages: list[Any]) -> tuple[RecordedCall, ...]:
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return tuple(
        RecordedCall(
            tool=call["name"],
            args=json.dumps(call["args"], sort_keys=True),
            call_id=call["id"],
            key=call["id"],
            state="recorded",
            result=json.dumps(answers[call["id"]].text),
        )
        for call in calls
        if call["id"] in answers
    )
