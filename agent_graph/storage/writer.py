"""The one writer: a thread with its own connection, and the one queue that it empties.

How it works
    `put` appends to the queue and returns; it does not wake the thread. Who needs its records on disk awaits `durable`: that
    rings the bell, the thread takes *everything* queued so far, by anybody, executes it in order in one transaction, and
    answers all who waited for any part of it: one fsync for all (group commit). Rows that nobody waits for are written
    after `linger_s` at the latest. `run` sends a function through the same queue, for what must read and write in one transaction.

    Two watermarks say how far it got: `_done` (committed: every process sees it, a killed process loses nothing of it) and
    `_synced` (on the platter). A commit that nobody waits for does not sync; the next one that somebody waits for syncs
    the WAL, and since the WAL is one sequence, all before it too. So fsyncs are exactly as many as barriers that had to wait.

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
import concurrent.futures
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from agent_graph.errors import LeaseLost, NotDurable, StorageError
from agent_graph.storage.faults import explain, is_busy, is_file_fault
from agent_graph.storage.schema import MEMORY, open_writer

__all__ = ["Attempt", "Writer"]

T = TypeVar("T")
_log = logging.getLogger("agent_graph.storage")

_IDLE_TICKS = 10
"""Empty linger ticks after which the thread sleeps until it is rung."""
_MAX_BATCH = 4_096
_MAX_QUEUED = 10_000
_MAX_QUEUED_BYTES = 64 * 1024 * 1024
_WAL_ALARM_BYTES = 32 * 1024 * 1024
_COMMITS_PER_WAL_CHECK = 64
_BEAT = "UPDATE ag_meta SET value = value + 1 WHERE name = 'beat'"
_EXIT_S = 5.0
"""How long the interpreter's exit waits for what is queued, in seconds."""

_LAZY: Final = 0
_NOW: Final = 1


class Attempt:
    """Who writes: one claim of one run. Its first failed write breaks it for good; a new claim is a new Attempt."""

    __slots__ = ("error", "failed_at", "fence", "last", "namespace", "run_id")

    def __init__(self, namespace: str, run_id: str, fence: int) -> None:
        self.namespace = namespace
        self.run_id = run_id
        self.fence = fence
        """The lease's number; 0: holds none, and may write only while nobody alive does."""
        self.error: BaseException | None = None
        self.failed_at = 0
        self.last = 0
        """Position of its newest record in the queue."""

    def fail(self, position: int, error: BaseException) -> None:
        """Break this attempt from `position` on; the first failure stays."""
        if self.error is None:
            self.failed_at = position
            self.error = error

    def raise_if_broken(self) -> None:
        """Raise LeaseLost or NotDurable if an earlier write failed."""
        if self.error is None:
            return
        if isinstance(self.error, LeaseLost):
            raise LeaseLost(str(self.error), run_id=self.run_id)
        raise NotDurable(
            f"run {self.run_id!r}: a write did not reach the disk ({self.error}). Nothing that depends on it was done; "
            "check space and rights of the storage, then resume the run."
        ) from self.error


class _Job(Generic[T]):
    """A function on its way through the queue, and its answer."""

    __slots__ = ("answer", "error", "function", "then")

    def __init__(self, function: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None) -> None:
        self.function = function
        self.then = then
        self.answer: T | None = None
        self.error: BaseException | None = None


class _Entry(NamedTuple):
    position: int
    attempt: Attempt | None
    sql: str
    parameters: Sequence[Any]
    many: bool
    job: _Job[Any] | None
    size: int


class _Waiter(NamedTuple):
    target: int
    synced: bool
    """Whether it waits for the platter, or only for the commit."""
    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[None] | concurrent.futures.Future[None]
    failure: list[BaseException]
    """Why the file could not be written, if so (a list, because it is known later)."""


Guard = Callable[[sqlite3.Connection, Attempt], None]
"""Raises LeaseLost where an attempt may not write; called inside the transaction."""


class Writer:
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
        self._locate = locate
        self._guard = guard
        self._durability = durability
        self._busy_s = busy_s
        self._linger_s = linger_s
        self._gather_s = gather_s
        self.crowd: Callable[[], bool] = lambda: False
        """Whether several runs write at once, so that waiting a moment for company saves fsyncs."""
        self.commits = 0
        self.syncs = 0
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._start_afresh()
        _living.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._rung = False
        self._asleep = True
        self._buffer: collections.deque[_Entry] = collections.deque()
        self._waiters: collections.deque[_Waiter] = collections.deque()
        self._bytes = 0
        self._queued = 0
        self._done = 0
        self._synced = 0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._finished = threading.Event()
        self._identity: tuple[int, int] | None = None
        self._unsynced: set[Attempt] = set()
        self._syncing = True
        self._path = ""
        self.generation = 0
        """How often the file has been opened; readers of an earlier generation may hold a file that is gone."""

    def abandon_after_fork(self) -> None:
        """Forget the parent's thread, queue and connection: in this process they never were.

        The connection is kept alive and unused: closing it here would run SQLite's clean-up on the parent's file.
        """
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None
        self._start_afresh()

    # -- queueing ------------------------------------------------------------------------------------------------------

    def put(
        self, attempt: Attempt, sql: str, parameters: Sequence[Any], *, many: bool = False, size: int = 256
    ) -> None:
        """Queue one statement (`many`: with several rows) and return; `size` is roughly its bytes."""
        attempt.raise_if_broken()
        self._enqueue(attempt, sql, parameters, many, None, size)

    def queue(
        self,
        function: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
        *,
        attempt: Attempt | None = None,
    ) -> None:
        """Queue `function` like a row: nobody waits for its answer, and its error breaks `attempt`, if there is one."""
        self._enqueue(attempt, "", (), False, _Job(function, then), 0)

    async def run(
        self,
        function: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
        *,
        attempt: Attempt | None = None,
    ) -> T:
        """Run `function` in the writer's transaction, in its turn, and return its answer once committed (not yet synced).

        It may be run twice (a batch is rolled back and done again without the row that failed), so it must depend on the
        database alone. `then` is called in the writer's thread once the commit stands.
        """
        job = _Job(function, then)
        waiter = self._enqueue(attempt, "", (), False, job, 0, asyncio.get_running_loop())
        self._ring()
        await _awaitable(waiter)
        return self._answer(job)

    def run_sync(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Do what `run` does for a caller without an event loop."""
        job = _Job(function, None)
        waiter = self._enqueue(None, "", (), False, job, 0, wait=True)
        self._ring()
        _blocking(waiter)
        return self._answer(job)

    def _answer(self, job: _Job[T]) -> T:
        if job.error is not None:
            raise job.error if not isinstance(job.error, sqlite3.Error) else explain(job.error, self.location)
        return job.answer  # type: ignore[return-value]  # without an error the function has answered; None may be its answer

    def _enqueue(
        self,
        attempt: Attempt | None,
        sql: str,
        parameters: Sequence[Any],
        many: bool,
        job: _Job[Any] | None,
        size: int,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        wait: bool = False,
    ) -> _Waiter | None:
        waiter: _Waiter | None = None
        with self._lock:
            if self._closed:
                raise StorageError(f"storage {self.location}: it has been closed. Open a new one.", backend="storage")
            if self._thread is None:
                self._start()
            self._queued = position = self._queued + 1
            self._bytes += size
            self._buffer.append(_Entry(position, attempt, sql, parameters, many, job, size))
            if attempt is not None:
                attempt.last = position
            if loop is not None or wait:
                waiter = self._new_waiter(position, loop, synced=False)
        if self._asleep:
            self._asleep = False
            self._bell.put(_LAZY)
        return waiter

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="agent_graph storage writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or the system is out of threads
            raise StorageError(
                f"storage {self.location}: its writer thread cannot start ({error}).", backend="storage"
            ) from error
        self._thread = thread

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def durable(self, attempt: Attempt | None = None) -> None:
        """Return when everything queued so far is on disk; raise if `attempt` is broken."""
        await _awaitable(self._barrier(synced=True, loop=asyncio.get_running_loop()))
        if attempt is not None:
            attempt.raise_if_broken()

    def durable_sync(self, attempt: Attempt | None = None) -> None:
        """Do what `durable` does for a caller without an event loop."""
        _blocking(self._barrier(synced=True, loop=None))
        if attempt is not None:
            attempt.raise_if_broken()

    async def ready(self) -> None:
        """Return when the file is open and a reader sees everything queued so far.

        Raises:
            StorageError: the file cannot be opened.
        """
        if self.generation == 0 or self._closed:
            await self.run(_nothing)
        else:
            await _awaitable(self._barrier(synced=False, loop=asyncio.get_running_loop()))

    def ready_sync(self) -> None:
        """Do what `ready` does for a caller without an event loop."""
        if self.generation == 0 or self._closed:
            self.run_sync(_nothing)
        else:
            _blocking(self._barrier(synced=False, loop=None))

    def is_settled(self, position: int) -> bool:
        """Return whether the record at `position` of the queue has been dealt with."""
        return position <= self._done

    async def room(self) -> None:
        """Return when the queue is no longer over its bound: back-pressure for whoever writes without barriers."""
        if len(self._buffer) > _MAX_QUEUED or self._bytes > _MAX_QUEUED_BYTES:
            await _awaitable(self._barrier(synced=False, loop=asyncio.get_running_loop()))

    def _barrier(self, *, synced: bool, loop: asyncio.AbstractEventLoop | None) -> _Waiter | None:
        with self._lock:
            target = self._queued
            if target <= (self._synced if synced else self._done):
                return None
            waiter = self._new_waiter(target, loop, synced=synced)
        self._ring()
        return waiter

    def _new_waiter(self, target: int, loop: asyncio.AbstractEventLoop | None, *, synced: bool) -> _Waiter:
        """Note a waiter; under the lock, so that the thread meets them in the order of their targets."""
        future: asyncio.Future[None] | concurrent.futures.Future[None]
        future = concurrent.futures.Future() if loop is None else loop.create_future()
        waiter = _Waiter(target, synced, loop, future, [])
        self._waiters.append(waiter)
        return waiter

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._asleep = False
            self._bell.put(_NOW)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                self._await_work()
                if self._waiters and self._gather_s and self.crowd():
                    time.sleep(self._gather_s)
                self._rung = False  # before the queue is taken: a bell rung from here on is heard in the next round
                self._round()
                if self._stopping and not self._buffer and self._synced >= self._done:
                    return
        finally:
            self._disconnect()
            self._finished.set()

    def _await_work(self) -> None:
        """Sleep until rung, or until rows that nobody waits for have lingered."""
        ticks = 0
        while not self._stopping:
            deep = ticks >= _IDLE_TICKS
            if deep:
                if self._synced < self._done:
                    return  # nothing more comes: put what was committed without a sync onto the platter
                self._asleep = True
                if self._buffer:
                    self._asleep = deep = False
            try:
                if self._bell.get(timeout=None if deep else self._linger_s) == _NOW:
                    return
                ticks = 0
            except queue.Empty:
                if self._buffer:
                    return
                ticks += 1

    def _round(self) -> None:
        with self._lock:
            batch = [self._buffer.popleft() for _ in range(min(len(self._buffer), _MAX_BATCH))]
            self._bytes -= sum(entry.size for entry in batch)
            target = batch[-1].position if batch else self._done
            sync = self._done > self._synced if not batch else False
            sync = sync or any(waiter.synced and waiter.target <= target for waiter in self._waiters)
        failure = self._commit(batch, sync=sync)
        for entry in batch:
            _finish(entry.job)
        with self._lock:
            self._done = target
            if sync or failure is not None or self._durability == "process":
                self._synced = target
            woken = self._take_waiters()
            if self._buffer and self._waiters:
                self._ring()
        _wake(woken, failure)

    def _take_waiters(self) -> list[_Waiter]:
        ready = [w for w in self._waiters if w.target <= (self._synced if w.synced else self._done)]
        if ready:
            self._waiters = collections.deque(
                w for w in self._waiters if w.target > (self._synced if w.synced else self._done)
            )
        return ready

    # -- one transaction -----------------------------------------------------------------------------------------------

    def _commit(self, batch: Sequence[_Entry], *, sync: bool) -> BaseException | None:
        """Write `batch`, and sync if `sync`; return why the file could not be written, else None. Never raises."""
        if not batch and not sync:
            return None
        while True:
            try:
                connection = self._connected()
                self._execute(connection, batch, sync=sync)
                return None
            except _RowFaultError:
                continue  # again, without the row that failed
            except Exception as error:  # noqa: BLE001 - the thread must live: whoever waits is told
                return self._fail_all(batch, error)

    def _execute(self, connection: sqlite3.Connection, batch: Sequence[_Entry], *, sync: bool) -> None:
        self._set_syncing(connection, sync=sync)
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            self._apply_all(connection, batch)
            if sync and connection.total_changes == before:
                connection.execute(_BEAT)  # a commit without a change syncs nothing
            connection.execute("COMMIT")
        except BaseException:
            _rollback(connection)
            raise
        self.commits += 1
        self._note_synced(batch, sync=sync)
        self._bound_wal(connection)

    def _apply_all(self, connection: sqlite3.Connection, batch: Sequence[_Entry]) -> None:
        admitted: set[Attempt] = set()
        for entry in batch:
            if _is_refused(entry):
                continue
            try:
                self._apply(connection, entry, admitted)
            except Exception as error:
                if is_file_fault(error) and (entry.job is None or isinstance(error, sqlite3.Error)):
                    raise
                _blame(entry, error)
                raise _RowFaultError from error

    def _note_synced(self, batch: Sequence[_Entry], *, sync: bool) -> None:
        if self._durability == "process":
            return
        if sync:
            self.syncs += 1
            self._unsynced.clear()
        else:
            self._unsynced.update(entry.attempt for entry in batch if entry.attempt is not None)

    def _apply(self, connection: sqlite3.Connection, entry: _Entry, admitted: set[Attempt]) -> None:
        attempt = entry.attempt
        if attempt is not None and attempt not in admitted:
            self._guard(connection, attempt)
            admitted.add(attempt)
        if entry.job is not None:
            entry.job.answer = entry.job.function(connection)
            admitted.clear()  # a claim among the jobs may have changed who may write
        elif entry.many:
            connection.executemany(entry.sql, entry.parameters)
        else:
            connection.execute(entry.sql, entry.parameters)

    def _fail_all(self, batch: Sequence[_Entry], error: BaseException) -> BaseException:
        if not is_busy(error):
            self._disconnect()
        told = explain(error, self.location) if is_file_fault(error) else error
        for entry in batch:
            _blame(entry, told)
        for attempt in self._unsynced:  # what they committed may not survive a power cut, and never will for certain
            attempt.fail(attempt.last, told)
        self._unsynced.clear()
        return told

    def _set_syncing(self, connection: sqlite3.Connection, *, sync: bool) -> None:
        if self._durability == "power" and sync != self._syncing:
            connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            self._syncing = sync

    # -- the connection ------------------------------------------------------------------------------------------------

    @property
    def location(self) -> str:
        """The path, once it has been opened."""
        return self._path or "not opened yet"

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != _identity_of(self._path):
            self._disconnect()  # somebody removed or replaced the file: go on in the one that has its name now
        if self._connection is None:
            self._path = self._locate()
            self._connection = open_writer(self._path, durability=self._durability, busy_s=self._busy_s)
            self._identity = _identity_of(self._path)
            self._syncing = True
            self.generation += 1
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None and self._path != MEMORY:
            connection, self._connection = self._connection, None
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _bound_wal(self, connection: sqlite3.Connection) -> None:
        """Empty a WAL that readers kept SQLite's own checkpoints from resetting."""
        if self.commits % _COMMITS_PER_WAL_CHECK or self._path == MEMORY:
            return
        with contextlib.suppress(OSError, sqlite3.Error):
            if Path(f"{self._path}-wal").stat().st_size > _WAL_ALARM_BYTES:
                connection.execute("PRAGMA busy_timeout=200")  # a reader that stays longer must not stop the writing
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute(f"PRAGMA busy_timeout={int(self._busy_s * 1000)}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the thread write what is queued and end; returns at once. Later uses raise StorageError."""
        with self._lock:
            self._closed = True
            self._stopping = True
        self._bell.put(_NOW)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; return whether it came within `timeout_s` seconds."""
        return self._thread is None or self._finished.wait(timeout_s)

    @property
    def busy_s(self) -> float:
        """How long a foreign lock is waited for, in seconds."""
        return self._busy_s


def _nothing(connection: sqlite3.Connection) -> None:
    """Only make sure that the file is open."""


class _RowFaultError(Exception):
    """One entry was refused: roll back and do the batch again without it."""


def _is_refused(entry: _Entry) -> bool:
    """Return whether this entry's attempt is broken (or its function has failed), so that it is left out."""
    attempt = entry.attempt
    if attempt is not None and attempt.error is not None and entry.position >= attempt.failed_at:
        _blame(entry, attempt.error)
    elif entry.job is None or entry.job.error is None:
        return False
    return True


def _finish(job: _Job[Any] | None) -> None:
    if job is not None and job.then is not None and job.error is None:
        try:
            job.then(job.answer)
        except Exception:
            _log.exception("storage: what follows a committed record failed")


def _blame(entry: _Entry, error: BaseException) -> None:
    if entry.attempt is not None:
        entry.attempt.fail(entry.position, error)
    if entry.job is not None:
        entry.job.error = error


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _identity_of(path: str) -> tuple[int, int] | None:
    if path == MEMORY:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - once per commit: a Path costs more than the call
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


async def _awaitable(waiter: _Waiter | None) -> None:
    if waiter is not None:
        assert isinstance(waiter.future, asyncio.Future)
        await waiter.future
        _raise_failure(waiter)


def _blocking(waiter: _Waiter | None) -> None:
    if waiter is not None:
        assert isinstance(waiter.future, concurrent.futures.Future)
        waiter.future.result()
        _raise_failure(waiter)


def _raise_failure(waiter: _Waiter) -> None:
    if waiter.synced and waiter.failure:
        raise NotDurable(f"a write did not reach the disk: {waiter.failure[0]}") from waiter.failure[0]


def _wake(waiters: Sequence[_Waiter], failure: BaseException | None) -> None:
    """Tell each waiter in its own loop, with one call per loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiter in waiters:
        if failure is not None:
            waiter.failure.append(failure)
        if isinstance(waiter.future, concurrent.futures.Future):
            waiter.future.set_result(None)
        elif waiter.loop is not None:
            loops.setdefault(waiter.loop, []).append(waiter.future)
    for loop, futures in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_set_all, futures)


def _set_all(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # cancelled
            future.set_result(None)


_living: weakref.WeakSet[Writer] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


@atexit.register
def _write_what_is_queued() -> None:
    """Give every writer a bounded time to empty its queue before the interpreter ends."""
    writers = list(_living)
    for writer in writers:
        writer.stop()
    deadline = time.monotonic() + _EXIT_S
    for writer in writers:
        writer.join(max(0.0, deadline - time.monotonic()))


def _after_fork_in_child() -> None:
    for writer in list(_living):
        writer.abandon_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
