"""Who may run: the table of docs/guarantees.md as one pure function, the same for every storage.

| the run's last turn is | same input | other input |
|---|---|---|
| none | new | new |
| unfinished, nobody alive works on it | resume | conflict, or (on_unfinished="close") closed and new |
| stopped by its caller | resume | closed and new |
| being worked on | busy | conflict |
| waiting for a person | waiting | conflict |
| ended, but never delivered to its caller | stored | new |
| ended and delivered | new | new |
| any, and the request_id was seen before | that turn: stored, waiting, busy or resume | conflict |
| the one that the caller waited for (`awaited`), and it has ended | stored | - |

Where a request_id is given, it says what is the same request: one that was never seen is another request, even for the same
input. It neither gets another request's undelivered result, nor goes on with a turn that has another request_id.

Without an input (`resume`), the unfinished turn goes on. An ended one that did not complete is taken up again where `reopen` asks for
it, or where it ended at a limit of a shared budget: that lies outside the turn, and may hold by now. Any other is `stored` while it was
not delivered, and else `not_found`. Going on compares the fingerprints first.
A person's word (`settles`) takes up a turn that waits, and no other; it compares the fingerprints too, since whoever cannot go on
with the turn must not leave a word in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from agent_graph.decisions.fingerprints import difference
from agent_graph.storage.port import TurnRequest, TurnRow

__all__ = ["Decision", "Past", "decide"]

GO_ON = 'Resume it, or let such a turn be closed (on_unfinished="close").'


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A turn of this run, and what the request has to do with it."""

    turn: TurnRow
    alive: bool
    """Whether somebody alive holds the lease on this turn."""
    same_input: bool
    """Whether its input is the request's (meaningless where the request has none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a request may do. `outcome` is `Claim.outcome`; `turn` the turn in question, None for a new one."""

    outcome: Literal["new", "resume", "stored", "waiting", "busy", "conflict", "not_found", "changed"]
    turn: TurnRow | None = None
    close: bool = False
    """Whether `turn` must be closed to make way for the new one."""
    reason: str = ""


def decide(last: Past | None, request: TurnRequest, *, repeated: Past | None = None, awaited: Past | None = None) -> Decision:
    """Return what `request` may do.

    `last`: the run's last turn; `repeated`: the turn that had the same request_id; `awaited`: the turn of `request.awaited`;
    each None where there is no such turn.
    """
    if request.settles:
        return _settle(last, request)
    if awaited is not None and awaited.turn.has_ended:
        return Decision(outcome="stored", turn=awaited.turn)
    if repeated is not None:
        if request.input is not None and not repeated.same_input:
            return _conflict(
                repeated.turn,
                f"request_id {request.request_id!r} was used for another input, in turn {repeated.turn.key.turn}",
            )
        return _again(repeated, request)
    if request.input is None:
        return _resume(last, request)
    if last is None:
        return Decision(outcome="new")
    if not last.same_input:
        return _other(last, request, "has another input")
    theirs = last.turn.request_id
    if request.request_id is not None and theirs is not None and theirs != request.request_id:
        return _other(last, request, f"belongs to request_id {theirs!r}")  # two jobs may well ask for the same
    return _same(last, request)


def _settle(last: Past | None, request: TurnRequest) -> Decision:
    if last is None:
        return Decision(outcome="not_found")
    if last.alive:
        return Decision(outcome="busy", turn=last.turn)
    if last.turn.status != "waiting":
        return _conflict(last.turn, f"turn {last.turn.key.turn} waits for nobody")
    return _take_up(last.turn, request)


def _again(seen: Past, request: TurnRequest) -> Decision:
    """The same request once more: its turn, wherever that stands."""
    if seen.turn.has_ended:
        return Decision(outcome="stored", turn=seen.turn)
    return _go_on(seen, request)


def _resume(last: Past | None, request: TurnRequest) -> Decision:
    if last is None:
        return Decision(outcome="not_found")
    if not last.turn.has_ended:
        return _go_on(last, request)
    if request.reopen and last.turn.status in {"failed", "timeout"}:
        return _take_up(last.turn, request)
    if _ended_at_a_shared_limit(last.turn):
        return _go_on(last, request)
    return Decision(outcome="not_found" if last.turn.delivered else "stored", turn=last.turn)


def _same(last: Past, request: TurnRequest) -> Decision:
    if not last.turn.has_ended:
        return _go_on(last, request)
    if last.turn.status == "closed" or last.turn.delivered or request.request_id is not None:
        return Decision(outcome="new")  # with a request_id of its own it is another request for the same
    return Decision(outcome="stored", turn=last.turn)


def _other(last: Past, request: TurnRequest, why: str) -> Decision:
    if last.turn.has_ended:
        return Decision(outcome="new")
    number = last.turn.key.turn
    if last.turn.status == "waiting":
        return _conflict(last.turn, f"turn {number} waits for a person and {why}")
    if last.alive:
        return _conflict(last.turn, f"turn {number} is being worked on and {why}")
    if last.turn.status == "stopped" or request.on_unfinished == "close":
        return Decision(outcome="new", turn=last.turn, close=True)
    return _conflict(last.turn, f"turn {number} is unfinished and {why}. {GO_ON}")


def _go_on(past: Past, request: TurnRequest) -> Decision:
    """A turn that can go on, asked for again."""
    if past.turn.status == "waiting":
        return Decision(outcome="waiting", turn=past.turn)
    if past.alive:
        return Decision(outcome="busy", turn=past.turn)
    return _take_up(past.turn, request)


def _take_up(turn: TurnRow, request: TurnRequest) -> Decision:
    if turn.fingerprint and request.fingerprint and turn.fingerprint != request.fingerprint and not request.force:
        other = difference(turn.fingerprint, request.fingerprint)
        reason = f"turn {turn.key.turn} was begun with other tools ({other}). Resume it with force=True to go on all the same."
        return Decision(outcome="changed", turn=turn, reason=reason)
    return Decision(outcome="resume", turn=turn)


def _conflict(turn: TurnRow, reason: str) -> Decision:
    return Decision(outcome="conflict", turn=turn, reason=reason)


def _ended_at_a_shared_limit(turn: TurnRow) -> bool:
    return turn.status == "failed" and turn.result is not None and json.loads(turn.result).get("stop_reason") == "budget"
