"""The same faults on agents of other kinds: each has write-ahead points and hand-overs of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from agent_graph import Allow, Budget, ProductionAgent, Replace, create_production_agent, guardrail
from agent_graph.testing import CrashReport, World, call, calls
from tests.crash.scenario import PRICES, SCRIPT, TASK, TOOLS, Tools, make_agent

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

Fuzz = Callable[..., CrashReport]


def that_tells_its_price_afterwards(world: World) -> ProductionAgent:
    look, pay = call("look", call_id="look-1", what="look-1"), call("pay", call_id="pay-2", what="pay-2")
    model = world.llm([calls(look, pay), "All is looked at and paid."], cost_usd=0.001, latency_s=0.002)
    return ProductionAgent(model, TOOLS, Tools(world), None, None, {})  # type: ignore[arg-type]  # no memory is the default one


def that_asks_a_person(world: World) -> ProductionAgent:
    return make_agent(world, on_doubt="ask")


def whose_bank_knows_its_keys(world: World) -> ProductionAgent:
    tools = [TOOLS[0], {**TOOLS[1], "reconcile": world.reconcile}]
    model = world.chat_model(SCRIPT, cost_usd=0.002, latency_s=0.002, tells_cost=False)
    return ProductionAgent(model, tools, Tools(world), None, None, {}, prices=PRICES)  # type: ignore[arg-type]  # see above


@guardrail(stages=["tool_args", "tool_result", "output"])
async def looks_at_everything(stage: str, payload: Any, run: Any) -> Any:
    return Replace(payload.replace("looked", "LOOKED")) if stage == "output" and "looked" in payload else Allow()


def with_a_rail_that_waits(world: World) -> ProductionAgent:
    return make_agent(world, guardrails=[looks_at_everything])


def with_a_sub_agent(world: World) -> ProductionAgent:
    clerk = make_agent(world, name="clerk")

    @tool(extras={"idempotent": True})
    async def delegate(task: str) -> str:
        """Let the clerk do it."""
        return (await clerk.run(task)).output or "nothing"

    script = [AIMessage("", tool_calls=[{"name": "delegate", "args": {"task": TASK}, "id": "d1"}]), AIMessage("The clerk has done it.")]
    model = world.chat_model(script, cost_usd=0.002, tells_cost=False)
    return create_production_agent(model, tools=[delegate], prices=PRICES)


def with_a_shared_budget(world: World) -> ProductionAgent:
    return make_agent(world, budget=Budget("team", max_cost_usd=0.5, per="total"))


@pytest.mark.parametrize(
    ("make", "in_doubt"),
    [
        (with_a_shared_budget, True),
        (that_tells_its_price_afterwards, True),
        (that_asks_a_person, False),
        (whose_bank_knows_its_keys, False),
        (with_a_rail_that_waits, True),
        (with_a_sub_agent, True),
    ],
)
def test_an_agent(crash_fuzz: Fuzz, make: Any, in_doubt: bool) -> None:
    """Where somebody can be asked what became of a call, none is in doubt in the end, and each was made exactly once.

    A person is asked once a call, and the model told of a second doubt: so there one kill a run is enough.
    """
    more = {} if in_doubt else {"kills_per_run": 1}
    report = crash_fuzz(make, TASK, seed=4, every=10, pairs=0, kills=10, **more)
    print(report)
    assert in_doubt or report.total.in_doubt == 0


def test_killed_while_a_person_s_word_is_taken(crash_fuzz: Fuzz) -> None:
    """The first kill leaves a call in doubt; the second falls where the word on it is written down, or just before or after."""
    named = [("tool.after_effect", place) for place in ("word.claimed", "word.queued", "turn.before_return")]
    report = crash_fuzz(that_asks_a_person, TASK, seed=5, failpoints=False, pairs=0, kills=0, named=named)
    print(report)
    assert {"word.claimed", "word.queued", "turn.before_return"} <= set(report.total.places)
    assert report.total.in_doubt == 0


def test_two_turns(crash_fuzz: Fuzz) -> None:
    def make(world: World) -> ProductionAgent:
        return make_agent(world, script=[*SCRIPT, *SCRIPT])

    report = crash_fuzz(make, [TASK, TASK], seed=4, failpoints=False, pairs=3, kills=10)
    print(report)
    assert report.ok


def test_a_crash_loop_cannot_spend_past_the_limit(crash_fuzz: Fuzz) -> None:
    """What a crash leaves unknown counts in full, so the turn may end early; it never spends more than it may."""

    def make(world: World) -> ProductionAgent:
        return make_agent(world, max_cost_usd=0.02)

    report = crash_fuzz(make, TASK, seed=4, failpoints=False, pairs=0, kills=36, kills_per_run=12)
    print(report)
    assert 0 < report.total.limited < report.total.runs
