"""Tells the observability backend: from one thread, in order, and never so that a run could fail or wait for it.

`record_run` and `record_tool_call` are synchronous and may do anything. They are called from a thread of their own, one per agent,
in the order of what happened; the thread ends when it is idle. What they raise is logged once and counted. `run()` waits at most a
second for its own records.

What is queued here dies with the process. So a turn is written down as ended only after `record_run` has been called
(`Driver.conclude`): a turn killed before that is unfinished, and whoever goes on with it tells its end again.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from agent_graph.types import AgentRun, ToolCall

__all__ = ["Recorder"]

logger = logging.getLogger("agent_graph")

WAIT_S = 1.0
CAPACITY = 10_000
IDLE_S = 5.0


class Recorder:
    """Delivers records to one backend, or to nobody (None). May be used from several threads and event loops."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._begin()
        self._logged: set[str] = set()
        self.failed = 0
        """Records that the backend raised on."""
        self.dropped = 0
        """Records that were not delivered in time, or for which there was no room."""

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def tool_call(self, call: ToolCall, run_id: str) -> None:
        """Queue `record_tool_call` with a copy of `call`."""
        self._put("record_tool_call", copy.copy(call), run_id)

    def run(self, run: AgentRun) -> None:
        """Queue `record_run` with a copy of `run`."""
        self._put("record_run", copy.copy(run))

    async def delivered(self, wait_s: float = WAIT_S) -> None:
        """Return when everything queued so far has been delivered, or after `wait_s` seconds (what is left then counts as dropped).

        One cancellation is passed on only after that; a second one at once.
        """
        if self._backend is None:
            return
        waiting = asyncio.ensure_future(self._delivered(wait_s))
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await waiting
            raise

    async def _delivered(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def told() -> None:
            if not done.done():
                done.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed while the backend was slow: nobody waits any more
                loop.call_soon_threadsafe(told)

        self._enqueue(wake)
        try:
            async with asyncio.timeout(wait_s):
                await done
        except TimeoutError:
            self._late(wait_s)

    def wait(self, wait_s: float = WAIT_S) -> None:
        """Like `delivered`, for a caller that cannot await."""
        if self._backend is None:
            return
        done = threading.Event()
        self._enqueue(done.set)
        if not done.wait(wait_s):
            self._late(wait_s)

    def _late(self, wait_s: float) -> None:
        self.dropped += 1
        name = type(self._backend).__name__
        self._log_once("slow", "observability: %s did not take its records within %.0f s; they stay queued", name, wait_s)

    def _put(self, method: str, *args: Any) -> None:
        if self._backend is None:
            return
        if self._queue.qsize() >= CAPACITY:
            self.dropped += 1
            return
        self._enqueue(lambda: self._call(method, args))

    def _enqueue(self, act: Callable[[], None]) -> None:
        if self._pid != os.getpid():  # a fork inherits the queue, and not the thread; what is in it the parent tells
            self._begin()
        with self._lock:
            self._queue.put(act)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="agent_graph-observability", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                act = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None  # the next record starts another: an idle agent holds no thread
                        return
                continue
            act()

    def _call(self, method: str, args: tuple[Any, ...]) -> None:
        try:
            getattr(self._backend, method)(*args)
        except BaseException as error:  # noqa: BLE001  the port's border: whatever a backend raises, SystemExit too, must not end the thread
            self.failed += 1
            self._log_once(
                f"{method}:{type(error).__name__}", "observability: %s.%s raised %r", type(self._backend).__name__, method, error
            )

    def _log_once(self, key: str, message: str, *args: Any) -> None:
        if key not in self._logged:
            self._logged.add(key)
            logger.warning(message, *args)
