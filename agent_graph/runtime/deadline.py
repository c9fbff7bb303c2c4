"""How long foreign code may take: it is asked to stop, and left behind if it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Expired", "within"]

T = TypeVar("T")

GRACE_S = 0.2
"""How long a cancelled call may take to end, in seconds; a tool that swallows its cancellation is abandoned after that."""


class Expired(Exception):
    """The time was over before the work was done."""


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, if it does within `seconds` (None: whenever it does).

    `asyncio.timeout` waits until the cancelled work has ended, so code that swallows its cancellation would hold the turn for
    ever. Here it gets a short grace. Work that ends well while it is being cancelled has ended well: its result is not thrown away.

    Raises:
        Expired: the time was over; the work was cancelled.
    """
    if seconds is None:
        return await work
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        await _stop(task)
        raise
    if not done:
        await _stop(task)
        if not task.done() or task.cancelled() or isinstance(task.exception(), asyncio.CancelledError | TimeoutError):
            raise Expired
    return task.result()


async def _stop(task: asyncio.Future[Any]) -> None:
    task.cancel()
    task.add_done_callback(_look_at)
    await asyncio.wait({task}, timeout=GRACE_S)


def _look_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # else asyncio would complain that nobody looked at it
