"""The table of who may run, row by row. The table is the promise: docs/guarantees.md, "Run and turn"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.storage.claims import GO_ON, Decision, Past, decide
from agent_graph.storage.port import TurnKey, TurnRequest, TurnRow

REQUEST = TurnRequest(
    namespace="n", run_id="r", agent="a", input="in", request_id=None, fingerprint="f", on_unfinished="conflict", lease_s=30.0
)
CLOSE = replace(REQUEST, on_unfinished="close")
RESUME = replace(REQUEST, input=None)
REOPEN = replace(RESUME, reopen=True)
SETTLE = replace(RESUME, settles=True)


AT_A_SHARED_LIMIT, AT_ITS_OWN = '{"stop_reason": "budget"}', '{"stop_reason": "max_cost_usd"}'
LANDED = '{"stop_reason": "answer", "landed": "budget"}'


def past(status: str, *, alive: bool = False, same: bool = True, number: int = 3, **other: Any) -> Past:
    turn = TurnRow(key=TurnKey("n", "r", number), agent="a", input="in", status=status, fingerprint="f", **other)  # type: ignore[arg-type]  # a status that the case names
    return Past(turn=turn, alive=alive, same_input=same)


TABLE = [
    # last turn, request, outcome, closes the last turn
    ("none", None, REQUEST, "new", False),
    ("dead, same", past("running"), REQUEST, "resume", False),
    ("dead, other", past("running", same=False), REQUEST, "conflict", False),
    ("dead, other, close", past("running", same=False), CLOSE, "new", True),
    ("dead, same, close", past("running"), CLOSE, "resume", False),
    ("stopped, same", past("stopped"), REQUEST, "resume", False),
    ("stopped, other", past("stopped", same=False), REQUEST, "new", True),
    ("stopped but still held, other", past("stopped", same=False, alive=True), REQUEST, "conflict", False),
    ("elsewhere, same", past("running", alive=True), REQUEST, "busy", False),
    ("elsewhere, other", past("running", alive=True, same=False), REQUEST, "conflict", False),
    ("elsewhere, other, close", past("running", alive=True, same=False), CLOSE, "conflict", False),
    ("waiting, same", past("waiting"), REQUEST, "waiting", False),
    ("waiting, other", past("waiting", same=False), REQUEST, "conflict", False),
    ("waiting, other, close", past("waiting", same=False), CLOSE, "conflict", False),
    ("waiting and held, same", past("waiting", alive=True), REQUEST, "waiting", False),
    *[(f"{end}, undelivered, same", past(end), REQUEST, "stored", False) for end in ("complete", "failed", "timeout")],
    *[(f"{end}, undelivered, other", past(end, same=False), REQUEST, "new", False) for end in ("complete", "failed", "timeout")],
    *[(f"{end}, delivered, same", past(end, delivered=True), REQUEST, "new", False) for end in ("complete", "failed", "timeout")],
    *[(f"{end}, delivered, other", past(end, delivered=True, same=False), REQUEST, "new", False) for end in ("complete", "failed")],
    ("complete, about to be delivered, other", past("complete", same=False, alive=True), REQUEST, "new", False),
    ("closed, same", past("closed"), REQUEST, "new", False),
    ("closed, other", past("closed", same=False), REQUEST, "new", False),
    ("resume: none", None, RESUME, "not_found", False),
    ("resume: dead", past("running"), RESUME, "resume", False),
    ("resume: stopped", past("stopped"), RESUME, "resume", False),
    ("resume: elsewhere", past("running", alive=True), RESUME, "busy", False),
    ("resume: waiting", past("waiting"), RESUME, "waiting", False),
    ("resume: undelivered", past("complete"), RESUME, "stored", False),
    ("resume: delivered", past("complete", delivered=True), RESUME, "not_found", False),
    ("resume: ended at a shared limit", past("failed", delivered=True, result=AT_A_SHARED_LIMIT), RESUME, "resume", False),
    ("resume: ended at a shared limit, undelivered", past("failed", result=AT_A_SHARED_LIMIT), RESUME, "resume", False),
    ("resume: at a shared limit, about to end", past("failed", result=AT_A_SHARED_LIMIT, alive=True), RESUME, "busy", False),
    ("resume: ended at its own limit", past("failed", delivered=True, result=AT_ITS_OWN), RESUME, "not_found", False),
    ("resume: landed at a shared limit", past("complete", delivered=True, result=LANDED), RESUME, "not_found", False),
    ("same input after a shared limit", past("failed", delivered=True, result=AT_A_SHARED_LIMIT), REQUEST, "new", False),
    ("reopen: failed", past("failed", delivered=True), REOPEN, "resume", False),
    ("reopen: timeout", past("timeout"), REOPEN, "resume", False),
    ("reopen: complete", past("complete", delivered=True), REOPEN, "not_found", False),
    ("reopen: closed", past("closed", delivered=True), REOPEN, "not_found", False),
    ("a word: none", None, SETTLE, "not_found", False),
    ("a word: waiting", past("waiting"), SETTLE, "resume", False),
    ("a word: waiting, another word is being written", past("waiting", alive=True), SETTLE, "busy", False),
    ("a word: it goes on already", past("stopped"), SETTLE, "conflict", False),
    ("a word: ended", past("complete", delivered=True), SETTLE, "conflict", False),
]


@pytest.mark.parametrize(("last", "request_", "outcome", "close"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_row_of_the_table(last: Past | None, request_: TurnRequest, outcome: str, close: bool) -> None:
    decision = decide(last, request_)
    assert (decision.outcome, decision.close) == (outcome, close)
    if outcome == "new" and not close:
        assert decision.turn is None
    elif last is not None:
        assert decision.turn is last.turn
    assert bool(decision.reason) == (outcome == "conflict")
    dead = last is not None and not last.same_input and last.turn.status != "waiting" and not last.alive
    assert (GO_ON in decision.reason) == (outcome == "conflict" and dead), "the caller decides of a turn that nobody works on"


REPEATED = [
    ("ended and delivered", past("complete", delivered=True), "stored"),
    ("failed", past("failed"), "stored"),
    ("closed", past("closed"), "stored"),
    ("waiting", past("waiting"), "waiting"),
    ("elsewhere", past("running", alive=True), "busy"),
    ("its process died", past("running"), "resume"),
    ("other input, ended", past("complete", delivered=True, same=False), "conflict"),
    ("other input, dead", past("running", same=False), "conflict"),
]


@pytest.mark.parametrize(("seen", "outcome"), [row[1:] for row in REPEATED], ids=[row[0] for row in REPEATED])
def test_a_request_id_seen_before_leads_to_its_own_turn(seen: Past, outcome: str) -> None:
    """An at-least-once queue delivers a job twice; the second delivery must find the first one's turn, also behind later turns."""
    later = past("complete", delivered=True, number=9, same=False)
    decision = decide(later, replace(REQUEST, request_id="job-1"), repeated=seen)
    assert decision.outcome == outcome
    assert decision.turn is seen.turn


FRESH = [
    ("undelivered", past("complete"), "new"),
    ("undelivered, of another request", past("failed", request_id="job-0"), "new"),
    ("dead, of another request", past("running", request_id="job-0"), "conflict"),
    ("stopped, of another request", past("stopped", request_id="job-0"), "new"),
    ("elsewhere, of another request", past("running", request_id="job-0", alive=True), "conflict"),
    ("waiting, of another request", past("waiting", request_id="job-0"), "conflict"),
    ("dead, of no request", past("running"), "resume"),
    ("elsewhere, of no request", past("running", alive=True), "busy"),
]


@pytest.mark.parametrize(("last", "outcome"), [row[1:] for row in FRESH], ids=[row[0] for row in FRESH])
def test_a_request_id_never_seen_is_another_request_even_for_the_same_input(last: Past, outcome: str) -> None:
    """Two jobs "pay Bob 5": the second must not be answered with what the first one did."""
    assert decide(last, replace(REQUEST, request_id="job-1")).outcome == outcome


@pytest.mark.parametrize("end", ["complete", "failed", "timeout", "closed"])
def test_the_turn_that_was_waited_for_is_the_answer_once_it_has_ended(end: str) -> None:
    """Another caller's turn is delivered to him first; who waited for it must still get it, and not begin the next."""
    awaited = past(end, delivered=True)
    assert decide(awaited, replace(REQUEST, awaited=3), awaited=awaited) == Decision(outcome="stored", turn=awaited.turn)


def test_the_turn_that_was_waited_for_is_taken_over_when_its_owner_dies() -> None:
    awaited = past("running")
    assert decide(awaited, replace(REQUEST, awaited=3), awaited=awaited).outcome == "resume"


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_other_tools_are_named_before_a_resume(status: str) -> None:
    changed = replace(REQUEST, fingerprint="other")
    decision = decide(past(status), changed)
    assert decision.outcome == "changed"
    assert "fingerprint f" in decision.reason
    assert "other" in decision.reason
    assert decide(past(status), replace(changed, force=True)).outcome == "resume"
    assert decide(past(status, alive=True), changed).outcome == "busy"  # nothing is resumed, so nothing differs


STATUSES = ["running", "waiting", "stopped", "complete", "failed", "timeout", "closed"]
PASTS = st.none() | st.builds(past, st.sampled_from(STATUSES), alive=st.booleans(), same=st.booleans(), delivered=st.booleans())
REQUESTS = st.builds(
    lambda text, on, force, reopen: replace(REQUEST, input=text, on_unfinished=on, force=force, reopen=reopen),
    st.sampled_from(["in", None]), st.sampled_from(["conflict", "close"]), st.booleans(), st.booleans(),
)  # fmt: skip


@given(PASTS, REQUESTS, PASTS, PASTS)
def test_nobody_works_on_a_turn_that_somebody_alive_works_on(
    last: Past | None, request_: TurnRequest, repeated: Past | None, awaited: Past | None
) -> None:
    decision = decide(last, request_, repeated=repeated, awaited=awaited)
    if decision.outcome == "resume" or decision.close:
        about = next(p for p in (last, repeated, awaited) if p is not None and p.turn is decision.turn)
        assert not about.alive or about.turn.status in {"failed", "timeout"}  # reopened: its last attempt is only tidying up


@given(PASTS, REQUESTS)
def test_a_turn_is_opened_only_for_an_input_and_only_where_none_is_left_open(last: Past | None, request_: TurnRequest) -> None:
    decision = decide(last, request_)
    if decision.outcome == "new":
        assert request_.input is not None
        assert last is None or decision.close or last.turn.status in {"complete", "failed", "timeout", "closed"}
