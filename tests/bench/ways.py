"""The ways of running the task that are compared.

A way is opened on a fresh file and then runs the task under any number of run_ids, one after the other or at once.

    ours        `agent_graph`, as it comes: reservation, journal, checkpoint, memory and lease on disk, a limit on money, one rail
    stock       `langchain.agents.create_agent`, with or without two hooks (a budget before the model, a rail after it), with
                LangGraph's `AsyncSqliteSaver` under `durability="sync"` or "async" (its default), or with nothing
    floor       a loop written by hand (floor.py)
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool

from agent_graph import Allow, Block, ProductionAgent, create_production_agent, guardrail
from tests.bench import task

__all__ = [
    "BARE",
    "BARE_SAVED",
    "HOOKED",
    "HOOKED_ASYNC",
    "HOOKED_SAVED",
    "MODEL_S",
    "ONCE",
    "OURS",
    "SLOW",
    "SLOW_STOCK",
    "TOOL_S",
    "TUNED",
    "Opened",
    "Run",
    "Way",
    "agent",
]

Run = Callable[[str, int], Awaitable[str]]
"""Runs the task of so many steps under a run_id, and returns its answer."""
Opened = Callable[[Path], contextlib.AbstractAsyncContextManager[Run]]
"""Opens a way on a file that does not exist yet."""
BUDGET_USD = 1_000.0
PRICES = {"bench": {"input": 0.1, "output": 0.4}}
"""USD per million tokens: so low that no task reaches the budget, and yet every call is reserved and settled."""
MAX_CHARS = 100_000
MODEL_S, TOOL_S = 1.0, 0.2
"""What the model and the tool take where they are waited for, seconds."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running the task."""

    name: str
    open: Opened


@guardrail(stages=["reply"], pure=True)
async def short_enough(stage: str, payload: Any, run: Any) -> Any:
    """Block what is too long: the rail that each guarded way has."""
    return Allow() if len(payload.content) < MAX_CHARS else Block("too long")


def agent(path: Path, *, model: task.Model | None = None, tool: BaseTool = task.work, **config: Any) -> ProductionAgent:
    """Return our agent for the task, its limits so wide that none is reached."""
    wide: dict[str, Any] = {"max_steps": 100_000, "max_tokens": 10**9, "max_cost_usd": BUDGET_USD, "timeout_s": 3_600}
    wide["compression_threshold"] = 10**9
    return create_production_agent(
        model or task.Model(), tools=[tool], storage=path, prices=PRICES, guardrails=[short_enough], **{**wide, **config}
    )


def ours(tool: BaseTool, *, model_s: float = 0.0) -> Opened:
    """Return how our agent is opened with `tool`, and a model that takes `model_s` seconds."""

    @contextlib.asynccontextmanager
    async def opened(path: Path) -> AsyncIterator[Run]:
        async with agent(path, model=task.Model(latency_s=model_s), tool=tool) as made:

            async def run(run_id: str, steps: int) -> str:
                done = await made.run(task.question(steps), run_id)
                return str(done.output)

            yield run

    return opened


@contextlib.asynccontextmanager
async def _tuned(path: Path) -> AsyncIterator[Run]:
    """Our agent in a process that has told Python's garbage collector to leave alone what was imported, and to look less often."""
    async with ours(task.work)(path) as run:
        before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, *before[1:])
        try:
            yield run
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()


# -- stock LangGraph ---------------------------------------------------------------------------------------------------------


def hooks() -> list[Any]:
    """Return a budget and a rail as `create_agent`'s middleware: each a node of the graph, as its documentation shows it."""
    from langchain.agents.middleware import after_model, before_model

    @before_model
    async def budget(state: Any, runtime: Any) -> None:
        usage = (getattr(message, "usage_metadata", None) for message in state["messages"])
        spent = sum(u["input_tokens"] * 1e-7 + u["output_tokens"] * 4e-7 for u in usage if u)
        if spent >= BUDGET_USD:
            raise RuntimeError("the budget is used up")

    @after_model
    async def rail(state: Any, runtime: Any) -> None:
        if len(state["messages"][-1].content) >= MAX_CHARS:
            raise RuntimeError("too long")

    return [budget, rail]


def stock(*, hooked: bool, durability: str | None, tool: BaseTool = task.work, model_s: float = 0.0) -> Opened:
    """Return how `create_agent` is opened; `durability` None: without persistence."""

    @contextlib.asynccontextmanager
    async def opened(path: Path) -> AsyncIterator[Run]:
        from langchain.agents import create_agent
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with contextlib.AsyncExitStack() as stack:
            saver = None if durability is None else await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(path)))
            middleware = hooks() if hooked else []
            graph: Any = create_agent(task.Model(latency_s=model_s), [tool], middleware=middleware, checkpointer=saver)
            options: dict[str, Any] = {} if durability is None else {"durability": durability}

            async def run(run_id: str, steps: int) -> str:
                config = {"configurable": {"thread_id": run_id}, "recursion_limit": 10 * steps + 50}
                done = await graph.ainvoke({"messages": [("user", task.question(steps))]}, config, **options)
                return str(done["messages"][-1].content)

            yield run

    return opened


OURS = Way("agent_graph", ours(task.work))
TUNED = Way("agent_graph, collector tuned", _tuned)
ONCE = Way("agent_graph, tool not idempotent", ours(task.work_once))
BARE = Way("create_agent", stock(hooked=False, durability=None))
HOOKED = Way("create_agent + hooks", stock(hooked=True, durability=None))
BARE_SAVED = Way("create_agent, AsyncSqliteSaver sync", stock(hooked=False, durability="sync"))
HOOKED_SAVED = Way("create_agent + hooks, AsyncSqliteSaver sync", stock(hooked=True, durability="sync"))
SLOW = Way("agent_graph, waiting", ours(task.slow_tool(TOOL_S), model_s=MODEL_S))
SLOW_STOCK = Way("create_agent + hooks, waiting", stock(hooked=True, durability=None, tool=task.slow_tool(TOOL_S), model_s=MODEL_S))
HOOKED_ASYNC = Way("create_agent + hooks, AsyncSqliteSaver async", stock(hooked=True, durability="async"))
