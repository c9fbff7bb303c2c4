"""An afternoon with the starter code: what it costs, and the limits."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.starter import ask, asks, make, said

pytestmark = pytest.mark.usefixtures("at_home")


USAGES = {
    "usage": {"usage": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}},
    "usage_metadata": {"usage_metadata": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}},
    "token_usage": {"token_usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}},
    "prompt and completion tokens": {"usage": {"prompt_tokens": 12, "completion_tokens": 5}},
    "without a total": {"usage": {"input_tokens": 12, "output_tokens": 5}},
    "a bare total": {"usage": {"total_tokens": 17}},
}


@pytest.mark.parametrize("metadata", USAGES.values(), ids=USAGES)
def test_usage_is_read_in_every_layout(metadata):
    assert ask(make(asks(**metadata), said("Sunny.", **metadata))).total_tokens == 34


def test_usage_that_no_reply_tells_is_estimated_and_never_zero():
    run = ask(make(asks(), "Sunny."))
    assert run.total_tokens > 0
    assert run.total_cost_usd == 0.0


@pytest.mark.parametrize("cost", [0.001, Decimal("0.001"), "0.001"], ids=["float", "Decimal", "text"])
@pytest.mark.parametrize("key", ["cost_usd", "cost", "total_cost"])
def test_cost_is_read_under_every_name(key, cost):
    run = ask(make(asks(**{key: cost}), said("Sunny.", **{key: cost})))
    assert run.total_cost_usd == pytest.approx(0.002, abs=1e-12)


def test_many_small_costs_are_summed_without_rounding():
    run = ask(
        make(lambda m, t: asks(f"city {len(m)}", cost_usd=0.1) if len(m) < 12 else said("Done.", cost_usd=0.1), config={"max_cost_usd": 5})
    )
    assert (run.steps, run.total_cost_usd) == (6, 0.6)  # six times 0.1 is 0.6 exactly, not 0.6 and a bit


def test_the_cost_limit_acts():
    it = make(lambda m, t: asks(f"city {len(m)}", cost_usd=0.02), config={"max_cost_usd": 0.05, "max_steps": 50})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("failed", "max_cost_usd")
    assert 0 < run.total_cost_usd <= 0.05
    assert len(it.llm.requests) <= 2


def test_the_token_limit_acts():
    usage = {"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}
    it = make(lambda m, t: asks(f"city {len(m)}", usage=usage), config={"max_tokens": 3500, "max_steps": 50})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("failed", "max_tokens")
    assert 0 < run.total_tokens <= 3500


def test_a_model_that_calls_tools_for_ever_is_stopped_at_max_steps():
    it = make(lambda m, t: asks(f"city {len(m)}"), config={"max_steps": 4})
    run = ask(it)
    assert (run.steps, run.status, run.error.split(":")[0]) == (4, "failed", "max_steps")
    assert len(it.llm.requests) == 4
    assert len(it.tools.calls) == 3, "what the last step asks for could not be used any more"


def test_before_a_limit_is_reached_the_model_may_answer_from_what_it_knows():
    run = ask(make(lambda m, t: asks(f"city {len(m)}") if t else said("As far as I know: sunny."), config={"max_steps": 3}))
    assert (run.status, run.output, run.steps, run.error) == ("complete", "As far as I know: sunny.", 3, None)


@pytest.mark.parametrize("key", ["max_steps", "max_tokens", "max_cost_usd", "timeout_s"])
def test_a_limit_of_zero_calls_no_model(key):
    it = make("Hello.", config={key: 0})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("timeout" if key == "timeout_s" else "failed", key)
    assert it.llm.requests == []
