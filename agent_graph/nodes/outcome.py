"""How what goes wrong inside a node becomes the end of its turn: a result, not an exception.

Only what says that the turn's record can no longer be kept passes through (StorageError, NotDurable, LeaseLost), and cancellation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langgraph.errors import GraphBubbleUp

from agent_graph.errors import LeaseLost, NotDurable, StorageError, describe
from agent_graph.runtime.model_call import ModelsFailed, TimeIsUp, TimeToLand
from agent_graph.state import Outcome

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["PASSES", "ended", "of_error", "of_stop"]

PASSES = (StorageError, NotDurable, LeaseLost, GraphBubbleUp)
"""Exceptions that are not a turn's result."""


def ended(status: str, error: str | None, stop_reason: str) -> Outcome:
    """Return an Outcome."""
    return Outcome(status=status, error=error, stop_reason=stop_reason)


def of_stop(text: str) -> Outcome:
    """Return the end that a violation of a limit means: `timeout` for the time, else `failed`."""
    key = text.split(":", 1)[0].strip()
    return ended("timeout" if key == "timeout_s" else "failed", text, key)


def of_error(error: Exception, turn: Turn) -> Outcome:
    """Return the end that `error` means."""
    if isinstance(error, TimeIsUp | TimeToLand):
        return of_stop(str(error))
    left = turn.time_left_s
    if isinstance(error, TimeoutError) and left is not None and left <= 0:
        return of_stop(turn.time_is_up())
    if isinstance(error, ModelsFailed):
        return ended("failed", str(error), "error")
    return ended("failed", describe(error), "error")
