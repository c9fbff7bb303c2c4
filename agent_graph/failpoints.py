"""Failpoints: named instants at which a test may end the process.

A failpoint stands where a crash could hurt: between an effect and the record of it, around a commit, before a result is handed
over. Unarmed it costs one comparison with None. It is armed by a call of `arm` from a test, never by a setting or an environment
variable, which a production host could have by accident.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["arm", "disarm", "failpoint"]

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
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
