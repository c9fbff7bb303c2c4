"""Reading: connections of their own, on threads of their own, which see all that this process has queued.

A read first waits until the writer has dealt with the queue, so that whoever queued a row and reads it back finds it. A file
in memory has no second connection: there the writer reads, in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent_graph.storage.committer import leak
from agent_graph.storage.faults import explain
from agent_graph.storage.forking import Forkable, Gate
from agent_graph.storage.schema import open_reader
from agent_graph.storage.writer import Writer

__all__ = ["Readers"]

T = TypeVar("T")
_THREADS = 2


class Readers(Forkable):
    """A few connections that cannot write, lent to one read at a time."""

    def __init__(self, writer: Writer, *, in_memory: bool) -> None:
        self._writer = writer
        self._in_memory = in_memory
        self._closed = False
        self._start_afresh()
        super().__init__()

    def _start_afresh(self) -> None:
        self._idle: list[sqlite3.Connection] = []
        self._generation = 0
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._gate = Gate()
        self._calm = True

    def before_fork(self) -> None:
        """Let the reads under way end, and close the connections."""
        self._calm = self._gate.shut()
        if self._calm:
            for connection in self._idle:
                connection.close()
            self._idle = []

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads."""
        if not self._calm:
            self._writer.spoil()
        self._start_afresh()

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `function` reads; it must not write.

        Raises:
            StorageError: the file cannot be opened or read, or the storage has been closed.
        """
        if self._in_memory:
            return await self._writer.run(function)
        await self._writer.ready()
        return await asyncio.get_running_loop().run_in_executor(self._executor(), self._lend, function)

    def read_sync(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Do what `read` does, in the calling thread."""
        if self._in_memory:
            return self._writer.run_sync(function)
        self._writer.ready_sync()
        return self._lend(function)

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="agent_graph storage reader")
            return self._threads

    def _lend(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._gate, self._connection() as connection:
                return function(connection)
        except sqlite3.Error as error:
            raise explain(error, self._writer.location) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        generation = self._writer.generation
        connection = self._taken(generation) or open_reader(self._writer.location, busy_s=self._writer.busy_s)
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.rollback()
            self._give_back(connection, generation)

    def _give_back(self, connection: sqlite3.Connection, generation: int) -> None:
        with self._lock:
            if not self._closed and generation == self._generation:
                self._idle.append(connection)
                return
        if self._closed:
            connection.close()
        else:
            leak(connection)

    def _taken(self, generation: int) -> sqlite3.Connection | None:
        """Return an idle connection of this generation; the file of an earlier one is gone."""
        with self._lock:
            if generation != self._generation:
                stale, self._idle, self._generation = self._idle, [], generation
            else:
                stale = []
            connection = self._idle.pop() if self._idle else None
        for old in stale:
            leak(old)
        return connection

    def close(self) -> None:
        """Close the connections; one that is lent out is closed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            threads, self._threads = self._threads, None
        for connection in idle:
            connection.close()
        if threads is not None:
            threads.shutdown(wait=False)
