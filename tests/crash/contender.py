"""An agent in a process of its own, told what to do line by line; what it does to the world is a line in a file.

`contender.py FOLDER`: reads `run RUN_ID INPUT REQUEST_ID`, answers with one line of JSON.
`contender.py FOLDER FAILPOINT`: begins the turn "r" under a short lease, says "at FAILPOINT" when it has come there, and goes on when
it is given a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent_graph import ProductionAgent
from agent_graph.failpoints import arm
from agent_graph.storage.port import Claim, TurnRequest
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

PAY: dict[str, Any] = {"name": "pay", "idempotent": False}
LEASE_S = 1.0


class ShortLeases(SqliteStorage):
    """Leases that run out soon, so that a test need not wait for half a minute."""

    async def claim(self, request: TurnRequest, owner: object) -> Claim:
        return await super().claim(replace(request, lease_s=LEASE_S), owner)


class World:
    """What really happened, by run: appended in one write, so that several processes may tell."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "world.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def happens(self, what: str) -> None:
        os.write(self._file, f"{what}\n".encode())


def agent_in(folder: Path, storage: SqliteStorage | None = None, *, pay_s: float = 0.0) -> ProductionAgent:
    """Return an agent that pays once and answers; its model and its tool tell the world."""
    world = World(folder)

    def answer(messages: Any, tools: Any) -> Any:
        world.happens(f"model {messages[-1].role.value}")
        return call("pay", purpose=messages[-1].content) if messages[-1].role.value == "user" else f"It is {messages[-1].content}."

    async def pay(purpose: str) -> str:
        world.happens(f"pay {purpose}")
        await asyncio.sleep(pay_s)
        return "paid"

    tools, memory = FakeTools({"pay": pay}), DictMemory()
    return ProductionAgent(
        ScriptedLLM([answer] * 10_000), [PAY], tools, memory, ListObservability(), {}, storage=storage or folder / "runs.db"
    )


async def outcome(agent: ProductionAgent, run_id: str, text: str, request_id: str | None) -> dict[str, Any]:
    """Return what `run` came to: the AgentRun's essence, or the error's name."""
    try:
        run = await agent.run(text, run_id, request_id=request_id)
        return {"status": run.status, "turn": run.turn, "output": run.output, "calls": len(run.tool_calls), "steps": run.steps}
    except Exception as error:
        return {"error": type(error).__name__}


async def _contend(folder: Path) -> None:
    agent = agent_in(folder, pay_s=0.01)
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        print(json.dumps(await outcome(agent, line[0], line[1], line[2])), flush=True)
    await agent.aclose()


async def _stop_at(folder: Path, place: str) -> None:
    waited = False

    def hook(name: str) -> None:
        nonlocal waited
        if name == place and not waited:
            waited = True
            print(f"at {name}", flush=True)
            sys.stdin.readline()

    arm(hook)
    agent = agent_in(folder, ShortLeases(folder / "runs.db"))
    print(json.dumps(await outcome(agent, "r", "rent", None)), flush=True)
    os._exit(0)  # its storage has nothing more to say


if __name__ == "__main__":
    asyncio.run(_stop_at(Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else _contend(Path(sys.argv[1])))
