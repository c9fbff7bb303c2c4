"""Who holds the lease of a turn: the attempt, for as long as it can still come to something.

A lease is renewed from a thread, so that a tool that blocks the event loop does not lose it. That must end by itself: with the task,
with its event loop, and a while after the turn's time is over, when a call that cannot be cancelled keeps the task from ending.
The run is then free, and what the late attempt still writes is accepted only until another has taken the run over.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["Owner"]

GRACE_S = 60.0
"""What an attempt may take beyond its time: a cancellation that is awaited, the last records, observers."""


class Owner:
    """An attempt at a turn; `task` None: another graph drives it, and it lives as long as the turn is known here."""

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._task = None if task is None else weakref.ref(task)
        self._turn: weakref.ref[Turn] | None = None

    def works_on(self, turn: Turn) -> None:
        """Note the turn whose time counts."""
        self._turn = weakref.ref(turn)

    def done(self) -> bool:
        """Return whether nothing can come of it any more; the storage asks, from a thread of its own."""
        return self._task_is_over() or self._time_is_over()

    def _task_is_over(self) -> bool:
        if self._task is None:
            return False
        task = self._task()
        return task is None or task.done() or task.get_loop().is_closed()

    def _time_is_over(self) -> bool:
        turn = None if self._turn is None else self._turn()
        return turn is not None and turn.overtime_s > GRACE_S
