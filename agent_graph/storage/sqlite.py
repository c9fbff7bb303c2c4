"""SqliteStorage: checkpoints, turns, journal, ledger, notes, leases and the default memory in one SQLite file.

How it works
    All writing goes through one thread and one queue (`writer.py`); reading has connections of its own, which first wait until
    what this process has queued is in the file. A claim is a function sent through the same queue: it reads the run's turns
    and lease, asks the pure table in `claims.py`, and writes its answer in the transaction that read. The fence it hands out is
    a number that only grows. Every record carries the fence of its claim, and the writer compares it with the lease's row
    inside the transaction that writes the record: whoever lost the lease writes nothing any more.

What must stay true
    1. Nothing is opened or created before the first use.
    2. A record is refused if its claim is not the run's newest; a claim refused leaves no trace.
    3. In a forked child nothing of the parent's is held, queued or written.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from agent_graph.errors import ConfigError, LeaseLost, NotDurable, StorageError
from agent_graph.storage import budgets, claiming
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.forking import Forkable
from agent_graph.storage.leases import Hold, Keeper
from agent_graph.storage.location import Place
from agent_graph.storage.memory import MemoryRows
from agent_graph.storage.port import (
    BudgetAnswer,
    BudgetCap,
    BudgetUse,
    Charge,
    Claim,
    JournalRow,
    LedgerRow,
    NoteRow,
    Redactor,
    Row,
    Storage,
    TurnKey,
    TurnRequest,
    TurnRow,
)
from agent_graph.storage.readers import Readers
from agent_graph.storage.registry import Registry
from agent_graph.storage.rows import (
    JOURNAL_COLUMNS,
    LEDGER_COLUMNS,
    NOTE_COLUMNS,
    TURN_COLUMNS,
    read_journal,
    read_ledger,
    read_note,
    read_turn,
    statement,
)
from agent_graph.storage.schema import MEMORY
from agent_graph.storage.writer import Writer
from agent_graph.types import Message

if TYPE_CHECKING:
    from agent_graph.storage.saver import SqliteCheckpointer

__all__ = ["SqliteStorage"]

T = TypeVar("T")

_PRUNED_AT_ONCE = 20
"""Runs that one transaction deletes."""
_MAX_BUSY_S = 86_400
"""SQLite counts it in milliseconds, in 32 bits."""


class SqliteStorage(Storage, Forkable):
    """A storage in one SQLite file; many agents, threads, event loops and processes of one machine may share it.

    ```python
    storage = SqliteStorage("runs.db")
    ```

    `path`: the file, ":memory:", or None for the default place (`location.py`). `durability`: what a record survives that
    `durable` has answered for, "power" cuts or (faster) only a killed "process". `redact`: takes secrets out of what is written.
    `busy_s`: how long another program's lock on the file is waited for, in seconds.

    Raises:
        ConfigError: one of them cannot be. Nothing is opened before the first use.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        durability: Literal["power", "process"] = "power",
        redact: Redactor | None = None,
        busy_s: float = 30.0,
    ) -> None:
        _insist(path, durability, redact, busy_s)
        self._place = Place(path, os.environ)
        self._durability = durability
        self._redact = redact
        self._memory = MemoryRows(redact)
        self._writer = Writer(self._place.locate, claiming.guard, durability=durability, busy_s=busy_s)
        self._readers = Readers(self._writer, in_memory=str(path) == MEMORY)
        self._keeper = Keeper(renew=_renewal(self._writer), give_back=_return(self._writer))
        self._start_afresh()
        # The threads know the writer and the keeper, not this object: an unclosed storage can be collected, and ends them.
        self._finalizer = weakref.finalize(self, _end, self._keeper, self._readers, self._writer)
        self._finalizer.atexit = False
        self._saver: SqliteCheckpointer | None = None
        Forkable.__init__(self)

    def _start_afresh(self) -> None:
        self.registry = Registry(self._writer.is_settled)
        """Who writes in this process."""
        self._writer.crowd = self.registry.is_crowd

    def before_fork(self) -> None:
        """Nothing to close: the writer and the readers are told themselves."""

    def after_fork_in_parent(self) -> None:
        """Nothing to do."""

    def after_fork_in_child(self) -> None:
        """Hold nothing of the parent's; the child opens the file anew at its first use."""
        self._keeper.abandon_after_fork()
        self._memory = MemoryRows(self._redact)  # its lock may have been held by a thread that is not here
        self._start_afresh()

    @property
    def checkpointer(self) -> SqliteCheckpointer:
        """LangGraph's saver over the same file and the same queue."""
        if self._saver is None:
            from agent_graph.storage.saver import SqliteCheckpointer

            self._saver = SqliteCheckpointer(self, redact=self._redact)
        return self._saver

    # -- who may run ---------------------------------------------------------------------------------------------------

    async def claim(self, request: TurnRequest, owner: object) -> Claim:
        """Decide in one transaction what `request` may do, and take the lease where it may run; see the port."""
        hold = Hold(request.namespace, request.run_id, owner=owner, lease_s=request.lease_s)
        self._keeper.announce(hold)
        try:
            return await self._writer.run(
                lambda connection: claiming.claim(connection, request, hold, redact=self._redact),
                lambda claim: self._take(hold, claim),
            )
        except asyncio.CancelledError:
            self._withdraw(hold)
            raise
        except BaseException:
            self._keeper.drop(hold)
            raise

    def _withdraw(self, hold: Hold) -> None:
        """Undo a claim whose caller went away; the queue keeps order, so this comes after the claim."""
        try:
            self._writer.queue(lambda connection: claiming.stop(connection, hold), lambda _: self._let_go(hold))
        except StorageError:  # closed meanwhile
            self._let_go(hold)

    def _take(self, hold: Hold, claim: Claim) -> None:
        if claim.outcome not in {"new", "resume"}:
            self._keeper.drop(hold)
            return
        self.registry.add(hold, claim.fence)
        hold.fence = claim.fence
        self._keeper.keep(hold)

    def _let_go(self, hold: Hold) -> None:
        self.registry.remove(hold)
        self._keeper.drop(hold)

    async def release(self, key: TurnKey, *, fence: int) -> None:
        """Give the lease back once everything queued for the turn is on disk; see the port."""
        found = self.registry.claim((key.namespace, key.run_id), fence)
        if found is None:
            return
        attempt, hold = found
        self._writer.queue(lambda connection: claiming.give_back(connection, hold))
        try:
            await self._writer.durable(attempt)
        except LeaseLost:
            pass  # it is somebody else's by now: just what was wanted
        finally:
            self._let_go(hold)

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, row: Row, *, fence: int) -> None:
        """Queue `row`; see the port. `fence=0`: without a claim, as long as nobody alive has one."""
        attempt = self.registry.under((row.key.namespace, row.key.run_id), fence)
        if isinstance(row, LedgerRow) and row.charges:
            attempt.raise_if_broken()
            self._writer.queue(lambda connection: budgets.book(connection, row, self._redact), attempt=attempt)
            return
        if isinstance(row, TurnRow) and row.has_ended and not row.delivered:
            attempt.raise_if_broken()
            key = row.key
            self._writer.queue(lambda connection: budgets.give_back(connection, key.namespace, key.run_id, key.turn), attempt=attempt)
        sql, parameters, size = statement(row, self._redact)
        self._writer.put(attempt, sql, parameters, size=size)

    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        """Queue `row`; it is written if its budgets hold it; see the port."""
        attempt = self.registry.under((row.key.namespace, row.key.run_id), fence)
        attempt.raise_if_broken()

        def decide(connection: sqlite3.Connection) -> BudgetAnswer:
            claiming.guard(connection, attempt)
            return budgets.reserve(connection, row, caps, self._redact)

        return self._writer.begin(decide)

    async def budget_use(self, charge: Charge) -> BudgetUse:
        """Return what counts in a shared budget now."""
        return await self._readers.read(lambda connection: budgets.use(connection, charge))

    async def budgets(self, namespace: str) -> Sequence[tuple[Charge, BudgetUse]]:
        """Return the shared budgets that were ever used, and what counts in each."""
        return await self._readers.read(lambda connection: budgets.uses(connection, namespace))

    async def durable(self, key: TurnKey, *, fence: int | None = None) -> None:
        """Return when everything queued so far is on disk; see the port. `fence` tells two attempts of one process apart."""
        name = (key.namespace, key.run_id)
        attempt = self.registry.under(name, fence) if fence else self.registry.waiting(name)
        if attempt is None:
            await self._writer.durable()
        else:
            await self.durable_for(attempt)

    async def durable_for(self, attempt: Attempt) -> None:
        """Return when everything queued so far is on disk; raise if `attempt` is broken."""
        try:
            await self._writer.durable(attempt)
        except (NotDurable, LeaseLost):
            self.registry.told(attempt)
            raise

    def durable_for_sync(self, attempt: Attempt) -> None:
        """Do what `durable_for` does for a caller without an event loop."""
        try:
            self._writer.durable_sync(attempt)
        except (NotDurable, LeaseLost):
            self.registry.told(attempt)
            raise

    # -- reading -------------------------------------------------------------------------------------------------------

    async def turns(self, namespace: str, run_id: str) -> Sequence[TurnRow]:
        """Return the turns of a run in order."""
        where = "WHERE namespace = ? AND run_id = ? ORDER BY turn"
        return await self._select(read_turn, TURN_COLUMNS, "ag_turns", where, (namespace, run_id))

    async def journal(self, key: TurnKey) -> Sequence[JournalRow]:
        """Return the tool calls of a turn by (step, index)."""
        return await self._select(read_journal, JOURNAL_COLUMNS, "ag_journal", f"{_OF_TURN} ORDER BY step, position", _values(key))

    async def ledger(self, key: TurnKey) -> Sequence[LedgerRow]:
        """Return the attempts at model calls of a turn by entry."""
        return await self._select(read_ledger, LEDGER_COLUMNS, "ag_ledger", f"{_OF_TURN} ORDER BY entry", _values(key))

    async def notes(self, key: TurnKey) -> Sequence[NoteRow]:
        """Return the notes of a turn in order."""
        return await self._select(read_note, NOTE_COLUMNS, "ag_notes", f"{_OF_TURN} ORDER BY id", _values(key))

    async def unfinished(self, namespace: str, agent: str) -> Sequence[TurnRow]:
        """Return this agent's turns that were begun and not ended, and that nobody alive works on."""
        return await self._readers.read(lambda connection: claiming.unfinished(connection, namespace, agent))

    async def runs(self, namespace: str | None = None, *, limit: int = 50) -> Sequence[TurnRow]:
        """Return the newest turn of each run, newest first."""
        newest = "turn = (SELECT MAX(t.turn) FROM ag_turns t WHERE t.namespace = ag_turns.namespace AND t.run_id = ag_turns.run_id)"
        where = f"WHERE (?1 IS NULL OR namespace = ?1) AND {newest} ORDER BY started_at DESC, rowid DESC LIMIT ?2"
        return await self._select(read_turn, TURN_COLUMNS, "ag_turns", where, (namespace, limit))

    async def _select(self, make: Callable[[Sequence[Any]], T], columns: str, table: str, rest: str, parameters: Sequence[Any]) -> list[T]:
        sql = f"SELECT {columns} FROM {table} {rest}"  # noqa: S608 - names from this package only; values are bound
        return await self._readers.read(lambda connection: [make(row) for row in connection.execute(sql, parameters)])

    # -- the default memory --------------------------------------------------------------------------------------------

    async def load_memory(self, namespace: str, run_id: str) -> list[Message]:
        """Return the saved messages of a run; an empty list for an unknown one."""
        return await self._readers.read(lambda connection: self._memory.load(connection, namespace, run_id))

    async def save_memory(self, namespace: str, run_id: str, messages: Sequence[Message]) -> None:
        """Queue the whole list; only what differs from the last saved list is written."""
        attempt = self.registry.of((namespace, run_id))
        attempt.raise_if_broken()
        self._writer.queue(self._memory.save(namespace, run_id, messages), attempt=attempt)
        await self._writer.room()

    # -- housekeeping --------------------------------------------------------------------------------------------------

    async def delete(self, namespace: str, run_id: str) -> None:
        """Delete everything of a run. Raises RunInProgress while somebody alive works on it."""
        await self._writer.run(lambda connection: claiming.delete(connection, namespace, run_id))
        self._memory.forget(namespace, run_id)
        await self._writer.durable()

    async def prune(self, *, before: float, namespace: str | None = None) -> Sequence[tuple[str, str]]:
        """Delete every run that is over and was last touched before `before` (seconds since the epoch); see the port."""
        candidates = await self._readers.read(lambda connection: claiming.over(connection, namespace, before))
        deleted: list[tuple[str, str]] = []
        for begin in range(0, len(candidates), _PRUNED_AT_ONCE):  # whoever else writes need not wait for all of it
            chunk = candidates[begin : begin + _PRUNED_AT_ONCE]
            deleted += await self._writer.run(functools.partial(claiming.prune, names=chunk, before=before))
        for name in deleted:
            self._memory.forget(*name)
        await self._writer.durable()
        return deleted

    async def close(self) -> None:
        """Write what is queued and close; a second call does nothing. Never hangs."""
        if not self._finalizer.detach():
            return
        _end(self._keeper, self._readers, self._writer)
        limit = self._writer.busy_s + 5.0
        if not await asyncio.get_running_loop().run_in_executor(None, self._writer.join, limit):
            raise NotDurable(f"storage {self.location}: what was queued could not be written within {limit:g} s.")

    @property
    def location(self) -> str:
        """The file's path (before the first use: the planned one), or ":memory:"."""
        return self._place.name

    @property
    def promises(self) -> Sequence[str]:
        """What this storage survives, one plain sentence each."""
        if self._place.name == MEMORY:
            return ("Runs are kept in memory: they end with this process.",)
        survives = "a power cut" if self._durability == "power" else "a killed process (after a power cut the last records may be missing)"
        lines = [f"Runs are kept in {self._place.name}: what was recorded survives {survives}."]
        if self._place.warning:
            lines.append(self._place.warning)
        return lines

    @property
    def writer(self) -> Writer:
        """The queue; for the checkpointer, which shares it."""
        return self._writer

    @property
    def readers(self) -> Readers:
        """The reading connections; for the checkpointer, which shares them."""
        return self._readers


def _insist(path: object, durability: object, redact: object, busy_s: object) -> None:
    """Raise ConfigError for a setting that cannot be."""
    if path is not None and not (isinstance(path, str | Path) and str(path).strip() and "\0" not in str(path)):
        raise ConfigError(f"storage: a path is due, not {path!r}.")
    if durability not in ("power", "process"):
        raise ConfigError(f"durability: 'power' or 'process' is due, not {durability!r}.")
    if redact is not None and not callable(redact):
        raise ConfigError(f"redact: a function that takes and returns text is due, not {redact!r}.")
    if isinstance(busy_s, bool) or not isinstance(busy_s, int | float) or not 0 <= busy_s <= _MAX_BUSY_S:
        raise ConfigError(f"busy_s: seconds from 0 to {_MAX_BUSY_S:,} are due, not {busy_s!r}.")


_OF_TURN = "WHERE namespace = ? AND run_id = ? AND turn = ?"


def _values(key: TurnKey) -> tuple[str, str, int]:
    return (key.namespace, key.run_id, key.turn)


def _renewal(writer: Writer) -> Callable[[Hold], None]:
    def renew(hold: Hold) -> None:
        with contextlib.suppress(StorageError):  # closed meanwhile
            writer.queue(lambda connection: claiming.renew(connection, hold))

    return renew


def _return(writer: Writer) -> Callable[[Hold], None]:
    def give_back(hold: Hold) -> None:
        with contextlib.suppress(StorageError):
            writer.queue(lambda connection: claiming.give_back(connection, hold))

    return give_back


def _end(keeper: Keeper, readers: Readers, writer: Writer) -> None:
    readers.close()
    keeper.stop()
    writer.stop()
