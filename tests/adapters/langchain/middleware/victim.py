"""An agent made by `create_agent` that dies inside a payment: run by test_crash.py, as `victim.py FOLDER WITH MODE DIES_AT`.

WITH: "journal" or "nothing". MODE: "sync" or "async". DIES_AT: "before payment", "after payment", "after note" or "never". Everything
that it does to the world is a line in `effects.log`, written in one call, so that a killed process leaves what really happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool

from agent_graph import SqliteStorage, idempotency_key
from agent_graph_adapters.langchain import ToolJournalMiddleware

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Payer(BaseChatModel):
    """Asks for a note and a payment at once, then tells what it was told."""

    @property
    def _llm_type(self) -> str:
        return "payer"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        told = [message.text for message in messages if isinstance(message, ToolMessage)]
        reply = AIMessage("told: " + " | ".join(told))
        if not told:
            calls = [("note", {"text": "Bob gets 5"}), ("pay", {"payee": "Bob", "usd": 5})]
            reply = AIMessage("", tool_calls=[{"id": f"call_{name}", "name": name, "args": args} for name, args in calls])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def tools_in(folder: Path, dies_at: str) -> list[BaseTool]:
    def happens(what: str) -> None:
        with (folder / "effects.log").open("a") as file:
            file.write(what + "\n")

    def moment(name: str) -> None:
        if name == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @tool(extras={"idempotent": True})
    def note(text: str) -> str:
        """Write something down."""
        happens(f"note {idempotency_key()}")
        moment("after note")
        return "noted"

    @tool(extras={"idempotent": False})
    def pay(payee: str, usd: int) -> str:
        """Pay somebody."""
        moment("before payment")
        happens(f"pay {idempotency_key()}")
        moment("after payment")
        return f"paid {usd} to {payee}"

    return [note, pay]


def go(folder: Path, journaled: bool, mode: str, dies_at: str) -> str:
    storage = SqliteStorage(folder / "runs.db")
    middleware = [ToolJournalMiddleware(storage=storage)] if journaled else []
    agent = create_agent(Payer(), tools_in(folder, dies_at), middleware=middleware, checkpointer=storage.checkpointer)
    begun = agent.get_state(CONFIG).created_at is not None
    given: Any = None if begun else {"messages": [("user", "Pay Bob 5 and note it.")]}
    if mode == "sync":
        answer = agent.invoke(given, CONFIG, durability="sync")
    else:
        answer = asyncio.run(agent.ainvoke(given, CONFIG, durability="sync"))
    asyncio.run(storage.close())
    return str(answer["messages"][-1].text)


if __name__ == "__main__":
    print(go(Path(sys.argv[1]), sys.argv[2] == "journal", sys.argv[3], sys.argv[4]))
