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

from tests.bench import task
from tests.bench.child import DIED
from tests.bench.ways import MODEL_S, TOOL_S, Way

__all__ = ["STEPS", "WAITS_S", "import_ratio", "p95_ratio", "resume_ms"]

CHILD = Path(__file__).with_name("child.py")
STEPS = 10
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


def p95_ratio(way: Way, *, concurrency: int) -> float:
    """Return the 95th percentile of a 10-step task that waits, over the sum of its waits, `concurrency` of them at once."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_p95_s(way, Path(folder) / "runs.db", concurrency)) / WAITS_S


async def _p95_s(way: Way, path: Path, concurrency: int) -> float:
    async with way.open(path) as run:
        await run("warm-up", 1)

        async def timed(number: int) -> float:
            began = time.perf_counter()
            assert await run(f"run-{number}", STEPS) == task.answer(STEPS)
            return time.perf_counter() - began

        return quantiles(await asyncio.gather(*map(timed, range(concurrency))), n=20)[-1]
