"""Turns begun inside a tool of another turn: whose child they are, and what they are called.

A child's name is derived from its parent's call, so that a parent that is resumed, and runs the call again, finds the child that it
had begun: the child's turn goes on where it was, or its result is there already and nothing is done twice.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from agent_graph.context import begun_inside, current_call
from agent_graph.decisions.tools import canonical_json
from agent_graph.errors import RunInProgress
from agent_graph.runtime.turn import Turn, current_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["derived_name", "parent", "refuse_ancestor"]


def parent() -> Turn | None:
    """Return the turn that the running task works for: what is begun here is its child. None where it stands alone."""
    turn = current_turn.get()
    return None if turn is None or turn.account.ended else turn


def derived_name(namespace: str, agent: str, text: str) -> str | None:
    """Return the name of a turn begun here for `text`, the same whenever the call it is begun in runs again; None outside a call.

    The second turn of one call for the same agent and text has another name than the first.
    """
    turn, call, begun = parent(), current_call.get(), begun_inside.get()
    if turn is None or call is None or call.idempotency_key is None or begun is None:
        return None
    of = canonical_json([call.idempotency_key, namespace, agent, text])
    number = begun.next_number(of)
    digest = hashlib.sha256(f"{of}{number}".encode()).hexdigest()[:32]
    return f"{turn.key.run_id[:200]}/{digest}"


def refuse_ancestor(namespace: str, run_id: str) -> None:
    """A tool that waits for a run that waits for it would wait for ever. Raises RunInProgress."""
    for turn in _line():
        if (turn.key.namespace, turn.key.run_id) == (namespace, run_id):
            raise RunInProgress(f"run {run_id!r} is the very run that this call is made from.", run_id=run_id)


def _line() -> Iterator[Turn]:
    turn = current_turn.get()
    while turn is not None:
        yield turn
        turn = turn.parent
