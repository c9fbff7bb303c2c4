"""What is measured in processes of their own (child.py), and against the clock: imports, resuming, waiting."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from tests.bench import task, ways
from tests.bench.child import DIED

__all__ = ["MODEL_S", "STEPS", "TOOL_S", "WAITS_S", "import_ratio", "p95_s", "resume_ms"]

CHILD = Path(__file__).with_name("child.py")
STEPS, MODEL_S, TOOL_S = 10, 1.0, 0.2
WAITS_S = STEPS * MODEL_S + (STEPS - 1) * TOOL_S
"""What a 10-step task waits for its model and its tools, seconds."""


def _child(*arguments: object, code: int = 0) -> str:
    done = subprocess.run([sys.executable, str(CHILD), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(f"{arguments}: ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def import_ratio(module: str, to: str, *, rounds: int) -> float:
    """Return the CPU time that importing `module` takes, as a part of what importing `to` takes."""
    pairs = [(float(_child("import", module)), float(_child("import", to))) for _ in range(rounds)]
    return median(one / other for one, other in pairs)


def resume_ms(way: str, *, steps: int, rounds: int) -> float:
    """Return the milliseconds from the call that resumes a run, killed in its `steps`-th tool call, to that tool's first line."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        left = Path(folder) / "left"
        left.mkdir()
        _child("die", way, left / "runs.db", steps, code=DIED)
        copies = [shutil.copytree(left, Path(folder) / str(number)) for number in range(rounds)]  # each resume is the first
        return median(float(_child("resume", way, copy / "runs.db", steps)) for copy in copies)


def p95_s(*, concurrency: int) -> float:
    """Return the 95th percentile, in seconds, of a 10-step task whose model takes 1 s and whose tool takes 0.2 s."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_p95_s(Path(folder) / "runs.db", concurrency))


async def _p95_s(path: Path, concurrency: int) -> float:
    async with ways.agent(path, model=task.Model(latency_s=MODEL_S), tool=task.slow_tool(TOOL_S)) as agent:
        await agent.run(task.question(1), "warm-up")

        async def timed(number: int) -> float:
            began = time.perf_counter()
            run = await agent.run(task.question(STEPS), f"run-{number}")
            assert run.status == "complete", run
            return time.perf_counter() - began

        return quantiles(await asyncio.gather(*map(timed, range(concurrency))), n=20)[-1]
