"""Turns of graphs that are not ours, while this process works on them.

How it works
    A hook enters the turn that it works for, and leaves it at its end. The first to enter claims the turn in the storage, as the agent
    does: one process at a time works on it. The rows that are there already come back as its account. The claim is kept while anybody
    is inside, and for a moment after: nothing tells us when a graph has ended, failed or been given up, and the next hook mostly follows
    at once. Whoever else asks for the turn waits for that moment; a process that was killed holds nobody up.

What must stay true
    1. Nobody writes for a turn without its claim. (A zombie's writes are refused: LeaseLost.)
    2. One turn is one object in a process, whichever of our middleware, tasks and threads work on it.
    3. Time counts only while somebody is inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from agent_graph.config import AgentConfig
from agent_graph.decisions.budget import Limits
from agent_graph.decisions.tokens import estimate_text
from agent_graph.errors import LeaseLost, NotDurable, RunConflict, RunInProgress
from agent_graph.runtime import lineage
from agent_graph.runtime.clock import SystemClock
from agent_graph.runtime.turn import Turn, current_turn
from agent_graph.storage.opening import open_storage
from agent_graph.storage.port import Claim, Storage, TurnKey, TurnRequest, TurnRow
from agent_graph.types import ToolCall
from agent_graph_adapters.langchain.middleware.both_ways import Wait
from agent_graph_adapters.langchain.middleware.names import Begun

__all__ = ["NAMESPACE", "Hosted", "Nobody", "Turns", "begetting", "storage_of", "turns_in", "unstored"]

NAMESPACE = "create_agent"
"""Of our rows in the storage. Not the default one: its claims would speak for the checkpoints of the same thread."""
IDLE_S = 2.0
"""How long a claim is kept after its last hook."""
POLL_S = 0.05
PATIENCE_S = 30.0
"""How long a hook waits for a turn that another process works on."""
KEPT = 1_024
"""So many turns are remembered in memory, beyond those at work; of stored ones the storage remembers all."""
KEPT_UNSTORED = 10_000

_storages: weakref.WeakValueDictionary[str, Storage] = weakref.WeakValueDictionary()
_turns: weakref.WeakKeyDictionary[Storage, Turns] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def storage_of(storage: str | Path | Storage | None) -> Storage:
    """Return the storage that `storage` means; of one path one storage in the process, however many agents name it."""
    if isinstance(storage, str | Path) and str(storage).strip() and str(storage) != ":memory:":
        path = str(Path.cwd() / Path(storage).expanduser())
        with _lock:
            known = _storages.get(path)
            if known is None:
                known = _storages[path] = open_storage(path)
            return known
    return open_storage(storage)


def turns_in(storage: Storage) -> Turns:
    """Return the turns of a storage: the same object for all who share it."""
    with _lock:
        return _turns.setdefault(storage, Turns(weakref.ref(storage)))


class Presence:
    """Who holds a claim: it is over once nobody has been inside for a while, and then for good. Whoever makes it is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = 1
        self._left_at = time.monotonic()
        self._ended = self._over = False

    def enter(self) -> bool:
        """Come in, unless it is over."""
        with self._lock:
            self._over = self._over or self._is_idle()
            self.inside += not self._over
            return not self._over

    def leave(self) -> None:
        """Go out."""
        with self._lock:
            self.inside -= 1
            self._left_at = time.monotonic()

    def end(self) -> None:
        """Let it be over as soon as nobody is inside."""
        with self._lock:
            self._ended = True

    def done(self) -> bool:
        """Return whether it is over; the storage's keeper of leases asks."""
        with self._lock:
            self._over = self._over or self._is_idle()
            return self._over

    def _is_idle(self) -> bool:
        return not self.inside and (self._ended or time.monotonic() - self._left_at > IDLE_S)


class Nobody:
    """What a Turn asks of its agent, where it has none."""

    def __init__(self) -> None:
        self.config = AgentConfig()
        self.recorder = self

    def tool_call(self, call: ToolCall, run_id: str) -> None:
        """Nobody observes."""

    def count_text(self, text: str) -> int:
        """Return the estimated tokens of a text."""
        return estimate_text(text)


class _Unstored:
    """Stands for a storage where none was given: what is put there is gone with the process."""

    def put(self, row: Any, *, fence: int) -> None:
        """Forget `row`; the turn itself keeps the sums."""

    async def durable(self, key: TurnKey, *, fence: int | None = None) -> None:
        """Nothing to wait for."""

    @property
    def location(self) -> str:
        """Nowhere that another would share."""
        return ":memory:"


class Hosted:
    """A turn, and who is inside. Whoever makes it is."""

    def __init__(self, turn: Turn, presence: Presence) -> None:
        self.turn = turn
        turn.start_clock()
        self.presence = presence
        self.lock = threading.RLock()
        """Held while figures are compared and booked, never while anything is waited for."""

    def enter(self) -> bool:
        """Come in and let time count, unless the claim is over."""
        with self.lock:
            if not self.presence.enter():
                return False
            if self.presence.inside == 1:
                self.turn.start_clock()
            return True

    def leave(self) -> None:
        """Go out."""
        with self.lock:
            self.presence.leave()
            if not self.presence.inside:
                self.turn.pause_clock()


@contextlib.contextmanager
def begetting(hosted: Hosted) -> Iterator[None]:
    """What is begun here, our agents' turns and those of other graphs, is this turn's child."""
    token = current_turn.set(hosted.turn)
    try:
        yield
    finally:
        current_turn.reset(token)


class Turns:
    """The turns of one storage, or of none. Used by many tasks, threads and event loops at once."""

    def __init__(self, storage: weakref.ref[Storage] | None) -> None:
        self._storage = storage
        self._live: OrderedDict[str, Hosted] = OrderedDict()
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def at_work(self, begun: Begun, wait: Wait, *, limits: Limits | None = None) -> AsyncIterator[Hosted]:
        """Enter a turn, let `limits` hold in it, and leave it at the end.

        Raises:
            RunInProgress: another process works on it, and goes on doing so. RunConflict: its human message was changed meanwhile.
            StorageError, NotDurable, LeaseLost.
        """
        known = self._entered(begun.run_id)
        hosted = known if known is not None else await wait(self._claimed(begun, lineage.parent()))
        try:
            if limits is not None:
                hosted.turn.limit(limits)
            yield hosted
        except (LeaseLost, NotDurable):
            self._forget(begun.run_id, hosted)
            raise
        finally:
            hosted.leave()

    def live(self, begun: Begun) -> Hosted | None:
        """Return the turn if this process works on it."""
        return self._live.get(begun.run_id)

    def end(self, hosted: Hosted) -> None:
        """Note that the turn has ended, and free it; should its graph go on all the same, it is taken up again."""
        if self._storage is None:
            return  # its sums are nowhere else
        hosted.turn.account.leave()
        with contextlib.suppress(LeaseLost):
            hosted.turn.put_turn("complete", result=False, delivered=True)
        self._forget(hosted.turn.key.run_id, hosted)
        hosted.presence.end()

    def _entered(self, run_id: str) -> Hosted | None:
        with self._lock:
            hosted = self._live.get(run_id)
            if hosted is None:
                return None
            if hosted.enter():
                self._live.move_to_end(run_id)
                return hosted
            del self._live[run_id]
            return None

    def _forget(self, run_id: str, hosted: Hosted) -> None:
        with self._lock:
            if self._live.get(run_id) is hosted:
                del self._live[run_id]

    async def _claimed(self, begun: Begun, parent: Turn | None) -> Hosted:
        if self._storage is None:
            return self._unstored(begun, parent)
        storage = self._storage()
        assert storage is not None, "whoever enters a turn holds its storage"
        await _reopen(storage, begun)
        until = time.monotonic() + PATIENCE_S
        while True:
            hosted = self._entered(begun.run_id)  # another task of this process was first
            if hosted is not None:
                return hosted
            presence = Presence()
            claim = await storage.claim(_request(begun), presence)
            if claim.outcome in ("new", "resume"):
                return await self._taken(storage, claim, presence, parent)
            if claim.outcome != "busy" or time.monotonic() >= until:
                raise _refused(claim, begun)
            await asyncio.sleep(POLL_S)

    async def _taken(self, storage: Storage, claim: Claim, presence: Presence, parent: Turn | None) -> Hosted:
        assert claim.turn is not None, "a granted claim names its turn"
        turn = _turn(claim.turn, claim.fence, storage, parent)
        if claim.outcome == "resume":
            key = turn.key
            turn.restore(await storage.journal(key), await storage.ledger(key), await storage.notes(key))
        turn.account.join()
        return self._kept(Hosted(turn, presence), KEPT)

    def _unstored(self, begun: Begun, parent: Turn | None) -> Hosted:
        known = self._entered(begun.run_id)
        if known is not None:
            return known
        row = TurnRow(key=TurnKey(NAMESPACE, begun.run_id, 1), agent=begun.agent, input=begun.input, status="running")
        return self._kept(Hosted(_turn(row, 0, cast("Storage", _Unstored()), parent), _Staying()), KEPT_UNSTORED)

    def _kept(self, hosted: Hosted, most: int) -> Hosted:
        with self._lock:
            first = self._live.get(hosted.turn.key.run_id)
            if first is not None and first.enter():
                return first  # of an unstored turn: another thread was first
            self._live[hosted.turn.key.run_id] = hosted
            idle = [name for name, other in self._live.items() if not other.presence.inside] if len(self._live) > most else []
            for name in idle[: len(self._live) - most]:
                self._live.pop(name).presence.end()
            return hosted


class _Staying(Presence):
    """Of a turn that no storage keeps: it is over only when it is forgotten."""

    def _is_idle(self) -> bool:
        return False


def unstored(begun: Begun, agent: Any) -> Turn:
    """Return a turn that is kept nowhere."""
    row = TurnRow(key=TurnKey(NAMESPACE, begun.run_id, 1), agent=begun.agent, input=begun.input, status="running")
    return _turn(row, 0, cast("Storage", _Unstored()), None, agent)


def _turn(row: TurnRow, fence: int, storage: Storage, parent: Turn | None, agent: Any = None) -> Turn:
    turn = Turn(agent=agent or Nobody(), row=row, fence=fence, storage=storage, clock=SystemClock(), system="", parent=parent)
    turn.limit(Limits())
    return turn


def _request(begun: Begun) -> TurnRequest:
    return TurnRequest(
        namespace=NAMESPACE,
        run_id=begun.run_id,
        agent=begun.agent,
        input=begun.input,
        request_id=None,
        fingerprint="",
        on_unfinished="close",
    )


async def _reopen(storage: Storage, begun: Begun) -> None:
    """Let a turn that we took for ended go on: other middleware may send the graph back to the model after its last reply."""
    rows = await storage.turns(NAMESPACE, begun.run_id)
    if rows and rows[-1].status == "complete" and rows[-1].input == begun.input:
        with contextlib.suppress(LeaseLost):  # somebody else has just done the same
            storage.put(replace(rows[-1], status="stopped"), fence=0)
            await storage.durable(rows[-1].key)


def _refused(claim: Claim, begun: Begun) -> RunConflict | RunInProgress:
    if claim.outcome == "busy":
        return RunInProgress(f"turn {begun.run_id!r} is being worked on in another process.", run_id=begun.run_id)
    return RunConflict(f"turn {begun.run_id!r}: {claim.reason or claim.outcome}", run_id=begun.run_id)
