"""FakeClock: time that passes when the test says so.

Two ways to use it. `FakeClock()`: sleepers sleep until the test calls `advance`. `FakeClock(auto=True)`: whoever sleeps moves the
clock to the end of its sleep and goes on at once, so that back-offs and time-outs of hours cost nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading

__all__ = ["FakeClock"]


class FakeClock:
    """A `Clock` (see `agent_graph.ports`); it may be used from several threads and event loops at once.

    `start`: the first value of `monotonic()`, in seconds; `epoch`: the first value of `time()`, in seconds since 1970, UTC.
    """

    def __init__(self, *, start: float = 1_000.0, epoch: float = 1_750_000_000.0, auto: bool = False) -> None:
        self._now = start
        self._ahead = epoch - start
        self._auto = auto
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self.slept: list[float] = []
        """The seconds of every sleep that was asked for, in order."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._now

    def time(self) -> float:
        """Return seconds since the epoch, UTC."""
        return self._now + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has advanced by `seconds`; always lets other tasks run first."""
        self.slept.append(seconds)
        until = self._now + seconds
        if self._auto:
            self._move(until)
        if until <= self._now:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        with self._lock:
            heapq.heappush(self._sleepers, (until, next(self._order), loop, woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many are asleep."""
        with self._lock:
            return sum(not woken.done() for *_, woken in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move the clock forward and wake who is due, the earliest first; they run when their event loop next does."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}. To move the wall clock alone, use jump().")
        self._move(self._now + seconds)

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, forwards or backwards, as a correction of the system's time does."""
        self._ahead += seconds

    def _move(self, until: float) -> None:
        due = []
        with self._lock:
            self._now = max(self._now, until)
            while self._sleepers and self._sleepers[0][0] <= self._now:
                due.append(heapq.heappop(self._sleepers))
        for *_, loop, woken in due:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
