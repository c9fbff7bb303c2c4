"""Makes the storage file of the present schema that stays in tests/data for ever: `python -m tests.storage.make_released`, once a version.

It is what an application left behind: a run of two finished turns ("done"), and a turn whose process was killed inside a payment
("cut"), so that a call that must not be repeated is in doubt. test_formats.py opens, migrates and resumes each.
"""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from agent_graph import ProductionAgent
from agent_graph.storage.schema import VERSION
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

ROOT = Path(__file__).parents[2]
TOOLS: list[dict[str, Any]] = [
    {"name": "look", "parameters": {"where": {"type": "string"}}, "idempotent": True},
    {"name": "pay", "parameters": {"amount": {"type": "integer"}}, "idempotent": False},
]


def agent_over(storage: str | Path | SqliteStorage, paid: list[int]) -> ProductionAgent:
    """Return the application's agent: it looks, pays, and answers with what it was told; paying 666 kills the process."""

    def answer(messages: Any, tools: Any) -> Any:
        last = messages[-1]
        if last.role.value == "user":
            return call("look", where="Zürich")
        if last.metadata.get("name") == "look":
            task = next(message.content for message in reversed(messages) if message.role.value == "user")
            return call("pay", amount=int(task.split()[-1]))
        return f"I was told: {last.content}"

    def pay(amount: int) -> str:
        if amount == 666:
            os.kill(os.getpid(), signal.SIGKILL)
        paid.append(amount)
        return f"receipt for {amount}"

    llm = ScriptedLLM([answer] * 50, cost_usd=0.001, usage=(10, 5))
    tools = FakeTools({"look": lambda where: {"sky": f"clear over {where}", "celsius": 21.5}, "pay": pay})
    return ProductionAgent(llm, TOOLS, tools, DictMemory(), ListObservability(), {}, storage=storage, name="app")


async def _live(path: Path) -> None:
    agent = agent_over(path, [])
    await agent.run("pay 5", "done", request_id="job-1")
    await agent.run("pay 7", "done")
    await agent.run("pay 666", "cut")


def make(path: Path) -> None:
    """Write the file at `path`."""
    code = f"import asyncio, pathlib; from tests.storage.make_released import _live; asyncio.run(_live(pathlib.Path({str(path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:  # the last to close it folds the WAL into it
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "runs.db"
        make(made)
        target = ROOT / "tests" / "data" / f"storage-{VERSION}.db.gz"
        target.write_bytes(gzip.compress(made.read_bytes(), mtime=0))
        print(f"{target}: {target.stat().st_size:,} bytes")
