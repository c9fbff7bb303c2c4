"""The real clock, and the stopwatch of a turn."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_graph.ports import Clock

__all__ = ["Stopwatch", "SystemClock"]


class SystemClock:
    """Time as the machine has it."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.perf_counter()

    def time(self) -> float:
        """Return seconds since the epoch, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        await asyncio.sleep(seconds)


class Stopwatch:
    """Working time in seconds, that of earlier processes included; running from the beginning."""

    __slots__ = ("_began_s", "_clock", "before_s")

    def __init__(self, clock: Clock, before_s: float) -> None:
        self.before_s = before_s
        """What had been used when it was started."""
        self._clock = clock
        self._began_s: float | None = clock.monotonic()

    def start(self) -> None:
        """Count from now on."""
        self._began_s = self._clock.monotonic()

    def pause(self) -> None:
        """Stop counting."""
        self.before_s, self._began_s = self.used_s(), None

    @property
    def is_paused(self) -> bool:
        """Whether it does not count."""
        return self._began_s is None

    def used_s(self) -> float:
        """Return the working time so far."""
        return self.before_s + (0.0 if self._began_s is None else self._clock.monotonic() - self._began_s)
