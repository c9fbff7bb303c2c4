"""When a tool call may run, and under which key.

A call's key says which call it is: the third call of step 2 of turn 5 of this run, with these arguments. It stays the same over
attempts, crashes and restarts, so that a service can recognise a repetition; it differs between turns, because "pay Bob 5" on
Monday and again on Tuesday are two payments.

What the journal knows of a call decides what may happen to it. Between `started` and an end lies the gap in which a process can
die: whether the tool ran is then unknown. An idempotent tool simply runs again; any other is **in doubt**, and the program never
runs it again by itself.

| journal            | idempotent                         | not idempotent                                        |
|--------------------|------------------------------------|-------------------------------------------------------|
| nothing, planned   | run                                | run                                                   |
| started, in_doubt  | run again while attempts are left, | ask the tool (`reconcile`) where it can tell;         |
|                    | then tell the model                | else tell the model, or ask a person                  |
| an end             | replay what is on record           | replay what is on record                              |
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agent_graph.decisions.tools import canonical_json

__all__ = ["ENDS", "Ask", "Failed", "Plan", "Reconcile", "Replay", "Run", "Tell", "call_key", "plan"]

ENDS: Final = frozenset({"succeeded", "failed", "rejected", "cancelled"})
"""States of the journal after which a call is never run again."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run the tool."""

    attempt: int
    """Its number, from 1."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Do not run it: its end is on record."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Ask the tool itself what became of the call, and plan again with its word."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not happen, and there is no attempt left: a known failure."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Do not run it: tell the model that its outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Do not run it: wait until a person says what became of it."""


Plan: TypeAlias = Run | Replay | Reconcile | Failed | Tell | Ask


def call_key(*, namespace: str, run_id: str, turn: int, step: int, index: int, tool: str, args: str) -> str:
    """Return the idempotency key of a call: 32 hexadecimal digits.

    `step` and `turn` count from 1, `index` (the call's place in its reply) from 0; `args` is the `canonical_json` of the arguments.
    """
    named = f"{canonical_json([namespace, run_id, turn, step, index, tool])[:-1]},{args}]"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def plan(
    *,
    state: str | None,
    idempotent: bool,
    attempt: int,
    attempts: int,
    on_doubt: Literal["tell", "ask"],
    can_reconcile: bool = False,
    resolved: Literal["done", "not_done", "unknown"] | None = None,
) -> Plan:
    """Return what is to be done with a call.

    Args:
        state: of its journal entry; None where there is none.
        idempotent: whether it may be run again without knowing what became of it.
        attempt: attempts begun so far.
        attempts: how many there may be in all; 0 and 1 both mean one.
        on_doubt: whom to turn to when the outcome of a call that is not idempotent is unknown.
        can_reconcile: whether the tool can be asked; only then is Reconcile answered.
        resolved: what the tool or a person said. "done" means that its result has been recorded; "unknown" that they cannot tell.

    Failed is answered only after `resolved="not_done"`.
    """
    left = attempt < max(attempts, 1)
    if state in ENDS or resolved == "done":
        return Replay()
    if state is None or state == "planned":
        return Run(attempt + 1)
    if resolved == "not_done":
        return Run(attempt + 1) if left else Failed()
    if idempotent:
        return Run(attempt + 1) if left else Tell()
    if can_reconcile and resolved is None:
        return Reconcile()
    return Ask() if on_doubt == "ask" else Tell()
