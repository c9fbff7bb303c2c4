"""Processes: a child that is forked, does one thing, and never returns into the caller's code.

The process that kills others is itself forked from the caller, once: a test session may have threads, and what forks hundreds of
times must not. In it nothing opens a thread, so each child begins with every module imported and no lock held.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from agent_graph.errors import ConfigError

__all__ = ["Ended", "call_in_fork", "modules_used_by", "run_in_fork"]

T = TypeVar("T")

Ended = int
"""How a child ended, as `os.waitstatus_to_exitcode` says: its exit code, or minus the signal that ended it."""

_DEFAULTS = (signal.SIGALRM, signal.SIGTERM) if hasattr(signal, "SIGALRM") else (signal.SIGTERM,)


class ChildFailed(RuntimeError):
    """The function that was called in a child raised; its traceback is the text."""


def run_in_fork(act: Callable[[], int], *, log: Path, limit_s: float) -> Ended:
    """Let a child call `act`, and return how it ended; the answer of `act` is its exit code. Its output goes to `log`.

    A child that takes longer than `limit_s` seconds writes its stack there and ends.
    """
    child = _fork()
    if child == 0:
        _live(act, log, limit_s)
    return os.waitstatus_to_exitcode(_awaited(child))


def call_in_fork(function: Callable[[], T], *, limit_s: float | None = None) -> T:
    """Return what `function` returns in a child, or raise what it raises there; both have to be picklable.

    Raises:
        ChildFailed: its process ended before it did, or was still at it after `limit_s` seconds.
    """
    reader, writer = os.pipe()
    child = _fork()
    if child == 0:
        os.close(reader)
        _live(lambda: _tell(writer, function), None, limit_s)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        try:
            told = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            status = _awaited(child)
    if not told:
        raise ChildFailed(f"the child process said nothing and ended with {os.waitstatus_to_exitcode(status)}")
    succeeded, answer = pickle.loads(told)  # of our own child
    if not succeeded:
        raise answer
    return answer  # type: ignore[no-any-return]  # what `function` returned


def modules_used_by(act: Callable[[], Any], *, limit_s: float) -> list[str]:
    """Return the modules that `act` imports, found out in a child: who imports them beforehand spares each later child the time."""
    before = set(sys.modules)

    def imported() -> list[str]:
        act()
        return [name for name in sys.modules if name not in before]

    return call_in_fork(imported, limit_s=limit_s)


_parent: int | None = None
"""The process that forked this one, where we did it."""


def _fork() -> int:
    if _parent is not None and os.getppid() != _parent:
        os._exit(1)  # whoever wanted the result is gone
    if not hasattr(os, "fork"):
        raise ConfigError("crash tests need os.fork: run them on Linux, on macOS, or in WSL.")
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # what is shared with the child is not touched, and so not copied, by its collector
    with warnings.catch_warnings():
        # Python warns of forking with threads; only the caller's one fork may, and the storage closes its own connections before.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live(act: Callable[[], int], log: Path | None, limit_s: float | None) -> NoReturn:
    """Be the child: call `act`, and end without the parent's exit handlers, whatever happens."""
    global _parent  # noqa: PLW0603  what this process is a child of
    code = 1
    try:
        _parent = os.getppid()
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)  # a test session's handlers are not this process's business
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if log is not None:
            _redirect(log)
        if limit_s is not None:
            faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
        code = act()
    except BaseException:  # noqa: BLE001  whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  for as long as the process lives
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  it stays open as long as the child lives


def _tell(writer: int, function: Callable[[], Any]) -> int:
    try:
        told = pickle.dumps((True, function()))
    except BaseException as error:  # noqa: BLE001  it is raised again in the parent
        told = pickle.dumps((False, _portable(error)))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(told)
    return 0


def _portable(error: BaseException) -> BaseException:
    """Return `error` with its traceback as a note, or, where it cannot be pickled, what it said."""
    text = traceback.format_exc()
    error.add_note(f"\nIn a child process:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  pickle raises whatever an object's own methods raise
        return ChildFailed(text)
    return error


def _awaited(child: int) -> int:
    try:
        return os.waitpid(child, 0)[1]
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
