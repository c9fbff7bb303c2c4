"""The rules of `decisions.budget` as tables, its promises as properties."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.decisions.budget import (
    MIN_OUTPUT_TOKENS,
    MIN_REASONING_TOKENS,
    NOTHING,
    Account,
    Estimate,
    Land,
    Limits,
    Normal,
    Refuse,
    Spent,
    admit,
    landing_share_s,
    violation,
)

D = Decimal
PRICE = D("0.000002")
"""USD of an output token in these tests."""


def estimate(tokens: int = 0, usd: str = "0", output: int = 0) -> Estimate:
    return Estimate(input_tokens=tokens, output_tokens=output, cost_usd=D(usd))


def ask(limits: Limits, spent: Spent, call: Estimate, landing: Estimate | None = None, **options: Any) -> Normal | Land | Refuse:
    options = {"first": False, "output_price_usd": None, "can_shrink": False, **options}
    return admit(limits, spent, call=call, landing=landing, **options)


# --- violation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "spent", "text"),
    [
        (Limits(), Spent(steps=10**6, tokens=10**9, cost_usd=D(10**6), elapsed_s=1e9), None),
        (Limits(max_steps=2), Spent(steps=1), None),
        (Limits(max_steps=2), Spent(steps=2), "max_steps: 2 of 2"),
        (Limits(max_steps=0), Spent(), "max_steps: 0 of 0"),
        (Limits(max_tokens=100), Spent(tokens=99), None),
        (Limits(max_tokens=100), Spent(tokens=120), "max_tokens: 120 of 100"),
        (Limits(max_tokens=100), Spent(tokens=60, uncertain_tokens=40), "max_tokens: 100 of 100"),
        (Limits(max_cost_usd=D("0.05")), Spent(cost_usd=D("0.0499999999")), None),
        (Limits(max_cost_usd=D("0.05")), Spent(cost_usd=D("0.0500")), "max_cost_usd: 0.05 of 0.05"),
        (Limits(max_cost_usd=D("0.05")), Spent(cost_usd=D("0.03"), uncertain_usd=D("0.03")), "max_cost_usd: 0.06 of 0.05"),
        (Limits(max_cost_usd=D("1E-7")), Spent(cost_usd=D("3E-7")), "max_cost_usd: 0.0000003 of 0.0000001"),
        (Limits(max_cost_usd=D("1E+2")), Spent(cost_usd=D(100)), "max_cost_usd: 100 of 100"),
        (Limits(timeout_s=10), Spent(elapsed_s=9.99), None),
        (Limits(timeout_s=10), Spent(elapsed_s=12.3), "timeout_s: 12.3 of 10"),
        (Limits(timeout_s=0.5), Spent(elapsed_s=0.512345), "timeout_s: 0.512 of 0.5"),
        (Limits(max_steps=1, max_tokens=1), Spent(steps=1, tokens=1), "max_steps: 1 of 1"),
        (Limits(max_tokens=1, max_cost_usd=D(1), timeout_s=1), Spent(tokens=1, cost_usd=D(1), elapsed_s=1), "max_tokens: 1 of 1"),
        (Limits(max_cost_usd=D(1), timeout_s=1), Spent(cost_usd=D(1), elapsed_s=1), "max_cost_usd: 1 of 1"),
    ],
)
def test_violation_names_the_first_reached_limit(limits: Limits, spent: Spent, text: str | None) -> None:
    assert violation(limits, spent) == text


# --- admit ---------------------------------------------------------------------------------------------------------------

CENTS = Limits(max_cost_usd=D("0.05"))
TOKENS = Limits(max_tokens=1_000)
STEPS = Limits(max_steps=3)
TIME = Limits(timeout_s=30)
CALL = estimate(100, "0.01")


@pytest.mark.parametrize(
    ("limits", "spent", "landing", "first", "expected"),
    [
        pytest.param(Limits(), Spent(steps=99, elapsed_s=1e6), CALL, False, Normal(None), id="no limits"),
        pytest.param(CENTS, Spent(cost_usd=D("0.03")), CALL, False, Normal(None), id="call and landing fit exactly"),
        pytest.param(CENTS, Spent(cost_usd=D("0.0301")), CALL, False, Land("max_cost_usd", None), id="no money behind it"),
        pytest.param(CENTS, Spent(cost_usd=D("0.0301")), None, False, Normal(None), id="landing off"),
        pytest.param(CENTS, Spent(cost_usd=D("0.0301")), CALL, True, Normal(None), id="the first call never lands"),
        pytest.param(
            CENTS,
            Spent(cost_usd=D("0.0401")),
            CALL,
            False,
            Refuse("max_cost_usd", "max_cost_usd: 0.0401 + 0.01 of 0.05"),
            id="not even a landing fits",
        ),
        pytest.param(
            CENTS,
            Spent(cost_usd=D("0.02"), uncertain_usd=D("0.0205")),
            CALL,
            True,
            Refuse("max_cost_usd", "max_cost_usd: 0.0405 + 0.01 of 0.05"),
            id="a first call that does not fit",
        ),
        pytest.param(CENTS, Spent(cost_usd=D("0.05")), CALL, True, Refuse("max_cost_usd", "max_cost_usd: 0.05 of 0.05"), id="reached"),
        pytest.param(CENTS, Spent(cost_usd=D("0.04")), estimate(1), False, Land("max_cost_usd", None), id="a free landing needs room"),
        pytest.param(TOKENS, Spent(tokens=800), CALL, False, Normal(None), id="tokens fit exactly"),
        pytest.param(TOKENS, Spent(tokens=700, uncertain_tokens=101), CALL, False, Land("max_tokens", None), id="no tokens behind it"),
        pytest.param(
            TOKENS, Spent(tokens=901), CALL, False, Refuse("max_tokens", "max_tokens: 901 + 100 of 1000"), id="not even tokens to land"
        ),
        pytest.param(STEPS, Spent(steps=1), CALL, False, Normal(None), id="a step is left after it"),
        pytest.param(STEPS, Spent(steps=2), CALL, False, Land("max_steps", None), id="the last step"),
        pytest.param(STEPS, Spent(steps=2), None, False, Normal(None), id="the last step, landing off"),
        pytest.param(STEPS, Spent(steps=3), CALL, False, Refuse("max_steps", "max_steps: 3 of 3"), id="no step"),
        pytest.param(Limits(max_steps=1), Spent(), CALL, True, Normal(None), id="one step, first"),
        pytest.param(TIME, Spent(elapsed_s=23.9), CALL, False, Normal(None), id="time beyond the landing's share"),
        pytest.param(TIME, Spent(elapsed_s=24.0), CALL, False, Land("timeout_s", None), id="only the landing's time is left"),
        pytest.param(TIME, Spent(elapsed_s=29.9), CALL, True, Normal(None), id="late, first"),
        pytest.param(TIME, Spent(elapsed_s=30), CALL, True, Refuse("timeout_s", "timeout_s: 30 of 30"), id="no time"),
    ],
)
def test_admit_without_an_output_cap(
    limits: Limits, spent: Spent, landing: Estimate | None, first: bool, expected: Normal | Land | Refuse
) -> None:
    assert ask(limits, spent, CALL, landing, first=first) == expected


WORST = estimate(1_000, "0.0092", output=4_096)
"""0.001008 for the input, 4,096 tokens of output at PRICE."""


@pytest.mark.parametrize(
    ("room_usd", "landing", "expected"),
    [
        pytest.param("0.0092", None, Normal(4_096), id="fits exactly"),
        pytest.param("0.009199", None, Normal(4_095), id="shrunk by one"),
        pytest.param("0.00152", None, Normal(256), id="shrunk to the floor"),
        pytest.param("0.001519", None, Refuse("max_cost_usd", "max_cost_usd: 1 + 0.00152 of 1.001519"), id="below the floor"),
        pytest.param("0.01072", WORST, Normal(4_096), id="a smallest landing fits behind it"),
        pytest.param("0.01", WORST, Normal(3_736), id="shrunk to leave the landing its room"),
        pytest.param("0.00304", WORST, Normal(256), id="both at the floor"),
        pytest.param("0.003039", WORST, Land("max_cost_usd", 1_015), id="the landing takes what is left"),
        pytest.param("0.00152", WORST, Land("max_cost_usd", 256), id="a landing at the floor"),
        pytest.param("0.0015", WORST, Refuse("max_cost_usd", "max_cost_usd: 1 + 0.00152 of 1.0015"), id="no landing"),
    ],
)
def test_admit_shrinks_the_output_cap(room_usd: str, landing: Estimate | None, expected: Normal | Land | Refuse) -> None:
    limits = Limits(max_cost_usd=1 + D(room_usd))
    assert ask(limits, Spent(cost_usd=D(1)), WORST, landing, output_price_usd=PRICE, can_shrink=True) == expected


@pytest.mark.parametrize(
    ("output", "reasoning", "room_tokens", "expected"),
    [
        pytest.param(4_096, False, 1_000 + 5_000, Normal(4_096), id="fits"),
        pytest.param(4_096, False, 1_000 + 300, Normal(300), id="shrunk"),
        pytest.param(4_096, False, 1_000 + 255, Refuse("max_tokens", "max_tokens: 0 + 1256 of 1255"), id="below the floor"),
        pytest.param(4_096, True, 1_000 + 2_048, Normal(2_048), id="a reasoning model's floor"),
        pytest.param(4_096, True, 1_000 + 2_047, Refuse("max_tokens", "max_tokens: 0 + 3048 of 3047"), id="below that floor"),
        pytest.param(100, False, 1_000 + 100, Normal(100), id="a cap of the user's below the floor holds"),
        pytest.param(100, True, 1_000 + 99, Refuse("max_tokens", "max_tokens: 0 + 1100 of 1099"), id="and is not shrunk"),
    ],
)
def test_the_floors_of_an_output_cap(output: int, reasoning: bool, room_tokens: int, expected: Normal | Refuse) -> None:
    call = estimate(1_000, output=output)
    assert ask(Limits(max_tokens=room_tokens), Spent(), call, first=True, can_shrink=True, reasoning=reasoning) == expected


def test_a_landing_after_the_call_may_cost_more_than_one_made_now() -> None:
    limits, spent = Limits(max_tokens=1_000), Spent(tokens=700)
    now, later = estimate(100), estimate(250)
    assert ask(limits, spent, estimate(100), now) == Normal(None)
    assert ask(limits, spent, estimate(100), now, landing_after=later) == Land("max_tokens", None)


@pytest.mark.parametrize(("timeout_s", "share_s"), [(30.0, 6.0), (50.0, 10.0), (600.0, 10.0), (0.0, 0.0)])
def test_the_landing_keeps_a_fifth_of_the_time_and_at_most_ten_seconds(timeout_s: float, share_s: float) -> None:
    assert landing_share_s(timeout_s) == pytest.approx(share_s)


def left(tokens: int | None = None, usd: str | None = None, kept: Estimate = NOTHING) -> Account:
    """An account with so much left."""
    return Account(limits=Limits(max_tokens=tokens, max_cost_usd=None if usd is None else D(usd)), spent=Spent(), owner="above", kept=kept)


@pytest.mark.parametrize(
    ("accounts", "cap"),
    [
        ([left()], 1_000),
        ([left(10_000), left(700)], 600),
        ([left(700), left(10_000)], 600),
        ([left(10_000), left(700, kept=estimate(60, output=40))], 500),
        ([left(usd="1"), left(usd="0.005")], 500),
        ([left(usd="0.005"), left(usd="1")], 500),
        ([left(usd="1"), left(usd="0.005", kept=estimate(usd="0.001"))], 400),
        ([left(700), left(usd="0.005")], 500),
    ],
)
def test_the_tightest_account_decides_how_far_a_call_is_shrunk(accounts: list[Account], cap: int) -> None:
    """A call of 100 tokens, and at most 1,000 of output for a cent."""
    call = estimate(100, "0.01", output=1_000)
    assert ask(Limits(), Spent(), call, output_price_usd=D("0.00001"), can_shrink=True, above=accounts) == Normal(cap)


# --- promises ------------------------------------------------------------------------------------------------------------

money = st.decimals(min_value=0, max_value=2, places=9)
counts = st.integers(0, 20_000)
prices = st.decimals(min_value=0, max_value="0.0001", places=9)
limits_strategy = st.builds(
    Limits,
    max_steps=st.none() | st.integers(0, 8),
    max_tokens=st.none() | counts,
    max_cost_usd=st.none() | money,
    timeout_s=st.none() | st.floats(0, 200),
)
spent_strategy = st.builds(
    Spent,
    steps=st.integers(0, 8),
    tokens=counts,
    cost_usd=money,
    uncertain_tokens=st.integers(0, 2_000),
    uncertain_usd=st.decimals(min_value=0, max_value="0.1", places=9),
    elapsed_s=st.floats(0, 200),
)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of `admit` that hang together: an estimate's cost is its input's and its output cap's."""
    price = draw(prices)
    can_shrink = draw(st.booleans())

    def an_estimate() -> Estimate:
        output = draw(st.integers(0, 5_000)) if can_shrink else 0
        return Estimate(input_tokens=draw(st.integers(1, 5_000)), output_tokens=output, cost_usd=draw(money) / 10 + output * price)

    return {
        "call": an_estimate(),
        "landing": an_estimate() if draw(st.booleans()) else None,
        "first": draw(st.booleans()),
        "output_price_usd": price,
        "can_shrink": can_shrink,
        "reasoning": draw(st.booleans()),
    }


def worst_case(estimate: Estimate, cap: int | None, price: Decimal) -> tuple[int, Decimal]:
    output = estimate.output_tokens if cap is None else cap
    return estimate.input_tokens + output, estimate.cost_usd - (estimate.output_tokens - output) * price


def rank(admission: Normal | Land | Refuse) -> tuple[int, float]:
    if isinstance(admission, Refuse):
        return 0, 0
    cap = float("inf") if admission.max_output_tokens is None else admission.max_output_tokens
    return (2 if isinstance(admission, Normal) else 1), cap


@given(limits=limits_strategy, spent=spent_strategy, question=questions())
def test_an_admitted_call_never_lets_settled_and_reserved_pass_the_limit(limits: Limits, spent: Spent, question: dict[str, Any]) -> None:
    admission = admit(limits, spent, **question)
    if isinstance(admission, Refuse):
        return
    made = question["landing"] if isinstance(admission, Land) else question["call"]
    tokens, usd = worst_case(made, admission.max_output_tokens, question["output_price_usd"])
    assert limits.max_tokens is None or spent.bound_tokens + tokens <= limits.max_tokens
    assert limits.max_cost_usd is None or spent.bound_usd + usd <= limits.max_cost_usd
    assert limits.max_steps is None or spent.steps < limits.max_steps
    assert limits.timeout_s is None or spent.elapsed_s < limits.timeout_s
    if question["can_shrink"]:
        floor = MIN_REASONING_TOKENS if question["reasoning"] else MIN_OUTPUT_TOKENS
        assert min(floor, made.output_tokens) <= admission.max_output_tokens <= made.output_tokens
    else:
        assert admission.max_output_tokens is None


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """An account with some room left, or without a limit: of two drawn at random, hardly one would admit anything."""
    spent, tokens, usd = draw(spent_strategy), draw(st.none() | st.integers(1, 12_000)), draw(st.none() | money)
    kept = Estimate(input_tokens=draw(st.integers(0, 500)), output_tokens=draw(st.integers(0, 500)), cost_usd=draw(money) / 10)
    limits = Limits(
        max_tokens=None if tokens is None else spent.bound_tokens + tokens, max_cost_usd=None if usd is None else spent.bound_usd + usd
    )
    return Account(limits=limits, spent=spent, owner="above", shared=draw(st.booleans()), kept=kept)


@given(spent=spent_strategy, question=questions(), above=st.lists(accounts(), min_size=1, max_size=3))
def test_an_admitted_call_fits_in_each_account_above_and_leaves_there_what_its_owner_keeps(
    spent: Spent, question: dict[str, Any], above: list[Account]
) -> None:
    """The turns that began this one and the budgets it shares: the tightest of them decides."""
    admission = admit(Limits(), spent, above=above, **question)
    if isinstance(admission, Refuse):
        return
    made = question["landing"] if isinstance(admission, Land) else question["call"]
    tokens, usd = worst_case(made, admission.max_output_tokens, question["output_price_usd"])
    for account in above:
        kept = account.kept.input_tokens + account.kept.output_tokens
        assert account.limits.max_tokens is None or account.spent.bound_tokens + kept + tokens <= account.limits.max_tokens
        assert account.limits.max_cost_usd is None or account.spent.bound_usd + account.kept.cost_usd + usd <= account.limits.max_cost_usd


@given(limits=limits_strategy, less=spent_strategy, more=spent_strategy, question=questions())
def test_more_spent_never_frees_a_budget(limits: Limits, less: Spent, more: Spent, question: dict[str, Any]) -> None:
    more = Spent(
        steps=less.steps + more.steps,
        tokens=less.tokens + more.tokens,
        cost_usd=less.cost_usd + more.cost_usd,
        uncertain_tokens=less.uncertain_tokens + more.uncertain_tokens,
        uncertain_usd=less.uncertain_usd + more.uncertain_usd,
        elapsed_s=less.elapsed_s + more.elapsed_s,
    )
    before, after = admit(limits, less, **question), admit(limits, more, **question)
    assert rank(after)[0] <= rank(before)[0]
    if rank(after)[0] == rank(before)[0]:
        assert rank(after)[1] <= rank(before)[1]
    assert violation(limits, less) is None or violation(limits, more) is not None


@given(spent=spent_strategy, steps=st.integers(2, 5), tokens=st.integers(1, 30_000), usd=money, question=questions())
def test_a_normal_call_leaves_its_landing_affordable(spent: Spent, steps: int, tokens: int, usd: Decimal, question: dict[str, Any]) -> None:
    """Whatever the call really costs, up to its worst case, the next decision is not a refusal."""
    limits = Limits(max_steps=spent.steps + steps, max_tokens=spent.bound_tokens + tokens, max_cost_usd=spent.bound_usd + usd)
    question |= {"first": False, "landing": question["landing"] or question["call"]}
    admission = admit(limits, spent, **question)
    if isinstance(admission, Normal):
        tokens, usd = worst_case(question["call"], admission.max_output_tokens, question["output_price_usd"])
        later = replace(spent, steps=spent.steps + 1, tokens=spent.tokens + tokens, cost_usd=spent.cost_usd + usd)
        assert not isinstance(admit(limits, later, **question), Refuse)


@given(limits=limits_strategy, spent=spent_strategy, question=questions())
def test_a_first_call_never_lands_and_a_reached_limit_admits_nothing(limits: Limits, spent: Spent, question: dict[str, Any]) -> None:
    admission = admit(limits, spent, **{**question, "first": True})
    assert not isinstance(admission, Land)
    text = violation(limits, spent)
    if text is not None:
        assert isinstance(admission, Refuse)
        assert admission.text == text
        assert text.startswith(f"{admission.key}: ")


@given(limits=limits_strategy, asked=st.lists(st.tuples(questions(), st.floats(0, 1), st.booleans()), max_size=12))
def test_no_sequence_of_bills_and_crashes_passes_a_limit(limits: Limits, asked: list[tuple[dict[str, Any], float, bool]]) -> None:
    """Each admitted call either settles somewhere up to its worst case or dies and stays uncertain at it."""
    spent = Spent()
    for question, share, dies in asked:
        admission = admit(limits, spent, **question)
        if isinstance(admission, Refuse):
            continue
        made = question["landing"] if isinstance(admission, Land) else question["call"]
        tokens, usd = worst_case(made, admission.max_output_tokens, question["output_price_usd"])
        if dies:
            spent = replace(spent, uncertain_tokens=spent.uncertain_tokens + tokens, uncertain_usd=spent.uncertain_usd + usd)
        else:
            spent = replace(
                spent,
                steps=spent.steps + 1,
                tokens=spent.tokens + int(tokens * share),
                cost_usd=spent.cost_usd + usd * D(str(share)),
            )
        assert limits.max_tokens is None or spent.bound_tokens <= limits.max_tokens
        assert limits.max_cost_usd is None or spent.bound_usd <= limits.max_cost_usd
        assert limits.max_steps is None or spent.steps <= limits.max_steps


# --- a landing that a shared budget holds -------------------------------------------------------------------------------------


def team(limit: int, used: int, held: int = 0) -> Account:
    """A shared budget of `limit` tokens: `used` by everybody, and `held` for this turn's landing beside."""
    return Account(limits=Limits(max_tokens=limit), spent=Spent(tokens=used), owner="team (in all)", shared=True, held=estimate(held))


@pytest.mark.parametrize(
    ("account", "first", "said"),
    [
        pytest.param(team(180, 0), True, Normal(None), id="the first call, and the landing behind it"),
        pytest.param(team(180, 1), True, Refuse("budget", "budget: team (in all): max_tokens 1 + 180 of 180"), id="the first call alone"),
        pytest.param(team(180, 0, 80), False, Normal(None), id="what is held already is not asked for again"),
        pytest.param(team(180, 1, 80), False, Land("budget", None), id="no call is made that would leave too little"),
        pytest.param(team(299, 0, 200), False, Land("budget", None), id="more is held than this call needs, and stays held"),
        pytest.param(team(1_000, 950, 50), False, Land("budget", None), id="the landing takes up what is held"),
        pytest.param(
            team(1_000, 951, 49), False, Refuse("budget", "budget: team (in all): max_tokens 951 + 50 of 1000"), id="it has grown too large"
        ),
        pytest.param(team(1_000, 1_000), False, Refuse("budget", "budget: team (in all): max_tokens 1000 of 1000"), id="used up"),
    ],
)
def test_a_call_is_made_only_where_a_shared_budget_can_hold_a_landing_behind_it(account: Account, first: bool, said: Any) -> None:
    call, landing, grown = estimate(100), estimate(50), estimate(80)
    admission = ask(Limits(), Spent(), call, landing, first=first, landing_held=grown, above=[account])
    assert admission == said
    if isinstance(admission, Normal):
        assert admission.held == grown


def test_a_refusal_in_usd_names_what_is_spent_and_what_the_call_and_its_landing_cost() -> None:
    account = Account(limits=Limits(max_cost_usd=D("0.30")), spent=Spent(cost_usd=D("0.20")), owner="team (a day)", shared=True)
    call, landing = estimate(1, "0.08"), estimate(1, "0.05")
    said = ask(Limits(), Spent(), call, landing, first=True, landing_held=landing, above=[account])
    assert said == Refuse("budget", "budget: team (a day): max_cost_usd 0.2 + 0.13 of 0.3")


def test_where_none_is_to_be_held_a_first_call_may_use_a_shared_budget_up() -> None:
    assert ask(Limits(), Spent(), estimate(100), estimate(50), first=True, above=[team(100, 0)]) == Normal(None)
    assert ask(Limits(), Spent(), estimate(50), None, above=[team(1_000, 950, 50)]) == Normal(None), "the landing itself"
