"""The agent of `agent-graph demo crash`, and the process in which it works: `python -m agent_graph.cli.paying FOLDER BEGINS_OR_GOES_ON`.

Its bank is a file outside the agent, one line a payment, each written with a single O_APPEND write. `pay` is not idempotent. The
process that begins kills itself with SIGKILL right after the second payment has left and before `pay` can say so. The model is a
script with one rule: where the outcome of a payment is unknown, it looks at the bank's statement.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_graph.cli import words
from agent_graph.ports import LLMBackend, ToolBackend
from agent_graph.types import Message, MessageRole, ToolCall

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.events import Event

__all__ = ["BEGINS", "COST_USD", "GOES_ON", "RUN_ID", "TASK", "Bank", "agent_in"]

RUN_ID = "invoices"
TASK = "Pay the invoices A-17 (120.00) and B-04 (80.00), each once."
BEGINS, GOES_ON = "begins", "goes-on"
FATAL = "B-04"
COST_USD = 0.002
"""What the provider of this script charges for a reply."""

_TOOLS: list[dict[str, Any]] = [
    {
        "name": "pay",
        "description": "Pay an invoice: the money leaves at once.",
        "idempotent": False,
        "parameters": {"invoice": {"type": "string"}},
    },
    {"name": "statement", "description": "The payments that the bank has made.", "idempotent": True},
]


class Bank(ToolBackend):
    """Pays and remembers, in files that belong to no agent; `provider.jsonl` beside it is the model provider's own bill."""

    def __init__(self, folder: Path, *, dies: bool) -> None:
        self._file, self._dies = folder / "bank.jsonl", dies

    async def execute(self, call: ToolCall) -> ToolCall:
        """Run `pay` or `statement`."""
        await asyncio.sleep(0.05)  # a bank takes its time, and what was said before a kill should be on the screen
        if call.tool_name == "statement":
            call.result = ", ".join(f"{payment['invoice']} paid" for payment in self.payments())
            return call
        append(self._file, {"invoice": call.args["invoice"], "key": call.idempotency_key, "process": os.getpid()})
        if self._dies and call.args["invoice"] == FATAL:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has no SIGKILL; there either ends it at once
        call.result = f"receipt {len(self.payments())}"
        return call

    def payments(self) -> list[dict[str, Any]]:
        """Return every payment that was made, in order."""
        return lines_of(self._file)


def append(file: Path, line: dict[str, Any]) -> None:
    """Write one line in one write: it is there, or it is not, whatever happens to this process."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the lines of such a file; none where there is no file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


class _Script(LLMBackend):
    """Pays one invoice after the other; looks at the statement where it is told that an outcome is unknown."""

    def __init__(self, folder: Path) -> None:
        self._bill = folder / "provider.jsonl"

    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        append(self._bill, {"usd": COST_USD, "process": os.getpid()})
        asked = [call["name"] for message in messages for call in message.metadata.get("tool_calls") or ()]
        newest = messages[-1].content
        if asked.count("pay") < 2:
            return _calls(f"pay-{len(asked) + 1}", "pay", {"invoice": ["A-17", FATAL][len(asked)]})
        if "unknown" in newest and "statement" not in asked:
            return _calls("statement", "statement", {})
        said = f"the bank's statement says: {newest}" if "statement" in asked else newest
        return _reply(f"Both invoices are paid, each once ({said}).", {})

    def count_tokens(self, messages: list[Message]) -> int:
        return sum(4 + len(message.content) // 4 for message in messages)


def _calls(call_id: str, name: str, args: dict[str, Any]) -> Message:
    return _reply("", {"tool_calls": [{"id": call_id, "name": name, "args": args}]})


def _reply(text: str, more: dict[str, Any]) -> Message:
    return Message(MessageRole.ASSISTANT, text, {"cost_usd": COST_USD, "usage": {"input_tokens": 120, "output_tokens": 20}, **more})


def agent_in(folder: Path, *, dies: bool = False) -> ProductionAgent:
    """Return the agent whose storage and bank are in `folder`."""
    from agent_graph.agent import ProductionAgent

    storage = folder / "runs.db"
    return ProductionAgent(_Script(folder), _TOOLS, Bank(folder, dies=dies), None, None, {"max_cost_usd": 0.05}, storage=storage)  # type: ignore[arg-type]  # None: the agent's own memory, and nobody to tell


async def _work(folder: Path, *, begins: bool) -> None:
    async with agent_in(folder, dies=begins) as agent:
        events: AsyncIterator[Event] = agent.stream(TASK, RUN_ID) if begins else agent.stream_resume(RUN_ID)
        async for event in events:
            line = words.event_line(event)
            if line is not None:
                print(f"   {line}", flush=True)


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), begins=sys.argv[2] == BEGINS))
