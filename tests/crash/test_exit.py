"""An agent that nobody closes: the interpreter ends at once, without a warning, and what was recorded is there; forks too."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_graph import create_production_agent

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
BEGIN = """
import asyncio, os, sys, threading
from agent_graph import create_production_agent
agent = create_production_agent("offline", storage=sys.argv[1])
ask = "What is 2 + 2?"
"""
ENDS = {
    "after a run": "asyncio.run(agent.run(ask, 'a'))",
    "after run_sync": "agent.run_sync(ask, 'a')",
    "with a run under way in a daemon thread": """
agent.run_sync(ask, 'a')
threading.Thread(target=lambda: agent.run_sync(ask, 'b'), daemon=True).start()
""",
    "in a forked child that goes on, and in its parent": """
agent.run_sync(ask, 'a')
pid = os.fork()
agent.run_sync(ask, 'parent' if pid else 'child')
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    assert {row.key.run_id for row in asyncio.run(agent.runs())} == {'a', 'parent', 'child'}
""",
    "forked inside a loop": """
async def work():
    await agent.run(ask, 'a')
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    assert (await agent.run(ask, 'a')).turn == 2
asyncio.run(work())
""",
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_hangs_and_nothing_warns(how: str, tmp_path: Path) -> None:
    if "fork" in ENDS[how] and not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    file = tmp_path / "runs.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + ENDS[how], str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr or "daemon" in how, "only the thread that was left behind may complain"
    assert "a" in asyncio.run(_runs(file))


async def _runs(file: Path) -> set[str]:
    async with create_production_agent("offline", storage=file) as agent:
        assert (await agent.run("What is 3 + 3?", "after")).status == "complete"
        return {row.key.run_id for row in await agent.runs()}
