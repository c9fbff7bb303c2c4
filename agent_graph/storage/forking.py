"""fork(): no SQLite connection may cross it.

SQLite keeps its locks on a file per process, and what it knows of them in memory. A forked child inherits that knowledge, but
not the locks: even a connection that the child opens itself then relies on locks that nobody holds, and another process may
delete the WAL under it (tried: acknowledged records were lost). So before a fork everything that is under way is
waited for and all connections are closed; parent and child open their own again at the next use.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod

__all__ = ["Forkable", "Gate"]

_PATIENCE_S = 5.0
"""How long a fork waits for what is under way, in seconds."""


class Gate:
    """Lets any number of threads through, until it is shut and all are out again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut:
                self._changed.notify_all()

    def shut(self) -> bool:
        """Let nobody in any more; return whether all were out in time."""
        with self._changed:
            self._shut = True
            return self._changed.wait_for(lambda: self._inside == 0, _PATIENCE_S)

    def open(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()


class Forkable(ABC):
    """Something that holds connections, threads or leases, and is told of forks from its construction on."""

    def __init__(self) -> None:
        _living.add(self)

    @abstractmethod
    def before_fork(self) -> None:
        """Close what must not be inherited."""

    @abstractmethod
    def after_fork_in_parent(self) -> None:
        """Go on."""

    @abstractmethod
    def after_fork_in_child(self) -> None:
        """Forget what is the parent's."""


_living: weakref.WeakSet[Forkable] = weakref.WeakSet()


def _before() -> None:
    for one in list(_living):
        one.before_fork()


def _after_in_parent() -> None:
    for one in list(_living):
        one.after_fork_in_parent()


def _after_in_child() -> None:
    for one in list(_living):
        one.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
