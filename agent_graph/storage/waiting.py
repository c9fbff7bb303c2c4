"""Who waits for the writer: coroutines of any event loop, and threads without one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Sequence

from agent_graph.errors import NotDurable

__all__ = ["Waiter", "wake"]


class Waiter:
    """Waits until the queue has been dealt with up to `target`; `loop` None: in a thread without an event loop."""

    __slots__ = ("_failure", "_future", "_loop", "synced", "target")

    def __init__(self, target: int, *, synced: bool, loop: asyncio.AbstractEventLoop | None) -> None:
        self.target = target
        self.synced = synced
        """Whether it waits for the platter, or only for the commit."""
        self._loop = loop
        self._future: asyncio.Future[None] | concurrent.futures.Future[None]
        self._future = concurrent.futures.Future() if loop is None else loop.create_future()
        self._failure: BaseException | None = None

    async def wait(self) -> None:
        """Wait in the event loop.

        Raises:
            NotDurable: it waited for the platter, and the file could not be written.
        """
        assert isinstance(self._future, asyncio.Future)
        await self._future
        self._raise_failure()

    def wait_sync(self) -> None:
        """Wait in this thread; raises what `wait` does."""
        assert isinstance(self._future, concurrent.futures.Future)
        self._future.result()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.synced and self._failure is not None:
            raise NotDurable(f"a write did not reach the disk: {self._failure}") from self._failure


def wake(waiters: Sequence[Waiter], failure: BaseException | None) -> None:
    """Answer each waiter in its own loop, with one call per loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiter in waiters:
        waiter._failure = failure
        if isinstance(waiter._future, concurrent.futures.Future):
            waiter._future.set_result(None)
        elif waiter._loop is not None:
            loops.setdefault(waiter._loop, []).append(waiter._future)
    for loop, futures in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # cancelled
            future.set_result(None)
