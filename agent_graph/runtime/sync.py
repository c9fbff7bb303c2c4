"""Running a coroutine for a caller that cannot await: in a thread with an event loop of its own.

One loop for the whole process, begun at first use, so that clients are not rebuilt at every call and notebooks (where a loop is
already running) work like scripts. The thread is a daemon: nothing hangs at the interpreter's exit.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_sync"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, run on the process's own loop; an interrupt cancels it and waits for its end."""
    loop = _own_loop()
    if threading.current_thread().name == _NAME:
        work.close()
        raise RuntimeError(
            "run_sync was called from a tool or backend that runs under run_sync: it would wait for itself. Use `await agent.run(...)`."
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        concurrent.futures.wait([future], timeout=5)
        raise


_NAME = "agent_graph-sync"


def _own_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid  # one loop for the process is the point
    with _lock:
        if _loop is None or _pid != os.getpid():  # a fork inherits the loop, but not its thread
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_run_for_ever, args=(_loop,), name=_NAME, daemon=True).start()
        return _loop


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
            return
        except (SystemExit, KeyboardInterrupt):
            continue  # a task raised it: its future holds it for whoever waits, and everybody else's work goes on
