"""What is measured in processes of their own (child.py), and against the clock: imports, resuming, waiting."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.bench.child import DIED
from tests.bench.ways import MODEL_S, TOOL_S

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


def p95_ratio(way: str, *, rounds: int) -> float:
    """Return the 95th percentile of a 10-step task that waits, over the sum of its waits, a hundred of them at once."""
    return median(float(_child("wait", way, STEPS)) for _ in range(rounds)) / WAITS_S
