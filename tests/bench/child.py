"""What is measured in a process of its own: imports, and resuming after a death. Prints one number.

python tests/bench/child.py import MODULE                    CPU milliseconds of importing MODULE
python tests/bench/child.py die|resume ours|stock FILE N     dies inside the N-th tool call; resumes, and prints the milliseconds of
                                                             wall time from the call that resumes to the first thing that runs
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from pathlib import Path
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


def main(argv: list[str]) -> None:
    sys.path[0] = str(Path(__file__).parents[2])
    match argv:
        case ["import", module]:
            print(import_ms(module))
        case ["die" | "resume" as what, "ours" | "stock" as way, path, steps]:
            run = ours if way == "ours" else stock
            asyncio.run(run(Path(path), int(steps), resume=what == "resume"))


if __name__ == "__main__":
    main(sys.argv[1:])
