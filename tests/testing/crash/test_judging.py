"""Each invariant, broken on purpose, is found, and nothing else is; what is allowed breaks none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from agent_graph.testing.crash.evidence import Account, Evidence, RecordedCall, Said, TurnAccount
from agent_graph.testing.crash.judging import INVARIANTS, judge
from agent_graph.testing.crash.world import SETTLED, Bill, Effect

LOOK = Effect(attempt=1, tool="look", key="k1", call_id="c1", args="{}")
PAY = Effect(attempt=1, tool="pay", key="k2", call_id="c2", args="{}")
ASKED = Bill(attempt=1, cost_usd="0.01", replies=0)
ANSWERED = Bill(attempt=1, cost_usd="0.01", replies=1, answered=("c1", "c2"))
CALLS = (
    RecordedCall(tool="look", args="{}", call_id="c1", key="k1", state="recorded", result='"seen"'),
    RecordedCall(tool="pay", args="{}", call_id="c2", key="k2", state="recorded", result='"paid"'),
)
TURN = TurnAccount(status="complete", output="done", steps=2, cost_usd=Decimal("0.02"), uncertain_usd=Decimal(0), calls=CALLS)
TALK = (
    Said(role="user", text="go"),
    Said(role="assistant", text="", calls=("look", "pay"), call_ids=("c1", "c2")),
    Said(role="tool", text="seen", answers="c1"),
    Said(role="tool", text="paid", answers="c2"),
    Said(role="assistant", text="done"),
)
ACCOUNT = Account(turns=(TURN,), transcript=TALK, idempotent={"look": True, "pay": False}, max_cost_usd=Decimal("0.05"), max_steps=5)
GOOD = Evidence(events=(ASKED, LOOK, PAY, ANSWERED), account=ACCOUNT)


def events(*happened: Effect | Bill) -> Evidence:
    return replace(GOOD, events=happened)


def account(**changes: Any) -> Evidence:
    return replace(GOOD, account=replace(ACCOUNT, **changes))


def turn(**changes: Any) -> Evidence:
    return account(turns=(replace(TURN, **changes),))


def calls(*changed: RecordedCall) -> Evidence:
    return turn(calls=changed)


def talk(*said: Said) -> Evidence:
    return account(transcript=said)


def doubtful(evidence: Evidence = GOOD, **changes: Any) -> Evidence:
    """The payment in doubt: the model was told so."""
    in_doubt = replace(CALLS[1], state="in doubt", succeeded=False, result="null")
    told = (*TALK[:3], replace(TALK[3], text="unknown"), Said(role="assistant", text="I do not know"))
    changed = replace(TURN, calls=(CALLS[0], in_doubt), output="I do not know", **changes)
    return replace(evidence, account=replace(ACCOUNT, turns=(changed,), transcript=told))


BROKEN: list[tuple[str, Evidence, str]] = [
    ("finished", turn(status="running"), "turn 1 is running; undisturbed it is complete"),
    ("finished", replace(GOOD, failures=("attempt 2 ended by itself: KeyError",)), "attempt 2 ended by itself"),
    ("finished", account(turns=()), "0 turns"),
    ("finished", turn(status="failed", limited=True), "turn 1 is failed; undisturbed it is complete"),
    ("no acknowledged step lost", events(ASKED, LOOK, PAY, ANSWERED, LOOK), "look (c1) was run again after the model had been shown"),
    ("no acknowledged step lost", events(ASKED, LOOK, PAY, ANSWERED, ASKED), "asked with 0 replies after it had been asked with 1"),
    ("no non-idempotent call run twice", events(ASKED, LOOK, PAY, PAY, ANSWERED), "pay: 2 effects under the key k2"),
    ("keys constant", events(ASKED, LOOK, replace(PAY, key="k1"), PAY, ANSWERED), "the key k1 stands for 2 calls"),
    ("keys constant", events(ASKED, replace(LOOK, key="k9"), LOOK, PAY, ANSWERED), "look (c1) came under 2 keys"),
    ("keys constant", account(turns=(TURN, TURN)), "the key k1 is that of 2 turns"),
    ("every effect recorded or in doubt", calls(CALLS[0]), "pay (c2, key k2) touched the world, and the account does not know it"),
    ("every effect recorded or in doubt", events(ASKED, LOOK, ANSWERED), "pay (c2) is recorded as done, and never touched the world"),
    ("transcript valid", events(ASKED, LOOK, PAY, replace(ANSWERED, problem="no answer to c2")), "a provider would refuse"),
    ("transcript valid", talk(*TALK[:3], TALK[4]), "in the end, c2 has no answer"),
    ("transcript valid", talk(*TALK, TALK[3]), "in the end, message 5 answers no call"),
    ("billed within the account", turn(cost_usd=Decimal("0.03")), "settled 0.03 USD of 0.02 billed"),
    ("billed within the account", turn(cost_usd=Decimal("0.01")), "billed 0.02 USD; the account knows of 0.01"),
    ("limits never passed", account(max_cost_usd=Decimal("0.019")), "billed 0.02 USD; the limit is 0.019 a turn"),
    ("limits never passed", account(max_steps=1), "turn 1 took 2 of 1 steps"),
    ("final state", talk(*TALK[:4], replace(TALK[4], text="other")), "message 4 is assistant 'other'"),
    ("final state", talk(*TALK, replace(TALK[4])), "6 messages; the undisturbed run has 5"),
    ("final state", turn(steps=3), "steps is 3; undisturbed it is 2"),
    ("final state", turn(output="other"), "output is 'other'"),
    ("final state", calls(CALLS[0], replace(CALLS[1], result='"paid twice"')), "its tool calls, their keys or results differ"),
    ("final state", doubtful().__class__(events=GOOD.events, account=replace(doubtful().account, transcript=TALK[1:])), "message 0 is"),
]


@pytest.mark.parametrize(("invariant", "evidence", "says"), BROKEN)
def test_what_is_broken_is_found(invariant: str, evidence: Evidence, says: str) -> None:
    found = judge(evidence, GOOD)
    assert any(violation.invariant == invariant and says in violation.text for violation in found), [str(one) for one in found]


def test_each_invariant_is_broken_above() -> None:
    assert {invariant for invariant, _, _ in BROKEN} == set(INVARIANTS)


unpriced = replace(ACCOUNT, bounded=False, turns=(replace(TURN, cost_usd=Decimal("0.01"), unsettled_usd=(Decimal(0),)),))
ALLOWED: dict[str, Callable[[], Evidence]] = {
    "nothing disturbed": lambda: GOOD,
    "an idempotent call run twice before its result was shown": lambda: events(ASKED, LOOK, LOOK, PAY, ANSWERED),
    "a question asked again that was not acknowledged": lambda: replace(
        turn(uncertain_usd=Decimal("0.05")), events=(ASKED, ASKED, LOOK, PAY, ANSWERED)
    ),
    "in doubt, and it had happened": doubtful,
    "in doubt, and it had not": lambda: doubtful(events(ASKED, LOOK, ANSWERED)),
    "in doubt, and the turn ended another way": lambda: doubtful(status="failed"),
    "looked up in the world, which names no result": lambda: replace(
        calls(CALLS[0], replace(CALLS[1], result=f'"{SETTLED}"')),
        account=replace(ACCOUNT, transcript=(*TALK[:3], replace(TALK[3], text=SETTLED), Said(role="assistant", text="other"))),
    ),
    "ended at a limit because of what is uncertain": lambda: turn(
        status="failed", output=None, limited=True, uncertain_usd=Decimal("0.03"), unsettled_usd=(Decimal("0.03"),)
    ),
    "an effect of a sub-agent": lambda: replace(
        account(others=(replace(CALLS[0], key="k9", call_id="c9"),)), events=(*GOOD.events, replace(LOOK, key="k9", call_id="c9"))
    ),
    "a bill that is uncertain within its bound": lambda: turn(cost_usd=Decimal("0.01"), uncertain_usd=Decimal("0.01")),
    "an uncertain bill of a model that tells its price afterwards": lambda: replace(GOOD, account=unpriced),
    "such a model past the limit by one call": lambda: account(bounded=False, max_cost_usd=Decimal("0.015")),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_allowed_breaks_nothing(what: str) -> None:
    assert [str(violation) for violation in judge(ALLOWED[what](), GOOD)] == []


def test_requests_of_other_lengths_are_no_lost_steps_where_undisturbed_they_come_too() -> None:
    """Compression and summaries ask with fewer replies than the call before; that says nothing about lost steps then."""
    summary = replace(ASKED, replies=0)
    shrinking = replace(turn(cost_usd=Decimal("0.03")), events=(*GOOD.events, summary))
    assert judge(shrinking, shrinking) == ()


def test_a_tool_that_never_touches_the_world_need_not() -> None:
    silent = events(ASKED, PAY, ANSWERED)
    assert judge(silent, silent) == ()
