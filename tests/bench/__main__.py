"""The benchmark: ours, stock LangGraph and a loop written by hand, side by side in one process.

    make bench                       every figure, a few minutes; the tables of docs/benchmarks.md
    python tests/bench --quick       in under 40 s, with fewer rounds and without the task that waits

Prints markdown; says on standard error what is going on. The exit code is 0 also where a goal is missed: times are for people to
judge. What can be counted is held by tests/bench/test_counts.py.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# A developer's keys must not switch tracing on for one of the ways.
for name in [name for name in os.environ if name.startswith(("LANGCHAIN_", "LANGSMITH_", "AGENT_GRAPH_"))]:
    del os.environ[name]
sys.path[0] = str(Path(__file__).parents[2])

from tests.bench.figures import FULL, QUICK, measured  # noqa: E402  the line above says where it is
from tests.bench.report import report  # noqa: E402  as above


def main() -> None:
    began = time.monotonic()

    def say(what: str) -> None:
        load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(f"{time.monotonic() - began:5.0f} s  {what}  {load}", file=sys.stderr, flush=True)

    print(report(measured(QUICK if "--quick" in sys.argv[1:] else FULL, say)))
    say("done")


if __name__ == "__main__":
    main()
