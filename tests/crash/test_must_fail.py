"""A harness that cannot fail proves nothing: it finds what stock LangGraph repeats and forgets, and what our agent would without each
of its precautions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agent_graph.decisions import idempotency
from agent_graph.runtime.ledger import Ledger
from agent_graph.runtime.turn import Turn
from agent_graph.testing import CrashReport
from agent_graph.testing.crash import Plan, fuzz
from agent_graph.testing.crash.subject import AgentSubject
from tests.crash.scenario import TASK, make_agent
from tests.crash.stock import StockSubject

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

RANDOM = Plan(failpoints=False, pairs=0, kills=50)
POINTS = Plan(every=4, pairs=0, kills=0)


def found(report: CrashReport) -> set[str]:
    print(report)
    return {invariant for invariant, times in report.total.broken.items() if times}


def test_stock_langgraph_repeats_payments_and_forgets_bills(tmp_path: Any) -> None:
    report = fuzz(StockSubject(), RANDOM, seed=1, keep=tmp_path)
    assert {"no non-idempotent call run twice", "billed within the account"} <= found(report)
    assert report.total.repeated > 0
    assert report.total.settled_usd < report.total.billed_usd


# -- our agent without its precautions ----------------------------------------------------------------------------------------------


def without_barriers(patch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: a payment is made whose record was never written."""

    async def at_once(turn: Turn) -> None:
        return None

    patch.setattr(Turn, "durable", at_once)


def without_doubt(patch: pytest.MonkeyPatch) -> None:
    """A call that was started and has no end is run again, whatever the tool."""
    plan = idempotency.plan
    patch.setattr(idempotency, "plan", lambda **known: plan(**{**known, "idempotent": True}))


def without_reservations(patch: pytest.MonkeyPatch) -> None:
    """A model call is booked once it is over: a crash before that forgets its bill."""
    new_row = Ledger._new_row
    patch.setattr(Ledger, "_new_row", lambda ledger, **known: new_row(ledger, **{**known, "bound_usd": Decimal(0)}))


def without_constant_keys(patch: pytest.MonkeyPatch) -> None:
    """Each attempt makes its own key, as many a client does."""
    patch.setattr(idempotency, "call_key", lambda **call: uuid.uuid4().hex)


MUTATIONS: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (without_barriers, "no non-idempotent call run twice"),
    (without_doubt, "no non-idempotent call run twice"),
    (without_reservations, "billed within the account"),
    (without_constant_keys, "keys constant"),
]


@pytest.mark.parametrize(("mutate", "invariant"), MUTATIONS, ids=[mutate.__name__ for mutate, _ in MUTATIONS])
def test_an_agent_without_a_precaution_is_found(mutate: Any, invariant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    mutate(monkeypatch)  # here, and so in every child
    report = fuzz(AgentSubject(make_agent, (TASK,)), POINTS, seed=1, keep=tmp_path)
    assert invariant in found(report)
