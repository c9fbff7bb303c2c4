"""check_budget: entered when a limit is near or reached. It decides, and writes down, whether the turn ends or lands.

An answer that was cut off at its length limit is continued where the limits hold another call; where not, it stands, with a warning.
"""

from __future__ import annotations

from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from agent_graph.nodes import outcome
from agent_graph.runtime.transcript import text_of
from agent_graph.state import RunState, turn_of

__all__ = ["check_budget"]

KEEPS_TEXT = frozenset({"max_steps", "max_tokens", "max_cost_usd", "budget"})
"""Limits at which an answer that was cut off stands as it is, where there is nothing left to continue it with."""


async def check_budget(state: RunState, config: RunnableConfig) -> Command[Literal["call_model", "finish"]]:
    """End the turn at a violation; else the next call is the landing: an answer from what is known, without tools."""
    turn = await turn_of(state, config)
    step = state["step"]
    stop, landing = state.get("stop"), state.get("landing")
    if stop is not None:
        turn.note("limit", {"violation": stop}, step=step)
        end = outcome.of_stop(stop)
        if stop.partition(":")[0] in KEEPS_TEXT and _only_continues(state):
            turn.warn(f"the answer was cut off at its length limit, and is not continued ({stop}).", step=step)
            end = outcome.ended("complete", None, "answer")
        return Command(update={"outcome": end, "landing": None}, goto="finish")  # one that was decided has not been made
    turn.run.landed = landing
    turn.note("landing", {"limit": landing}, step=step)
    return Command(goto="call_model")


def _only_continues(state: RunState) -> bool:
    """Return whether the call that is not made would only have gone on with an answer that was cut off."""
    messages, kept = state["messages"], state.get("kept", "")
    if not kept or len(messages) < 2:
        return False
    reply, last = messages[-2:]
    return isinstance(reply, AIMessage) and isinstance(last, HumanMessage) and kept.endswith(text_of(reply))
