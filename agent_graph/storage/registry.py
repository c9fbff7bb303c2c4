"""Who writes in this process: the claims that it holds, and for each other run an attempt without a lease."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent_graph.errors import LeaseLost
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.leases import Hold

__all__ = ["Name", "Registry"]

Name = tuple[str, str]
"""(namespace, run_id)"""
_MAX_UNCLAIMED = 1_000


class Registry:
    """The attempts of one storage by run."""

    def __init__(self, is_settled: Callable[[int], bool]) -> None:
        self._is_settled = is_settled
        self._claims: dict[Name, tuple[Attempt, Hold]] = {}
        self._unclaimed: dict[Name, Attempt] = {}
        self._lock = threading.Lock()

    def add(self, hold: Hold, fence: int) -> None:
        """Note a claim that was granted; it takes the place of an earlier one of this run.

        What this process wrote for the run between the claim's commit and this moment is the claimant's: where the graph runs inside
        another one, that one's saver writes meanwhile.
        """
        name = (hold.namespace, hold.run_id)
        with self._lock:
            self._claims[name] = (Attempt(*name, fence), hold)
            early = self._unclaimed.get(name)
            if early is not None and early.error is None:
                early.fence = fence
                del self._unclaimed[name]

    def remove(self, hold: Hold) -> None:
        """Forget a claim that was given back."""
        name = (hold.namespace, hold.run_id)
        with self._lock:
            if name in self._claims and self._claims[name][1] is hold:
                del self._claims[name]

    def claim(self, name: Name, fence: int) -> tuple[Attempt, Hold] | None:
        """Return the claim of this fence, if this process holds it."""
        found = self._claims.get(name)
        return found if found is not None and found[0].fence == fence else None

    def is_crowd(self) -> bool:
        """Return whether several runs are at work."""
        return len(self._claims) > 1

    def under(self, name: Name, fence: int) -> Attempt:
        """Return the attempt of this fence; 0: the one without a lease.

        Raises:
            LeaseLost: this process does not hold that claim.
            NotDurable: an earlier write without a lease failed, and nobody has been told.
        """
        if not fence:
            return self._without_lease(name)
        found = self.claim(name, fence)
        if found is None:
            raise LeaseLost(
                f"run {name[1]!r}: this attempt does not hold its lease (any more), so nothing that it does can be recorded.",
                run_id=name[1],
            )
        return found[0]

    def of(self, name: Name) -> Attempt:
        """Return who writes for a run where no fence is given: this process's claim, else the attempt without a lease."""
        found = self._claims.get(name)
        return found[0] if found is not None else self._without_lease(name)

    def waiting(self, name: Name) -> Attempt | None:
        """Return whose failure a barrier of this run has to tell, if anybody has written."""
        found = self._claims.get(name)
        return found[0] if found is not None else self._unclaimed.get(name)

    def told(self, attempt: Attempt) -> None:
        """Forget the failure of an attempt without a lease, once it has been raised: the next one begins with a clean sheet."""
        name = (attempt.namespace, attempt.run_id)
        with self._lock:
            if attempt.error is not None and self._unclaimed.get(name) is attempt:
                del self._unclaimed[name]

    def _without_lease(self, name: Name) -> Attempt:
        with self._lock:
            attempt = self._unclaimed.get(name)
            if attempt is not None and attempt.error is not None:
                del self._unclaimed[name]
                if not isinstance(attempt.error, LeaseLost):  # a refusal is judged anew with each write
                    attempt.raise_if_broken()
                attempt = None
            if attempt is None:
                self._make_room()
                attempt = self._unclaimed[name] = Attempt(*name, 0)
            return attempt

    def _make_room(self) -> None:
        if len(self._unclaimed) >= _MAX_UNCLAIMED:
            self._unclaimed = {name: a for name, a in self._unclaimed.items() if a.error or not self._is_settled(a.last)}
