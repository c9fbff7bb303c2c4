"""check_budget: entered when a limit is near or reached. It decides, and writes down, whether the turn ends or lands."""

from __future__ import annotations

from typing import Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from agent_graph.nodes import outcome
from agent_graph.state import RunState, turn_of

__all__ = ["check_budget"]


async def check_budget(state: RunState, config: RunnableConfig) -> Command[Literal["call_model", "finish"]]:
    """End the turn at a violation; else the next call is the landing: an answer from what is known, without tools."""
    turn = await turn_of(state, config)
    step = state["step"]
    stop, landing = state.get("stop"), state.get("landing")
    if stop is not None:
        turn.note("limit", {"violation": stop}, step=step)
        return Command(update={"outcome": outcome.of_stop(stop)}, goto="finish")
    turn.run.landed = landing
    turn.note("landing", {"limit": landing}, step=step)
    return Command(goto="call_model")
