"""The account that comes out of the rows."""

from __future__ import annotations

from typing import Any

from agent_graph.runtime.account import totals
from agent_graph.storage.port import LedgerRow, TurnKey


def row(entry: int, step: int, **changes: Any) -> LedgerRow:
    fields: dict[str, Any] = {"kind": "step", "attempt": 1, "model": "m", "state": "settled", "used": True}
    figures = {"bound_nusd": 9, "cost_nusd": 5, "tokens": 7}
    return LedgerRow(key=TurnKey("default", "r", 1), entry=entry, step=step, **{**fields, **figures, **changes})


def test_a_reply_that_was_lost_and_asked_for_again_is_two_bills_and_one_step() -> None:
    """After a crash between the bill and the checkpoint `AgentRun.steps` was one too many, and `max_steps` reached one step early."""
    sums = totals([row(1, 1), row(2, 2), row(3, 2)])
    assert (sums.steps, sums.cost_nusd, sums.tokens) == (2, 15, 21)


def test_what_is_open_is_uncertain_and_no_step() -> None:
    sums = totals([row(1, 1), row(2, 2, state="reserved", used=False, bound_tokens=4), row(3, 2, state="unsettled", used=False)])
    assert (sums.steps, sums.cost_nusd, sums.uncertain_nusd, sums.uncertain_tokens) == (1, 5, 18, 4)
