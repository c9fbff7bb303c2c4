"""Failpoints: named instants at which a test may end the process.

A failpoint stands where a crash could hurt: between an effect and the record of it, around a commit, before a result is handed
over. Unarmed it costs one comparison with None. It is armed by a call of `arm` from a test, never by a setting or an environment
variable, which a production host could have by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["NAMES", "Failpoint", "arm", "disarm", "failpoint"]

# By place, in alphabetical order; the type checkers let no failpoint pass under another name.
Failpoint: TypeAlias = Literal[
    "budget.called", "budget.reserved",
    "checkpoint.before_queued", "checkpoint.before_writes", "checkpoint.queued",
    "claim.after", "claim.before",
    "commit.after", "commit.before",
    "journal.executed", "journal.finished", "journal.started",
    "memory.before_load", "memory.before_save", "memory.saved",
    "model.after_call", "model.before_call", "model.before_reserve", "model.reserve_queued", "model.settle_queued",
    "tool.after_effect", "tool.before_effect", "tool.before_started", "tool.end_queued", "tool.executed", "tool.finished", "tool.started",
    "turn.before_conclude", "turn.before_delivered", "turn.before_release", "turn.before_return", "turn.begins",
    "turn.record_run_delivered", "turn.record_run_queued",
    "word.claimed", "word.queued",
]  # fmt: skip

NAMES: Final[tuple[str, ...]] = get_args(Failpoint)
"""Every failpoint there is."""

_hook: Callable[[str], None] | None = None


def failpoint(name: Failpoint) -> None:
    """Do nothing; where a test has armed the failpoints, call its hook with `name`. Called from several threads."""
    if _hook is not None:
        _hook(name)


def arm(hook: Callable[[str], None]) -> None:
    """Let `hook` be called at every failpoint that this process passes from now on. For tests."""
    global _hook  # noqa: PLW0603  one switch for the process: that is what makes an unarmed failpoint free
    _hook = hook


def disarm() -> None:
    """Make the failpoints free again."""
    global _hook  # noqa: PLW0603  see `arm`
    _hook = None
