"""Faults: what ends an attempt, and the page of memory that tells afterwards where it fell.

SIGKILL at a failpoint is sent by the process to itself, from the failpoint's own thread. A random instant is the kernel's: an
interval timer whose signal has its default action, so that no handler runs and nothing is cleaned up (to the process the same as
SIGKILL). It is armed when the loop begins, so that kills fall into the work and not into the start.

The page is anonymous memory shared with the parent: what the child wrote a nanosecond before its death can be read after it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agent_graph import failpoints

__all__ = ["AfterSeconds", "AtFailpoint", "AtNamed", "CancelAt", "Fault", "Watch", "counting_awaits"]

_HEAD = struct.Struct("<Qdd")
_PLACE = 96
LOOP_BEGINS = "turn.begins"
"""The failpoint behind which the loop's work lies."""


Passer: TypeAlias = Literal["loop", "writer"]
"""The thread that runs the event loop, or any other."""


@dataclass(frozen=True, slots=True)
class AtFailpoint:
    """Send `signal` to the process at the n-th failpoint that it passes, from 1."""

    n: int
    signal: int = signal.SIGKILL
    of: Passer | None = None
    """Whose failpoints count; None: everybody's. How often the writer commits differs from run to run, what the loop passes does not."""

    def __str__(self) -> str:
        return f"{signal.Signals(self.signal).name} at failpoint {self.n}{f' of the {self.of}' if self.of else ''}"


@dataclass(frozen=True, slots=True)
class AtNamed:
    """Send SIGKILL to the process where it passes the failpoint of this name for the first time."""

    name: str

    def __str__(self) -> str:
        return f"SIGKILL at {self.name}"


@dataclass(frozen=True, slots=True)
class AfterSeconds:
    """Let the kernel end the process so many seconds after the loop began."""

    seconds: float

    def __str__(self) -> str:
        return f"SIGALRM {self.seconds * 1000:.1f} ms into the loop"


@dataclass(frozen=True, slots=True)
class CancelAt:
    """Cancel the caller's task at the n-th await of the process, in whatever task it is, from 1."""

    n: int

    def __str__(self) -> str:
        return f"cancelled at await {self.n}"


Fault: TypeAlias = AtFailpoint | AtNamed | AfterSeconds | CancelAt


class Watch:
    """Where a child is: read by its parent, written by the child at each failpoint and at each event in the world."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._passed: dict[Passer | None, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the last child."""
        self._page[: _HEAD.size + _PLACE] = b"\0" * (_HEAD.size + _PLACE)

    # -- in the child -----------------------------------------------------------------------------------------------------------

    def arm(self, fault: Fault | None) -> None:
        """From now on note where this process is, and end it as `fault` says."""
        self._lock = threading.Lock()
        self._fault = fault
        self._passed = {None: 0, "loop": 0, "writer": 0}
        failpoints.arm(self.passed)

    def passed(self, name: str) -> None:
        """Note a failpoint, and die there if it is the one."""
        with self._lock:
            passer: Passer = "loop" if threading.current_thread() is threading.main_thread() else "writer"
            for whose in (None, passer):
                self._passed[whose] += 1
            now = dict(self._passed)
            _, began, ended = _HEAD.unpack_from(self._page)
            _HEAD.pack_into(self._page, 0, now[None], began, ended)
            self.noticed(name)
        if name == LOOP_BEGINS:
            self.begins()
        fault = self._fault
        if isinstance(fault, AtFailpoint) and fault.of in (None, passer) and now[fault.of] == fault.n:
            os.kill(os.getpid(), fault.signal)
        if isinstance(fault, AtNamed) and name == fault.name:
            os.kill(os.getpid(), signal.SIGKILL)

    def noticed(self, place: str) -> None:
        """Note the last place that was passed."""
        text = place.encode()[:_PLACE]
        self._page[_HEAD.size : _HEAD.size + _PLACE] = text.ljust(_PLACE, b"\0")

    def begins(self) -> None:
        """The loop begins: start the timer, if the fault is one. Only the first call counts."""
        count, began, ended = _HEAD.unpack_from(self._page)
        if began:
            return
        _HEAD.pack_into(self._page, 0, count, time.monotonic(), ended)
        if not self.place:
            self.noticed("the loop's beginning")
        if isinstance(self._fault, AfterSeconds):
            signal.setitimer(signal.ITIMER_REAL, max(self._fault.seconds, 1e-6))

    def ends(self) -> None:
        """The work is done: no timer may go off any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        count, began, _ = _HEAD.unpack_from(self._page)
        _HEAD.pack_into(self._page, 0, count, began, time.monotonic())
        failpoints.disarm()

    # -- in the parent ------------------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Failpoints passed."""
        return int(_HEAD.unpack_from(self._page)[0])

    @property
    def place(self) -> str:
        """The last place passed; empty before the first."""
        return bytes(self._page[_HEAD.size : _HEAD.size + _PLACE]).rstrip(b"\0").decode(errors="replace")

    @property
    def loop_s(self) -> float:
        """How long the loop took, in seconds; 0 where it did not end."""
        _, began, ended = _HEAD.unpack_from(self._page)
        return float(ended - began) if began and ended else 0.0


# -- cancelling at an await ---------------------------------------------------------------------------------------------------------


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that calls `tick` whenever it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], tick: Callable[[], None]) -> None:
        self._coroutine, self._tick = coroutine, tick

    def send(self, value: Any) -> Any:
        waits_for = self._coroutine.send(value)
        self._tick()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._coroutine.throw(*error)
        self._tick()
        return waits_for

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def counting_awaits(reached: Callable[[int], None]) -> Callable[..., asyncio.Task[Any]]:
    """Return a task factory under which `reached(n)` is called at the n-th suspension, whichever task it is that waits."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        reached(count)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Stepped(coroutine, tick), loop=loop, **options)

    return factory
