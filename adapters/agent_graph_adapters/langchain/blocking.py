"""Between code that blocks and code that awaits.

A synchronous tool gets a daemon thread of its own instead of a place in the event loop's pool: the pool has a handful
of threads (the processors plus four), so that slow tools of many runs would queue behind each other; and `asyncio.run`
waits at its end for every thread of the pool, so that one tool that hangs past its time limit would keep the whole
program from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar

from agent_graph.runtime.sync import run_sync

__all__ = ["in_thread", "run_alone"]

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, name: str, context: Context | None = None) -> T:
    """Return what `function` returns, run in a daemon thread of this name, in `context` or a copy of the current one.

    Raises what it raises (StopIteration as RuntimeError, since a future cannot hold one). If the caller is cancelled,
    the thread goes on to its end and what it gives is dropped.
    """
    loop = asyncio.get_running_loop()
    context = context or copy_context()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            settle: Callable[[], None] = _result(future, context.run(function))
        except StopIteration as error:
            settle = _error(future, RuntimeError(f"{name} raised StopIteration"), error)
        except BaseException as error:  # noqa: BLE001  # whatever it was belongs to the one who awaits
            settle = _error(future, error, error.__cause__)
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


def _result(future: asyncio.Future[T], result: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(result)


def _error(future: asyncio.Future[T], error: BaseException, cause: BaseException | None) -> Callable[[], None]:
    error.__cause__ = cause
    return lambda: None if future.done() else future.set_exception(error)


def run_alone(coroutine: Coroutine[Any, Any, T], *, instead: str) -> T:
    """Return the coroutine's result, run on the process's own loop. RuntimeError where a loop is running: await `instead` there.

    The same loop each time, because a client belongs to the loop that first used it: with a loop for each call, the second call
    would find its connections on a closed one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_sync(coroutine)
    coroutine.close()
    raise RuntimeError(f"An event loop is running here and must not be blocked: await {instead}() instead.")
