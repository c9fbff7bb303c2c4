"""The one writer: a thread with its own connection, and the one queue that it empties.

How it works
    `put` appends to the queue and returns; it does not wake the thread. Who needs its records on disk awaits `durable`: that
    rings the bell, the thread takes *everything* queued so far, by anybody, executes it in order in one transaction
    (`committer.py`), and answers all who waited for any part of it: one fsync for all (group commit). Rows that nobody waits
    for are written after `linger_s` at the latest. `run` sends a function through the same queue, for what must read and write
    in one transaction.

    Two watermarks say how far it got: `_done` (committed: every process sees it, a killed process loses nothing of it) and
    `_synced` (on the platter). A commit that nobody waits for does not sync; the next one that somebody waits for does, and
    since the WAL is one sequence, it syncs all before it too. So there are exactly as many fsyncs as barriers that had to wait.

What must stay true
    1. Order of the queue = order in the file; a crash keeps a prefix.
    2. An `Attempt` whose write failed stays broken: each later `put` and `durable` of it raises. Others in its batch are written.
    3. The thread never dies of an error and never blocks for good: whoever waits gets an answer.
    4. No event loop is bound: a waiter is woken through its own loop's `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from agent_graph.errors import StorageError
from agent_graph.storage.attempts import Attempt, Entry, Job
from agent_graph.storage.committer import Committer, Guard
from agent_graph.storage.faults import explain
from agent_graph.storage.forking import Forkable, Gate
from agent_graph.storage.waiting import Waiter, wake

__all__ = ["Writer"]

T = TypeVar("T")

_IDLE_TICKS = 10
"""Empty linger ticks after which the thread sleeps until it is rung."""
_MAX_BATCH = 4_096
_MAX_QUEUED = 10_000
_MAX_QUEUED_BYTES = 64 * 1024 * 1024
_EXIT_S = 5.0
"""How long the interpreter's exit waits for what is queued, in seconds."""

_LAZY: Final = 0
_NOW: Final = 1


class Writer(Forkable):
    """The queue and its thread. Opens the file at the first use; safe from any thread and any event loop."""

    def __init__(
        self,
        locate: Callable[[], str],
        guard: Guard,
        *,
        durability: Literal["power", "process"],
        busy_s: float,
        linger_s: float = 0.02,
        gather_s: float = 0.001,
    ) -> None:
        self._new_committer: Callable[[], Committer] = lambda: Committer(locate, guard, durability=durability, busy_s=busy_s)
        self._always_synced = durability == "process"
        self.busy_s = busy_s
        """How long a foreign lock is waited for, in seconds."""
        self._linger_s = linger_s
        self._gather_s = gather_s
        self.crowd: Callable[[], bool] = lambda: False
        """Whether several runs write at once, so that waiting a moment for company saves fsyncs."""
        self._closed = False
        self._spoilt = False
        self._start_afresh()
        super().__init__()
        _living.add(self)

    def _start_afresh(self) -> None:
        self._committer = self._new_committer()
        self._gate = Gate()
        # Reentrant: the garbage collector may run a storage's finalizer, which queues, in the thread that holds the lock.
        self._lock = threading.RLock()
        self._bell: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._rung = False
        self._asleep = True
        self._buffer: collections.deque[Entry] = collections.deque()
        self._waiters: list[Waiter] = []
        self._bytes = 0
        self._queued = 0
        self._done = 0
        self._synced = 0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._finished = threading.Event()
        self._calm = True

    def before_fork(self) -> None:
        """Let the transaction under way end, and close the connection."""
        self._calm = self._gate.shut()
        if self._calm:
            self._committer.disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the connection is opened again when it is needed."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """Forget the parent's thread and queue: in this process they never were."""
        if not self._calm:
            self.spoil()
        self._start_afresh()

    def spoil(self) -> None:
        """Refuse every use in this process: it has inherited a connection in the midst of something."""
        self._spoilt = True

    # -- queueing ------------------------------------------------------------------------------------------------------

    def put(self, attempt: Attempt, sql: str, parameters: Sequence[Any], *, many: bool = False, size: int = 256) -> None:
        """Queue one statement (`many`: with several rows) and return; `size` is roughly its bytes.

        Raises:
            NotDurable, LeaseLost: an earlier write of this attempt failed.
            StorageError: the storage has been closed.
        """
        attempt.raise_if_broken()
        with self._lock:
            self._append(attempt, sql, parameters, many, None, size)
        self._stir()

    def queue(
        self,
        function: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
        *,
        attempt: Attempt | None = None,
        size: int = 0,
    ) -> None:
        """Queue `function` like a row: nobody waits for its answer, and its error breaks `attempt`, if there is one."""
        with self._lock:
            self._append(attempt, "", (), False, Job(function, then), size)
        self._stir()

    async def run(self, function: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Run `function` in the writer's transaction, in its turn, and return its answer once committed (not yet synced).

        It may be run twice (a batch is rolled back and done again without the row that failed), so it must depend on the
        database alone. `then` is called in the writer's thread once the commit stands.
        """
        return await self.begin(function, then)

    def begin(self, function: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> Awaitable[T]:
        """Queue `function` at once, and return what is to be awaited for its answer; else as `run`."""
        job = Job(function, then)
        return self._answered(job, self._send(job, asyncio.get_running_loop()))

    async def _answered(self, job: Job[T], waiter: Waiter) -> T:
        await waiter.wait()
        return self._answer(job)

    def run_sync(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Do what `run` does for a caller without an event loop."""
        job = Job(function)
        self._send(job, None).wait_sync()
        return self._answer(job)

    def _send(self, job: Job[Any], loop: asyncio.AbstractEventLoop | None) -> Waiter:
        with self._lock:
            position = self._append(None, "", (), False, job, 0)
            waiter = Waiter(position, synced=False, loop=loop)
            self._waiters.append(waiter)
        self._ring()
        return waiter

    def _answer(self, job: Job[T]) -> T:
        if isinstance(job.error, sqlite3.Error):
            raise explain(job.error, self.location) from job.error
        if job.error is not None:
            raise job.error
        return job.answer  # type: ignore[return-value]  # without an error the function has answered; None may be its answer

    def _append(self, attempt: Attempt | None, sql: str, parameters: Sequence[Any], many: bool, job: Job[Any] | None, size: int) -> int:
        """Append to the queue, under the lock; return the position."""
        if self._closed:
            raise StorageError(f"storage {self.location}: it has been closed. Open a new one.", backend="storage")
        if self._spoilt:
            raise StorageError("this process was forked in the midst of a write; start it by spawning instead.", backend="storage")
        if self._thread is None:
            self._start()
        self._queued += 1
        self._bytes += size
        self._buffer.append(Entry(self._queued, attempt, sql, parameters, many, job, size))
        if attempt is not None:
            attempt.last = self._queued
        return self._queued

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="agent_graph storage writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or the system is out of threads
            raise StorageError(f"storage {self.location}: its writer cannot start ({error}).", backend="storage") from error
        self._thread = thread

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def durable(self, attempt: Attempt | None = None) -> None:
        """Return when everything queued so far is on disk.

        Raises:
            NotDurable: it is not, or an earlier write of `attempt` failed.
            LeaseLost: `attempt` has been taken over.
        """
        if attempt is not None:
            attempt.raise_if_broken()
        waiter = self._barrier(synced=True, loop=asyncio.get_running_loop())
        if waiter is not None:
            await waiter.wait()
            if attempt is not None:
                attempt.raise_if_broken()

    def durable_sync(self, attempt: Attempt | None = None) -> None:
        """Do what `durable` does for a caller without an event loop."""
        if attempt is not None:
            attempt.raise_if_broken()
        waiter = self._barrier(synced=True, loop=None)
        if waiter is not None:
            waiter.wait_sync()
            if attempt is not None:
                attempt.raise_if_broken()

    async def ready(self) -> None:
        """Return when the file is open and a reader sees everything queued so far.

        Raises:
            StorageError: the file cannot be opened, or the storage has been closed.
        """
        if self.generation == 0 or self._closed:
            await self.run(_nothing)
        elif waiter := self._barrier(synced=False, loop=asyncio.get_running_loop()):
            await waiter.wait()

    def ready_sync(self) -> None:
        """Do what `ready` does for a caller without an event loop."""
        if self.generation == 0 or self._closed:
            self.run_sync(_nothing)
        elif waiter := self._barrier(synced=False, loop=None):
            waiter.wait_sync()

    async def room(self) -> None:
        """Return when the queue is no longer over its bound: back-pressure for whoever writes without barriers."""
        if len(self._buffer) <= _MAX_QUEUED and self._bytes <= _MAX_QUEUED_BYTES:
            return
        if waiter := self._barrier(synced=False, loop=asyncio.get_running_loop()):
            await waiter.wait()

    def is_settled(self, position: int) -> bool:
        """Return whether the record at `position` of the queue has been dealt with."""
        return position <= self._done

    def _barrier(self, *, synced: bool, loop: asyncio.AbstractEventLoop | None) -> Waiter | None:
        """Return a waiter for everything queued so far, or None if there is nothing to wait for."""
        with self._lock:
            target = self._queued
            if target <= (self._synced if synced else self._done):
                return None
            waiter = Waiter(target, synced=synced, loop=loop)
            self._waiters.append(waiter)
        self._ring()
        return waiter

    def _stir(self) -> None:
        """Let a sleeping thread know that something lingers; an awake one will look by itself."""
        if self._asleep:
            self._asleep = False
            self._bell.put(_LAZY)

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._asleep = False
            self._bell.put(_NOW)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                idle = self._await_work()
                if self._waiters and self._gather_s and self.crowd():
                    time.sleep(self._gather_s)
                self._rung = False  # before the queue is taken: a bell rung from here on is heard in the next round
                self._round(idle=idle)
                if self._stopping and not self._buffer and self._synced >= self._done:
                    return
        finally:
            with self._gate:
                self._committer.disconnect(forever=True)
            self._finished.set()

    def _await_work(self) -> bool:
        """Sleep until rung, or until rows that nobody waits for have lingered; return whether nothing more seems to come."""
        ticks = 0
        while not self._stopping:
            if ticks >= _IDLE_TICKS and not self._buffer:
                if self._synced < self._done:
                    return True
                self._asleep = True  # before the last look at the queue: whoever appends after it will stir
            deep = self._asleep and not self._buffer
            try:
                if self._bell.get(timeout=None if deep else self._linger_s) == _NOW:
                    return False
                ticks = 0
            except queue.Empty:
                if self._buffer:
                    return False
                ticks += 1
        return True

    def _round(self, *, idle: bool) -> None:
        with self._lock:
            batch = [self._buffer.popleft() for _ in range(min(len(self._buffer), _MAX_BATCH))]
            self._bytes -= sum(entry.size for entry in batch)
            target = batch[-1].position if batch else self._done
            sync = any(waiter.synced and waiter.target <= target for waiter in self._waiters)
            sync = sync or (idle and not self._buffer and target > self._synced)
        with self._gate:
            failure = self._committer.commit(batch, sync=sync)
        for entry in batch:
            if entry.job is not None:
                entry.job.finish()
        with self._lock:
            self._done = target
            if sync or failure is not None or self._always_synced:
                self._synced = target
            ready = [waiter for waiter in self._waiters if self._has_come(waiter)]
            self._waiters = [waiter for waiter in self._waiters if not self._has_come(waiter)]
            if self._waiters:
                self._ring()
        wake(ready, failure)

    def _has_come(self, waiter: Waiter) -> bool:
        return waiter.target <= (self._synced if waiter.synced else self._done)

    # -- the end -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the thread write what is queued and end; returns at once. Later uses raise StorageError."""
        with self._lock:  # whatever was queued before is seen by the thread's last look
            self._closed = self._stopping = True
        self._bell.put(_NOW)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; return whether it came within `timeout_s` seconds."""
        return self._thread is None or self._finished.wait(timeout_s)

    # -- figures -------------------------------------------------------------------------------------------------------

    @property
    def location(self) -> str:
        """Where the file is, once it has been opened."""
        return self._committer.path or "not opened yet"

    @property
    def generation(self) -> int:
        """Counts the files that have stood at this path; 0: none has been opened yet."""
        return self._committer.generation

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return self._committer.commits

    @property
    def syncs(self) -> int:
        """How many of them were synced."""
        return self._committer.syncs


def _nothing(connection: sqlite3.Connection) -> None:
    """Only make sure that the file is open."""


_living: weakref.WeakSet[Writer] = weakref.WeakSet()


@atexit.register
def _write_what_is_queued() -> None:
    """Give every writer a bounded time to empty its queue before the interpreter ends."""
    writers = list(_living)
    for writer in writers:
        writer.stop()
    deadline = time.monotonic() + _EXIT_S
    for writer in writers:
        writer.join(max(0.0, deadline - time.monotonic()))
