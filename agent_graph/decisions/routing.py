"""Where the loop goes next: the edges of the graph as pure functions."""

from __future__ import annotations

from typing import Literal

__all__ = ["after_reply", "before_model"]


def before_model(
    *, stop: str | None, landing: str | None, landing_known: bool, compress: bool
) -> Literal["check_budget", "compress", "call_model"]:
    """Return the node that must be visited before the model may be called.

    A violation goes before everything; compression goes before landing, because it changes what the next call costs. A landing that
    `check_budget` has written down is made.
    """
    if stop is not None:
        return "check_budget"
    if compress:
        return "compress"
    if landing is not None and not landing_known:
        return "check_budget"
    return "call_model"


def after_reply(*, allowed: bool, calls: int, landing: bool) -> Literal["guard", "run_tool", "finish"]:
    """Return where a model's reply leads.

    `allowed`: every rail has spoken, and said Allow (rails that wait, ask or cost speak in `guard`). A landing's tool calls are not run.
    """
    if not allowed:
        return "guard"
    return "run_tool" if calls and not landing else "finish"
