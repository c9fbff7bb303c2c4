"""A process that dies in the middle of its work: run by test_resume.py, as `victim.py FOLDER DIES_AT [resume]`.

Its model makes three steps (look, then pay and look at once, then the answer). Everything that it does to the world is a line in
`effects.log`, written in one call, so that a killed process leaves what really happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agent_graph import LLMBackend, Message, MessageRole, ProductionAgent, ToolBackend, ToolCall

TOOLS: list[dict[str, Any]] = [{"name": "look", "idempotent": True}, {"name": "pay", "idempotent": False}]
SCRIPT: list[list[str]] = [["look"], ["pay", "look"], []]


class World:
    """What happens outside the program, and the instant at which the program dies."""

    def __init__(self, folder: Path, dies_at: str) -> None:
        self._log = folder / "effects.log"
        self._dies_at = dies_at

    def happens(self, what: str) -> None:
        with self._log.open("a") as file:
            file.write(what + "\n")

    def moment(self, name: str) -> None:
        if name == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Model(LLMBackend):
    def __init__(self, world: World) -> None:
        self._world = world

    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        step = sum(message.role is MessageRole.ASSISTANT for message in messages)
        self._world.moment(f"before model {step}")
        self._world.happens(f"model {step}")
        calls = [{"id": f"c{step}.{n}", "name": name, "args": {"step": step}} for n, name in enumerate(SCRIPT[step])]
        told = " | ".join(message.content for message in messages if message.role is MessageRole.TOOL)
        return Message(MessageRole.ASSISTANT, "" if calls else f"told: {told}", {"tool_calls": calls, "cost_usd": 0.001})

    def count_tokens(self, messages: list[Message]) -> int:
        return len(messages)


class Tools(ToolBackend):
    def __init__(self, world: World) -> None:
        self._world = world

    async def execute(self, call: ToolCall) -> ToolCall:
        self._world.moment(f"before {call.tool_name} {call.args['step']}")
        self._world.happens(f"{call.tool_name} {call.args['step']} {call.idempotency_key}")
        self._world.moment(f"after {call.tool_name} {call.args['step']}")
        call.result = f"{call.tool_name} done"
        return call


class Memory:
    """Remembers in a file, so that it outlives the process."""

    async def load(self, run_id: str) -> list[Message]:
        return []

    async def save(self, run_id: str, messages: list[Message]) -> None:
        return None


class Nobody:
    def record_run(self, run: Any) -> None:
        return None

    def record_tool_call(self, call: Any, run_id: str) -> None:
        return None


def agent_in(folder: Path, dies_at: str = "") -> ProductionAgent:
    world = World(folder, dies_at)
    return ProductionAgent(Model(world), TOOLS, Tools(world), Memory(), Nobody(), {}, storage=folder / "runs.db", name="victim")  # type: ignore[arg-type]  # by shape


async def main(folder: Path, dies_at: str, resume: bool) -> None:
    agent = agent_in(folder, dies_at)
    await (agent.resume("r") if resume else agent.run("do it", "r"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], "resume" in sys.argv[3:]))
