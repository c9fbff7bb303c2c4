"""The judges: pure functions that hold an account against what happened, and say in plain words what does not fit.

| invariant | broken where |
|---|---|
| finished | a turn did not end as the undisturbed one did, or an attempt raised or hung |
| no acknowledged step lost | the model is asked an earlier question again, or a call is run whose result it has been shown |
| no non-idempotent call run twice | the world holds one effect of one key twice |
| keys constant | two keys for one call of a turn, one key for two calls, or one key in two turns |
| every effect recorded or in doubt | the world holds what the account does not, or the account holds a success that never was |
| transcript valid | a tool call without its answer directly after it, in order: in the end, and in each request |
| billed within the account | not settled <= billed <= settled + uncertain |
| limits never passed | more billed than `max_cost_usd`, or more steps than `max_steps`, in any turn |
| final state | the conversation differs from the undisturbed one, up to the first call in doubt |

A turn may end at a limit earlier than undisturbed, since bills that a crash left unknown count in full.
A call in doubt is no fault of the program: the model was told so, and may well go another way from there. Nor is one that was looked
up in the world and whose effect names no result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from agent_graph.decisions import pairing
from agent_graph.testing.crash.evidence import Account, Evidence, RecordedCall, Said, TurnAccount
from agent_graph.testing.crash.world import SETTLED, Bill, Effect, Event

__all__ = ["INVARIANTS", "Violation", "billed", "judge"]

Judge = Callable[[Evidence, Evidence], Iterator[str]]
"""Takes the evidence of a run and of the undisturbed one."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


def judge(run: Evidence, undisturbed: Evidence) -> tuple[Violation, ...]:
    """Return what does not hold of `run`; nothing where all does."""
    return tuple(Violation(name, text) for name, judged in INVARIANTS.items() for text in judged(run, undisturbed))


def _finished(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    yield from run.failures
    ours, due = run.account.turns, undisturbed.account.turns
    if len(ours) != len(due):
        yield f"{len(ours)} turns; the undisturbed run has {len(due)}"
    for number, (turn, other) in enumerate(zip(ours, due, strict=False), 1):
        if turn.status != other.status and not _in_doubt(turn.calls) and not _ended_early(turn):
            yield f"turn {number} is {turn.status}; undisturbed it is {other.status}"


def _no_step_lost(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    goes_on = _only_forward(undisturbed.events)
    furthest = 0
    acknowledged: set[str] = set()
    newest: dict[str, str] = {}
    for event in run.events:
        if isinstance(event, Effect):
            if event.key in acknowledged:
                yield f"{event.tool} ({event.call_id}) was run again after the model had been shown its result"
            newest[event.call_id] = event.key
            continue
        acknowledged.update(newest[call_id] for call_id in event.answered if call_id in newest)
        if goes_on and event.replies < furthest:
            yield f"the model was asked with {event.replies} replies after it had been asked with {furthest}"
        furthest = max(furthest, event.replies)


def _only_forward(events: Sequence[Event]) -> bool:
    """Whether the undisturbed conversation only grows; summaries, judges and compression make requests of other lengths."""
    replies = [event.replies for event in events if isinstance(event, Bill)]
    return replies == sorted(replies)


def _not_twice(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    for (tool, key, what), times in _times(run.events).items():
        if times > 1 and not run.account.idempotent.get(tool, False):
            yield f"{tool}{what and f' ({what})'}: {times} effects under the key {key}"


def _times(events: Iterable[Event]) -> Counter[tuple[str, str, str]]:
    return Counter((event.tool, event.key, event.what) for event in events if isinstance(event, Effect))


def _keys_constant(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    calls: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for event in run.events:
        if isinstance(event, Effect):
            calls[event.key].add((event.tool, event.call_id, event.args))
    for key, different in calls.items():
        if len(different) > 1:
            yield f"the key {key} stands for {len(different)} calls: {sorted(different)}"
    due = _keys(undisturbed.events)
    for call, keys in _keys(run.events).items():
        if call in due and len(keys) > len(due[call]):
            yield f"{call[0]} ({call[1]}) came under {len(keys)} keys: {sorted(keys)}"
    turns = Counter(key for turn in run.account.turns for key in {call.key for call in turn.calls})
    yield from (f"the key {key} is that of {times} turns" for key, times in turns.items() if times > 1)


def _keys(events: Iterable[Event]) -> dict[tuple[str, str, str], set[str]]:
    keys: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Effect):
            keys[(event.tool, event.call_id, event.args)].add(event.key)
    return keys


def _recorded(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    known = {call.key for call in run.account.calls}
    seen = {event.key: event for event in run.events if isinstance(event, Effect)}
    for key, event in seen.items():
        if key not in known:
            yield f"{event.tool} ({event.call_id}, key {key}) touched the world, and the account does not know it"
    acting = _tools_that_act(undisturbed)
    for call in run.account.calls:
        if call.tool in acting and call.state == "recorded" and call.succeeded and call.key not in seen:
            yield f"{call.tool} ({call.call_id}) is recorded as done, and never touched the world"


def _tools_that_act(undisturbed: Evidence) -> set[str]:
    """The tools each of whose successful calls leaves an effect."""
    seen = {event.key for event in undisturbed.events if isinstance(event, Effect)}
    silent = {call.tool for call in undisturbed.account.calls if call.succeeded and call.key not in seen}
    return {call.tool for call in undisturbed.account.calls} - silent


def _transcript_valid(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    for event in run.events:
        if isinstance(event, Bill) and event.problem:
            yield f"a provider would refuse a request: {event.problem}"
    found = pairing.repairs([pairing.View(said.role, said.call_ids, said.answers) for said in run.account.transcript])
    yield from (f"in the end, {call_id} has no answer" for _, call_id in found.missing)
    yield from (f"in the end, message {at} answers no call" for at in found.drop)


def billed(events: Iterable[Event]) -> Decimal:
    """Return what the providers charge in all."""
    return sum((Decimal(event.cost_usd) for event in events if isinstance(event, Bill)), Decimal(0))


def _billed_within(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    account = run.account
    total = billed(run.events)
    settled = sum((turn.cost_usd for turn in account.turns), Decimal(0))
    most = settled + sum((_uncertain(account, run, number) for number in range(len(account.turns))), Decimal(0))
    if not settled <= total:
        yield f"settled {_usd(settled)} USD of {_usd(total)} billed: money was counted that nobody charged"
    if not total <= most:
        yield f"billed {_usd(total)} USD; the account knows of {_usd(settled)} and is uncertain of no more than {_usd(most - settled)}"


def _usd(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _uncertain(account: Account, run: Evidence, number: int) -> Decimal:
    """Return how uncertain a turn may be: a call without a price beforehand is bounded by the dearest of all."""
    turn = account.turns[number]
    if account.bounded:
        return turn.uncertain_usd
    dearest = _dearest(run.events)
    return sum((max(bound, dearest) for bound in turn.unsettled_usd), Decimal(0))


def _dearest(events: Iterable[Event]) -> Decimal:
    return max((Decimal(event.cost_usd) for event in events if isinstance(event, Bill)), default=Decimal(0))


def _limits_kept(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    account = run.account
    limit = account.max_cost_usd
    if limit is not None:
        slack = Decimal(0) if account.bounded else _dearest(run.events)  # it tells its price afterwards: one call may pass the limit
        total = billed(run.events)
        if total > len(account.turns) * (limit + slack):
            yield f"billed {total} USD; the limit is {limit} a turn, and there are {len(account.turns)}"
        for number, turn in enumerate(account.turns, 1):
            if turn.cost_usd > limit + slack:
                yield f"turn {number} settled {turn.cost_usd} of {limit} USD"
    for number, turn in enumerate(account.turns, 1):
        if account.max_steps is not None and turn.steps > account.max_steps:
            yield f"turn {number} took {turn.steps} of {account.max_steps} steps"


def _final_state(run: Evidence, undisturbed: Evidence) -> Iterator[str]:
    if any(_ended_early(turn) for turn in run.account.turns):
        return
    doubtful = {call.call_id for call in run.account.calls if call.state == "in doubt"}
    ours, due = run.account.transcript, undisturbed.account.transcript
    for at, (said, other) in enumerate(zip(ours, due, strict=False)):
        if said.answers in doubtful or (said.answers is not None and said.text == SETTLED):
            return
        if said != other:
            yield f"message {at} is {_short(said)}; undisturbed it is {_short(other)}"
            return
    if len(ours) != len(due):
        yield f"{len(ours)} messages; the undisturbed run has {len(due)}"
    if not doubtful and all(said.text != SETTLED for said in ours):
        yield from _same_accounts(run.account, undisturbed.account)


def _same_accounts(ours: Account, due: Account) -> Iterator[str]:
    for number, (turn, other) in enumerate(zip(ours.turns, due.turns, strict=False), 1):
        for name in ("output", "steps"):
            mine, theirs = getattr(turn, name), getattr(other, name)
            if mine != theirs:
                yield f"turn {number}: {name} is {mine!r}; undisturbed it is {theirs!r}"
        if [_outcome(call) for call in turn.calls] != [_outcome(call) for call in other.calls]:
            yield f"turn {number}: its tool calls, their keys or results differ from those of the undisturbed run"


def _outcome(call: RecordedCall) -> tuple[str, str, str, str, bool, str]:
    return call.tool, call.args, call.call_id, call.key, call.succeeded, call.result


def _ended_early(turn: TurnAccount) -> bool:
    """Whether a limit ended the turn that what is uncertain after a crash counts in."""
    return turn.limited and bool(turn.unsettled_usd)


def _short(said: Said) -> str:
    return f"{said.role} {' '.join(said.calls) or said.text!r}"[:200]


def _in_doubt(calls: Iterable[RecordedCall]) -> bool:
    return any(call.state == "in doubt" for call in calls)


INVARIANTS: Final[dict[str, Judge]] = {
    "finished": _finished,
    "no acknowledged step lost": _no_step_lost,
    "no non-idempotent call run twice": _not_twice,
    "keys constant": _keys_constant,
    "every effect recorded or in doubt": _recorded,
    "transcript valid": _transcript_valid,
    "billed within the account": _billed_within,
    "limits never passed": _limits_kept,
    "final state": _final_state,
}
"""Each by its name, in the order of the table above."""
