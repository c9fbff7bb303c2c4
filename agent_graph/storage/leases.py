"""Who is alive: owners of leases, and the thread that keeps their leases from running out.

The owner of a lease is an attempt (a task, say), not a process: one process has many, and one of them may end while the
process lives. Inside a process a registry of holds answers at once. Between processes an owner's *process* is looked up:
pid and start time, on the same boot and in the same pid namespace. If that process is gone (or a zombie), its leases are free
at once; if it cannot be looked up (another container, no /proc), they are free when they have run out.

Time: processes of one boot share the monotonic clock, so a wall clock that jumps neither steals a lease nor makes it eternal.
Only where the boots differ does the wall clock count; a lease that then seems to end further ahead than it can last has ended.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Hold", "Keeper", "Lease", "Owner", "is_alive", "is_being_taken", "this_process"]

_GONE = frozenset({"Z", "X", "x"})
"""States of /proc/<pid>/stat in which a process runs no more: killed, but not yet reaped by its parent."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told from every other that ever was."""

    pid: int
    start: str
    """Its start time in the kernel's own ticks; "" where there is no /proc."""
    boot: str
    """Id of the kernel's boot; "" where there is none."""
    space: str
    """Id of its pid namespace; "" where there is none."""
    host: str

    def as_json(self) -> str:
        """Return the owner as it stands in the lease's row."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Return the owner written by `as_json`; an unreadable one is nobody that can be looked up."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls(0, "", "", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A row of ag_leases."""

    fence: int
    token: str | None
    """Of the attempt that holds it; None: nobody does."""
    owner: Owner
    until_monotonic: float
    until_wall: float
    lease_s: float


def this_process() -> Owner:
    """Return this process's identity."""
    return _identity(os.getpid())


@lru_cache(maxsize=4)
def _identity(pid: int) -> Owner:
    found = _process(pid)
    return Owner(pid, found[0] if found else "", _read("/proc/sys/kernel/random/boot_id"), _namespace(), platform.node())


def _process(pid: int) -> tuple[str, str] | None:
    """Return (start time, state) of a process, or None if there is none or no /proc."""
    text = _read(f"/proc/{pid}/stat")
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything, brackets too
    return (fields[19], fields[0]) if len(fields) > 19 else None


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link's text is the id; it is no path
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _is_dead(owner: Owner, me: Owner) -> bool:
    """Return True if the owner's process is certainly gone; False if it lives or cannot be looked up."""
    if owner.start and me.start:
        if (owner.boot, owner.space) != (me.boot, me.space):
            return False
        found = _process(owner.pid)
        return found is None or found[0] != owner.start or found[1] in _GONE
    if os.name != "posix" or owner.host != me.host or owner.pid <= 0:
        return False  # on Windows os.kill(pid, 0) would end that process
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def is_alive(lease: Lease, *, monotonic: float, wall: float) -> bool:
    """Return whether somebody may still be working under `lease`."""
    if lease.token is None:
        return False
    me = this_process()
    if lease.owner == me:
        hold = _holds.get(lease.token)
        return hold is not None and not hold.has_lapsed()
    if _is_dead(lease.owner, me):
        return False
    if lease.owner.boot and lease.owner.boot == me.boot:
        return monotonic < lease.until_monotonic
    return wall < lease.until_wall <= wall + 2 * lease.lease_s


def is_being_taken(lease: Lease) -> bool:
    """Return whether a claim of this process has just been granted `lease`, and its attempt does not know it yet."""
    hold = _holds.get(lease.token or "")
    return hold is not None and not hold.fence


class Hold:
    """A lease held by an attempt of this process."""

    __slots__ = ("_owner", "fence", "lease_s", "namespace", "renew_at", "run_id", "token")

    def __init__(self, namespace: str, run_id: str, *, owner: object, lease_s: float) -> None:
        self.namespace = namespace
        self.run_id = run_id
        self.token = uuid.uuid4().hex
        self.fence = 0
        """Known once the claim is committed."""
        self.lease_s = lease_s
        self.renew_at = 0.0
        self._owner = _reference(owner)

    def has_lapsed(self) -> bool:
        """Return whether the attempt is over: collected, done, or its event loop closed."""
        owner = self._owner()
        if owner is None:
            return True
        done: Callable[[], bool] | None = getattr(owner, "done", None)
        if callable(done) and done():
            return True
        get_loop: Callable[[], Any] | None = getattr(owner, "get_loop", None)
        return callable(get_loop) and bool(get_loop().is_closed())


def _reference(owner: object) -> Callable[[], object | None]:
    try:
        return weakref.ref(owner)
    except TypeError:  # an object without weak references: only `release` ends its lease
        return lambda: owner


_holds: dict[str, Hold] = {}
"""Every hold of this process by its token; several storages may share one file."""


class Keeper:
    """The thread that renews the holds of one storage and gives back those whose attempt is over.

    It is a thread, not a task, because a tool that blocks the event loop must not lose its lease.
    """

    def __init__(self, *, renew: Callable[[Hold], None], give_back: Callable[[Hold], None]) -> None:
        self._renew = renew
        self._give_back = give_back
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._held: dict[str, Hold] = {}
        self._changed = threading.Event()
        self._lock = threading.RLock()  # the garbage collector may end a storage in the thread that holds it
        self._thread: threading.Thread | None = None
        self._stopped = False

    def abandon_after_fork(self) -> None:
        """Forget the parent's holds: this process holds nothing."""
        self._start_afresh()

    def announce(self, hold: Hold) -> None:
        """Let this process know of `hold` before its claim is committed: from then on another storage may come upon it."""
        _holds[hold.token] = hold

    def keep(self, hold: Hold) -> None:
        """Keep `hold` from running out until `drop`, or until its attempt is over."""
        hold.renew_at = time.monotonic() + hold.lease_s / 3
        with self._lock:
            self._held[hold.token] = hold
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._work, name="agent_graph lease keeper", daemon=True)
                self._thread.start()
        self._changed.set()

    def drop(self, hold: Hold) -> None:
        """Renew `hold` no more; in this process its run is free at once."""
        with self._lock:
            self._held.pop(hold.token, None)
            _holds.pop(hold.token, None)

    def stop(self) -> None:
        """Give all holds back and end the thread; returns at once."""
        self._stopped = True
        for hold in list(self._held.values()):
            self.drop(hold)
            self._give_back(hold)
        self._changed.set()

    def _work(self) -> None:
        while not self._stopped:
            self._changed.clear()
            holds = list(self._held.values())
            for hold in holds:
                self._look_after(hold)
            tick = min((hold.lease_s for hold in holds), default=None)
            self._changed.wait(None if tick is None else min(1.0, tick / 6))

    def _look_after(self, hold: Hold) -> None:
        if hold.has_lapsed():
            self.drop(hold)
            self._give_back(hold)
        elif time.monotonic() >= hold.renew_at:
            hold.renew_at = time.monotonic() + hold.lease_s / 3
            self._renew(hold)


def _after_fork_in_child() -> None:
    _holds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
