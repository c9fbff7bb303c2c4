"""What goes through the queue: whose it is, what it is, and what became of it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from agent_graph.errors import LeaseLost, NotDurable

__all__ = ["Attempt", "Entry", "Job"]

T = TypeVar("T")
_log = logging.getLogger("agent_graph.storage")


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
        """Position in the queue from which its records are refused."""
        self.last = 0
        """Position of its newest record in the queue."""

    def fail(self, position: int, error: BaseException) -> None:
        """Break this attempt from `position` on; the first error stays."""
        if self.error is None:
            self.error, self.failed_at = error, position
        self.failed_at = min(self.failed_at, position)

    def refuses(self, position: int) -> bool:
        """Return whether the record at `position` comes after the failure."""
        return self.error is not None and position >= self.failed_at

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


class Job(Generic[T]):
    """A function on its way through the queue, and its answer."""

    __slots__ = ("answer", "error", "function", "then")

    def __init__(self, function: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> None:
        self.function = function
        self.then = then
        """Called in the writer's thread once the commit stands."""
        self.answer: T | None = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Do what follows a committed answer."""
        if self.then is None or self.error is not None:
            return
        try:
            self.then(self.answer)  # type: ignore[arg-type]  # without an error the function has answered; None may be its answer
        except Exception:  # noqa: BLE001 - the writer's thread must live
            _log.exception("storage: what follows a committed record failed")


class Entry(NamedTuple):
    """One place in the queue: a statement with its parameters, or a job."""

    position: int
    attempt: Attempt | None
    sql: str
    parameters: Sequence[Any]
    many: bool
    job: Job[Any] | None
    size: int

    def is_refused(self) -> bool:
        """Return whether its attempt is broken (or its job has failed), so that it is left out."""
        if self.attempt is not None and self.attempt.error is not None and self.attempt.refuses(self.position):
            self.blame(self.attempt.error)
            return True
        return self.job is not None and self.job.error is not None

    def blame(self, error: BaseException) -> None:
        """Note that this record is not on disk, and why."""
        if self.attempt is not None:
            self.attempt.fail(self.position, error)
        if self.job is not None:
            self.job.error = error
