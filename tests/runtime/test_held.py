"""What is held in a shared budget for a landing: how the row of it comes, grows, is taken up and is given back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from agent_graph.decisions.budget import NOTHING, Estimate, Normal
from agent_graph.runtime.account import totals
from agent_graph.runtime.held import Holding, held_behind
from agent_graph.storage.port import Charge, LedgerRow, TurnKey

TODAY, YESTERDAY = Charge("default", "team", "2026-11-25"), Charge("default", "team", "2026-11-24")
CALL = LedgerRow(
    key=TurnKey("default", "r", 1),
    entry=7,
    step=2,
    kind="step",
    attempt=1,
    model="m",
    state="reserved",
    bound_nusd=100,
    bound_tokens=10,
    charges=(TODAY,),
)
HELD = replace(CALL, entry=3, kind="landing", bound_nusd=50, bound_tokens=5)


def landing(nusd: int, tokens: int) -> Estimate:
    return Estimate(input_tokens=tokens, output_tokens=0, cost_usd=Decimal(nusd) / 10**9)


BEFORE_ANOTHER = Normal(None, landing=landing(1, 1), held=landing(80, 4))
UNHELD = Normal(None, landing=landing(1, 1))
THE_LANDING = Normal(None)


@pytest.mark.parametrize(
    ("call", "admission", "held", "behind"),
    [
        pytest.param(CALL, BEFORE_ANOTHER, None, (8, 80, 4), id="with the first call it begins"),
        pytest.param(CALL, BEFORE_ANOTHER, HELD, (3, 80, 5), id="it grows, and never shrinks"),
        pytest.param(CALL, THE_LANDING, HELD, (3, 0, 0), id="the landing takes it up"),
        pytest.param(CALL, THE_LANDING, None, None, id="a landing for which nothing is held"),
        pytest.param(CALL, UNHELD, None, None, id="nothing is to be held"),
        pytest.param(CALL, UNHELD, HELD, None, id="nothing more is to be held"),
        pytest.param(replace(CALL, kind="summary"), BEFORE_ANOTHER, HELD, None, id="a summary leaves it alone"),
        pytest.param(replace(CALL, charges=()), BEFORE_ANOTHER, None, None, id="there is no shared budget"),
        pytest.param(CALL, BEFORE_ANOTHER, replace(HELD, charges=(YESTERDAY,)), (8, 80, 4), id="it is held in yesterday's budget"),
        pytest.param(CALL, THE_LANDING, replace(HELD, charges=(YESTERDAY,)), None, id="yesterday's pays for no landing of today"),
        pytest.param(CALL, Normal(None, landing=landing(0, 0), held=landing(0, 0)), None, (8, 1, 1), id="a free one is held too"),
    ],
)
def test_what_is_held_behind_a_call(call: LedgerRow, admission: Normal, held: LedgerRow | None, behind: Any) -> None:
    row = held_behind(call, admission, held, next_entry=itertools.count(8).__next__)
    assert (None if row is None else (row.entry, row.bound_nusd, row.bound_tokens)) == behind
    if row is not None:
        assert (row.kind, row.state, row.charges) == ("landing", "reserved", (TODAY,))


def test_it_counts_in_no_account_of_its_turn() -> None:
    sums = totals([HELD, replace(CALL, state="settled", cost_nusd=9, tokens=3, used=True)])
    assert (sums.cost_nusd, sums.tokens, sums.uncertain_nusd, sums.uncertain_tokens, sums.steps) == (9, 3, 0, 0, 1)


class Life:
    """A turn that holds, and what is written of it."""

    def __init__(self) -> None:
        self.written: list[tuple[int, str, str, int]] = []
        self.holding = Holding(write=self._write, next_entry=itertools.count(8).__next__)

    def _write(self, row: LedgerRow) -> None:
        self.written.append((row.entry, row.kind, row.state, row.bound_nusd))

    def new(self) -> list[tuple[int, str, str, int]]:
        """Return what was written since the last look."""
        written, self.written = self.written, []
        return written


def test_the_life_of_what_is_held() -> None:
    life = Life()
    asked = life.holding.ask(CALL, BEFORE_ANOTHER)
    assert (asked.entry, asked.kind, asked.bound_nusd, asked.bound_tokens) == (8, "landing", 180, 14), "one row stands for both"
    life.holding.answered(CALL, granted=True)
    assert life.new() == [(7, "step", "reserved", 100), (8, "landing", "reserved", 80)], "too much for an instant, never too little"
    assert (life.holding.within(TODAY), life.holding.within(YESTERDAY)) == (landing(80, 4), NOTHING)
    life.holding.ask(CALL, BEFORE_ANOTHER)
    life.holding.answered(CALL, granted=False)
    assert (life.new(), life.holding.within(TODAY)) == ([], landing(80, 4)), "what was refused changes nothing"
    life.holding.ask(CALL, THE_LANDING)
    life.holding.answered(CALL, granted=True)
    assert life.new() == [(7, "step", "reserved", 100), (8, "landing", "reserved", 0)]
    life.holding.unbilled(CALL)
    assert life.new() == [(8, "landing", "reserved", 100)], "the next attempt finds as much"
    life.holding.give_back()
    life.holding.give_back()
    assert (life.new(), life.holding.within(TODAY)) == ([(8, "landing", "failed", 100)], NOTHING)


def test_what_nobody_has_answered_yet_is_given_back_too() -> None:
    life = Life()
    life.holding.ask(CALL, BEFORE_ANOTHER)
    life.holding.give_back()
    assert life.new() == [(8, "landing", "failed", 180)]


@pytest.mark.parametrize("then", ["ends", "asks again"])
def test_a_landing_held_in_another_budget_is_given_back_though_its_successor_was_never_answered(then: str) -> None:
    """The budget had been changed, or the day, and the call cancelled: what was held before stayed so until its run was deleted."""
    life = Life()
    life.holding.restore([replace(HELD, charges=(YESTERDAY,))])
    life.holding.ask(CALL, BEFORE_ANOTHER)
    if then == "ends":
        life.holding.give_back()
    else:
        life.holding.ask(CALL, BEFORE_ANOTHER)
        life.holding.answered(CALL, granted=True)
        assert life.written.pop(0) == (3, "landing", "failed", 50)
        life.holding.give_back()
        assert [row[0] for row in life.written if row[1] == "landing"] == [8, 8]
        return
    assert life.new() == [(3, "landing", "failed", 50), (8, "landing", "failed", 180)]


def test_an_answer_to_one_call_is_not_taken_for_that_of_another_that_was_cancelled() -> None:
    life = Life()
    life.holding.ask(CALL, BEFORE_ANOTHER)
    judge = replace(CALL, entry=9, kind="judge")
    assert life.holding.ask(judge, BEFORE_ANOTHER) is judge
    life.holding.answered(judge, granted=True)
    assert life.new() == []
    life.holding.give_back()
    assert life.new() == [(8, "landing", "failed", 180)]


def test_after_a_crash_it_is_held_still_and_yesterdays_is_given_back() -> None:
    life = Life()
    life.holding.restore([replace(HELD, entry=2, charges=(YESTERDAY,)), replace(HELD, entry=4, state="failed"), CALL, HELD])
    assert (life.new(), life.holding.within(TODAY)) == ([(2, "landing", "failed", 50)], landing(50, 5))
