"""A turn as a stream: it runs in a task of its own, and whoever closes the stream stops it, and waits until it has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["streamed"]

T = TypeVar("T")


async def streamed(begin: Callable[[Callable[[T], None]], Coroutine[Any, Any, object]]) -> AsyncGenerator[T, None]:
    """Yield what `begin` hands to its argument; at the end, raise what it raised. Close it, else its task goes on."""
    queue: asyncio.Queue[T | None] = asyncio.Queue()
    task = asyncio.ensure_future(begin(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (item := await queue.get()) is not None:
            yield item
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
