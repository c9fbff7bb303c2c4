"""The real clock."""

from __future__ import annotations

import asyncio
import time

__all__ = ["SystemClock"]


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
