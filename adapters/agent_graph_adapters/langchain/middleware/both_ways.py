"""One implementation of a hook for sync and async agents.

LangChain calls `wrap_tool_call` with a handler that blocks, `awrap_tool_call` with one that is awaited. Each of our hooks is written
once, as a coroutine that does nothing asynchronous by itself: it awaits the handler, and everything of ours through `wait`. In an
async agent `wait` awaits. In a sync one it blocks the thread until the process's own loop has done the work, the handler is called on
the spot, and so the coroutine never suspends: one `send` runs it to its end. It stays in its thread and its context all the while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from agent_graph.runtime.deadline import within
from agent_graph.runtime.sync import run_sync

__all__ = ["AWAITING", "BLOCKING", "Wait", "as_async", "run_through"]

T = TypeVar("T")
Asked = TypeVar("Asked")


class Wait(Protocol):
    """How a hook waits for work of its own."""

    async def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        """Return what `work` returns."""
        ...

    async def at_most(self, seconds: float | None, work: Coroutine[Any, Any, T], /) -> T:
        """Return what the handler's `work` returns; Expired if it takes longer than `seconds`, where it can be cut short."""
        ...


class _Awaiting:
    async def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        return await work

    async def at_most(self, seconds: float | None, work: Coroutine[Any, Any, T], /) -> T:
        return await within(seconds, work)


class _Blocking:
    async def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        return run_sync(work)

    async def at_most(self, seconds: float | None, work: Coroutine[Any, Any, T], /) -> T:
        return await work  # it runs in this thread, which nobody can stop


AWAITING: Wait = _Awaiting()
"""In an async agent."""
BLOCKING: Wait = _Blocking()
"""In a sync agent."""


def as_async(handler: Callable[[Asked], T]) -> Callable[[Asked], Awaitable[T]]:
    """Return a blocking handler as one that can be awaited, and is done at once."""

    async def call(request: Asked) -> T:
        return handler(request)

    return call


def run_through(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never suspends, because all that it awaits is `BLOCKING` or `as_async`."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # StopIteration does not say what it carries
    work.close()
    raise AssertionError("a hook of a sync agent awaited something that only an event loop can finish")  # pragma: no cover
