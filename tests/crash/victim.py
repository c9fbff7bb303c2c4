"""A process that dies in the middle of its work: run by test_resume.py and test_told.py, as `victim.py FOLDER DIES_AT [resume]`.

Its model makes three steps (look, then pay and look at once, then the answer). Everything that it does to the world is a line in
`effects.log`, what it tells of its turns one in `told.log`, of its tool calls one in `calls.log`, each written in one call, so that a
killed process leaves what really happened. DIES_AT is a moment named here, or a failpoint.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from agent_graph import AgentRun, LLMBackend, Message, MessageRole, ProductionAgent, ToolBackend, ToolCall
from agent_graph.failpoints import arm
from agent_graph.storage.port import Storage, TurnKey

TOOLS: list[dict[str, Any]] = [{"name": "look", "idempotent": True}, {"name": "pay", "idempotent": False}]
SCRIPT: list[list[str]] = [["look"], ["pay", "look"], []]


class World:
    """What happens outside the program, and the instant at which the program dies."""

    def __init__(self, folder: Path, dies_at: str) -> None:
        self._folder = folder
        self._dies_at = dies_at

    def happens(self, what: str, log: str = "effects.log") -> None:
        with (self._folder / log).open("a") as file:
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


class Witness:
    """Writes down what it is told; before it does, everything that was queued for the disk is there."""

    storage: Storage

    def __init__(self, world: World) -> None:
        self._world = world

    def record_run(self, run: AgentRun) -> None:
        asyncio.run(self.storage.durable(TurnKey("default", run.run_id, run.turn)))
        self._world.moment("while it is told")
        self._world.happens(f"{run.run_id} {run.turn} {run.status} {run.steps} {run.output}", "told.log")

    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        asyncio.run(self.storage.durable(TurnKey("default", run_id, 1)))
        self._world.moment(f"while {call.call_id} is told")
        self._world.happens(f"{call.call_id} {call.idempotency_key} {call.result}", "calls.log")


def agent_in(folder: Path, dies_at: str = "", **config: Any) -> ProductionAgent:
    world = World(folder, dies_at)
    witness = Witness(world)
    agent = ProductionAgent(Model(world), TOOLS, Tools(world), Memory(), witness, config, storage=folder / "runs.db", name="victim")  # type: ignore[arg-type]  # by shape
    witness.storage = agent.storage
    vars(agent.recorder)["delivered"] = partial(agent.recorder.delivered, wait_s=60.0)  # a loaded machine is no slow backend
    return agent


async def main(folder: Path, dies_at: str, resume: bool) -> None:
    agent = agent_in(folder, dies_at)
    arm(World(folder, dies_at).moment)
    await (agent.resume("r") if resume else agent.run("do it", "r"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], "resume" in sys.argv[3:]))
