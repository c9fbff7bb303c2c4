"""Waiting for a person: a node that needs one's word stops its turn here, and finds the word here when the turn goes on.

The wait is LangGraph's `interrupt`, in the payload that LangChain's HumanInTheLoopMiddleware uses, so that a UI made for one shows
the other; an embedding graph answers it with `Command(resume=...)`. `agent.resolve` writes the word down first, as a note of the
turn, and then lets the turn go on: a crash between the two loses nothing, because the node looks for the note before it asks. An
answer that comes with `Command` is written down too, so that both kinds leave the same trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langgraph.types import interrupt

from agent_graph.decisions.plain import plain
from agent_graph.errors import ConfigError
from agent_graph.resolutions import Resolution, from_json, to_json
from agent_graph.runtime.turn import RESOLUTION

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn
    from agent_graph.storage.port import JournalRow

__all__ = ["ask", "doubt_key", "pending_of", "whom_to_ask"]


def ask(
    turn: Turn,
    *,
    key: str,
    call_id: str,
    name: str,
    args: Mapping[str, Any],
    reason: str,
    allowed: Sequence[str],
    guardrail: str | None = None,
    idempotency_key: str | None = None,
) -> Resolution:
    """Return a person's word on `key`; without one the turn stops here and waits (GraphInterrupt).

    Args:
        turn: whose notes may hold the word already.
        key: what the word is on; the same when the node runs again.
        call_id: by which a person names it: the tool call's id, or "<stage>:<step>".
        name: the tool, or the stage.
        args: what a person has to see to decide.
        reason: why it waits, in plain words.
        allowed: the kinds of word that make sense ("approve", "done", ...).
        guardrail: the rail that asks, if one does.
        idempotency_key: of the tool call, by which a person finds it at the service that it was made to.
    """
    known = turn.resolutions.get(key)
    if known is not None:
        return known
    payload = {
        "action_requests": [{"name": name, "args": plain(dict(args)), "description": reason}],
        "review_configs": [{"action_name": name, "allowed_decisions": list(allowed)}],
        "key": key,
        "call_id": call_id,
        "guardrail": guardrail,
        "idempotency_key": idempotency_key,
    }
    turn.pause_clock()
    word = _understood(payload, allowed)
    turn.start_clock()
    turn.resolutions[key] = word
    turn.note(RESOLUTION, {"key": key, "outcome": plain(to_json(word))}, step=0)
    return word


def _understood(payload: dict[str, Any], allowed: Sequence[str]) -> Resolution:
    """Return the answer to an interrupt; one that makes no sense is asked for again, with what is wrong, and ends nothing."""
    while True:
        try:
            word = from_json(interrupt(payload))
            if to_json(word)["type"] not in allowed:
                raise ConfigError(f"outcome: {to_json(word)['type']!r} makes no sense here; one of {', '.join(allowed)} is due.")
        except ConfigError as error:
            payload = {**payload, "problem": str(error)}
        else:
            return word


def whom_to_ask(turn: Turn, row: JournalRow, policy: Literal["tell", "ask"]) -> Literal["tell", "ask"]:
    """Return whom to turn to about this attempt, whatever the policy is by now: whoever gave a word on it is heard.

    A word is on one attempt. Were "it was not done" taken for the attempt after it as well, a crash in the midst of that one would
    let it run once more. A person is asked once a call; the model is told of a second doubt.
    """
    if any(doubt_key(row, attempt) in turn.resolutions for attempt in range(row.attempt)):
        return "tell"
    return "ask" if doubt_key(row) in turn.resolutions else policy


def doubt_key(row: JournalRow, attempt: int | None = None) -> str:
    """Return what a word on the outcome of an attempt at a call is kept under; None: its last attempt."""
    return f"{row.call_key}:{row.attempt if attempt is None else attempt}"


def pending_of(payload: Any) -> dict[str, Any]:
    """Return what `AgentRun.pending` shows of an interrupt's payload."""
    request, review = payload["action_requests"][0], payload["review_configs"][0]
    return {
        "call_id": payload["call_id"],
        "tool_name": request["name"],
        "args": request["args"],
        "reason": request["description"],
        "allowed": review["allowed_decisions"],
        "key": payload["key"],
        "guardrail": payload.get("guardrail"),
        "idempotency_key": payload.get("idempotency_key"),
    }
