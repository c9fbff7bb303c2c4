"""A process is killed between two steps or inside one; another finishes its turn. Judged by what happened outside the program."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from agent_graph import RunConflict, RunNotFound

VICTIM = Path(__file__).with_name("victim.py")
_spec = importlib.util.spec_from_file_location("victim", VICTIM)
assert _spec is not None
assert _spec.loader is not None
victim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(victim)


def kill(folder: Path, dies_at: str, *more: str) -> None:
    process = subprocess.run([sys.executable, str(VICTIM), str(folder), dies_at, *more], timeout=60, capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


def effects(folder: Path) -> list[str]:
    return (folder / "effects.log").read_text().splitlines()


MOMENTS = [
    "before model 0",
    "before look 0",
    "after look 0",
    "before model 1",
    "before pay 1",
    "after pay 1",
    "after look 1",
    "before model 2",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "how"), [*((moment, "run") for moment in MOMENTS), ("before model 1", "resume"), ("after pay 1", "resume")]
)
async def test_a_killed_turn_is_finished(tmp_path: Path, moment: str, how: str) -> None:
    kill(tmp_path, moment)
    agent = victim.agent_in(tmp_path)
    assert await agent.unfinished() == ["r"]
    run = await (agent.run("do it", "r") if how == "run" else agent.resume("r"))
    seen = Counter(line.rsplit(" ", 1)[0] if line.startswith(("look", "pay")) else line for line in effects(tmp_path))

    assert run.status == "complete"
    assert run.steps == 3
    assert [call.tool_name for call in run.tool_calls] == ["look", "pay", "look"], "the account covers the part before the crash"
    assert seen["pay 1"] == (0 if moment == "before pay 1" else 1), "never run twice; where it is not known whether it ran, not again"
    assert seen["look 0"] == (2 if moment == "after look 0" else 1), "only a call that was cut is repeated"
    assert len({line for line in effects(tmp_path) if line.startswith("look 0")}) == 1, "under the same key"
    assert await agent.unfinished() == []
    if moment in ("before pay 1", "after pay 1"):
        assert "unknown" in (run.output or ""), "the model is told"
    calls = sum(count for what, count in seen.items() if what.startswith("model"))
    billed = 0.001 * calls
    assert run.total_cost_usd <= billed + 1e-9 <= run.total_cost_usd + run.cost_uncertain_usd + 0.001 + 1e-9
    await agent.aclose()


@pytest.mark.slow
async def test_killed_again_while_it_resumes(tmp_path: Path) -> None:
    kill(tmp_path, "after look 0")
    kill(tmp_path, "after pay 1", "resume")
    kill(tmp_path, "before model 2", "resume")
    agent = victim.agent_in(tmp_path)
    run = await agent.resume("r")
    assert (run.status, run.steps) == ("complete", 3)
    assert sum(line.startswith("pay") for line in effects(tmp_path)) == 1
    await agent.aclose()


@pytest.mark.slow
async def test_another_input_does_not_run_over_a_dead_turn(tmp_path: Path) -> None:
    kill(tmp_path, "before model 1")
    agent = victim.agent_in(tmp_path)
    with pytest.raises(RunConflict, match="unfinished"):
        await agent.run("something else", "r")
    assert (await agent.get("r")).status == "running"
    assert (await agent.get("r")).steps == 1
    run = await agent.run("do it", "r")
    assert run.turn == 1
    with pytest.raises(RunNotFound):
        await agent.resume("r")
    await agent.aclose()
