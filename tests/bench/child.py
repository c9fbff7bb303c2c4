"""What is measured in a process of its own: imports, and resuming after a death. Prints one number.

python tests/bench/child.py import MODULE                    CPU milliseconds of importing MODULE
python tests/bench/child.py die|resume ours|stock FILE N     dies inside the N-th tool call; resumes, and prints the milliseconds of
                                                             wall time from the call that resumes to the first thing that runs
python tests/bench/child.py wait ours|stock N                the 95th percentile of 100 runs at once, of N steps that wait, in seconds
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

DIED = 17


def import_ms(module: str) -> float:
    began = time.process_time()
    importlib.import_module(module)
    return (time.process_time() - began) * 1_000


class _Moment:
    """The instant at which a tool call ends the process."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.began: float | None = None

    def passes(self, step: int) -> None:
        if self.began is not None:
            print((time.perf_counter() - self.began) * 1_000, flush=True)
            os._exit(0)
        if step == self.at:
            os._exit(DIED)


def _tool(moment: _Moment) -> Any:
    from langchain_core.tools import tool

    from tests.bench.task import result

    @tool("work", extras={"idempotent": True})
    async def work(step: int, steps: int) -> str:
        """Do one unit of work."""
        moment.passes(step)
        return result(step, steps)

    return work


async def ours(path: Path, steps: int, *, resume: bool) -> None:
    from tests.bench import task, ways

    moment = _Moment(steps)
    agent = ways.agent(path, tool=_tool(moment))
    if resume:
        moment.began = time.perf_counter()
        await agent.resume("run")
    else:
        await agent.run(task.question(steps + 1), "run")


async def stock(path: Path, steps: int, *, resume: bool) -> None:
    from langchain.agents import create_agent
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from tests.bench import task

    moment = _Moment(steps)
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        graph: Any = create_agent(task.Model(), [_tool(moment)], checkpointer=saver)
        config = {"configurable": {"thread_id": "run"}, "recursion_limit": 10 * steps + 50}
        begin = None if resume else {"messages": [("user", task.question(steps + 1))]}
        if resume:
            moment.began = time.perf_counter()
        await graph.ainvoke(begin, config, durability="sync")


async def waiting(name: str, steps: int) -> float:
    from tests.bench import task, ways

    way = ways.SLOW if name == "ours" else ways.SLOW_STOCK
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with way.open(Path(folder) / "runs.db") as run:
            await run("warm-up", 1)

            async def timed(number: int) -> float:
                began = time.perf_counter()
                assert await run(f"run-{number}", steps) == task.answer(steps)
                return time.perf_counter() - began

            return quantiles(await asyncio.gather(*map(timed, range(100))), n=20)[-1]


def main(argv: list[str]) -> None:
    sys.path[0] = str(Path(__file__).parents[2])
    match argv:
        case ["import", module]:
            print(import_ms(module))
        case ["die" | "resume" as what, "ours" | "stock" as way, path, steps]:
            run = ours if way == "ours" else stock
            asyncio.run(run(Path(path), int(steps), resume=what == "resume"))
        case ["wait", way, steps]:
            print(asyncio.run(waiting(way, int(steps))))


if __name__ == "__main__":
    main(sys.argv[1:])
