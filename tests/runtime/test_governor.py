"""A limit in USD that cannot hold, because a model has no price or tells no usage, is told in the account of each run that it concerns."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from agent_graph import Budget, ProductionAgent, create_production_agent
from agent_graph.decisions.prices import price_line
from agent_graph.storage.port import LedgerRow, TurnKey
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM

USD = Budget("team", max_cost_usd=1, per="total")
TOKENS = Budget("team", max_tokens=10_000, per="total")
TINY = ScriptedChatModel(["Hello."], last_forever=True, model_name="tiny")


async def asked(model: Any = TINY, **options: Any) -> tuple[list[str], list[LedgerRow]]:
    """Return the warnings of the second run of an agent, and its ledger."""
    async with create_production_agent(model, storage=":memory:", retry_attempts=1, **options) as agent:
        for run_id in ("r1", "r2"):
            run = await agent.run("Hi", run_id=run_id)
        return run.warnings, list(await agent.storage.ledger(TurnKey("default", "r2", 1)))


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        pytest.param({}, None, id="our default limit"),
        pytest.param({"max_cost_usd": None}, None, id="no limit"),
        pytest.param({"max_cost_usd": 0.1, "on_unknown_price": "ignore"}, None, id="ignored"),
        pytest.param({"max_cost_usd": 0.1, "prices": {"tiny": {"input": 0, "output": 0}}}, None, id="free"),
        pytest.param({"budget": TOKENS}, None, id="a budget of tokens"),
        pytest.param({"max_cost_usd": 0.1}, "max_cost_usd", id="a limit"),
        pytest.param({"budget": USD}, "the budget 'team'", id="a budget"),
        pytest.param({"max_cost_usd": 0.1, "budget": USD}, "max_cost_usd and the budget 'team'", id="both"),
    ],
)
async def test_who_is_told(options: dict[str, Any], limits: str | None) -> None:
    warnings, _ = await asked(**options)
    told = [f"tiny has no price that is known: such calls count as $0, and {limits} cannot hold for them."] if limits else []
    assert [warning.partition(" Give it")[0] for warning in warnings] == told


async def test_it_is_told_once_a_run_however_many_calls_there_are() -> None:
    async with create_production_agent(
        ScriptedChatModel([TimeoutError("slow"), TimeoutError("slow"), "Hello."], model_name="tiny"), storage=":memory:", max_cost_usd=0.1
    ) as agent:
        run = await agent.run("Hi", run_id="r")
        rows = await agent.storage.ledger(TurnKey("default", "r", 1))
        restored = await agent.get("r")
    assert [row.state for row in rows] == ["unsettled", "unsettled", "settled"]
    assert len(run.warnings) == 1
    assert restored.warnings == run.warnings


@pytest.mark.parametrize("model", ["tiny", 'accounts/me/models/it\'s "tiny"', "\\back\nslash"])
async def test_the_line_to_paste_can_be_pasted(model: str) -> None:
    """It had dots in the place of figures, and could not be pasted."""
    chat = ScriptedChatModel(["Hello."], last_forever=True, model_name=model, usage=(1_000, 100))
    [warning], _ = await asked(chat, max_cost_usd=0.1)
    line = re.search(r"prices=\{.*$", warning, re.DOTALL)
    assert line is not None
    assert line.group() == price_line(model)
    pasted = eval(f"dict({line.group()})")
    warnings, [row] = await asked(chat, max_cost_usd=0.1, **pasted)
    assert warnings == []
    assert row.cost_nusd == 450_000


@pytest.mark.parametrize(
    ("prices", "unpriced"), [({}, True), ({"tiny": {"input": 1, "output": 1}}, None), ({"tiny": {"input": 0, "output": 0}}, None)]
)
async def test_a_call_that_failed_without_a_price_is_no_certain_zero(prices: Any, unpriced: bool | None) -> None:
    _, [row] = await asked(ScriptedChatModel([TimeoutError("slow")], last_forever=True, model_name="tiny"), prices=prices)
    assert row.state == "unsettled"
    assert json.loads(row.usage or "").get("unpriced") is unpriced


async def test_a_call_that_was_refused_costs_nothing_for_certain() -> None:
    _, [row] = await asked(ScriptedChatModel([ConnectionRefusedError()], last_forever=True, model_name="tiny"))
    assert (row.state, json.loads(row.usage or "").get("unpriced")) == ("failed", None)


@pytest.mark.parametrize(("cost_usd", "told"), [(None, True), (0.001, False)])
async def test_a_backend_is_unpriced_where_it_tells_no_cost(cost_usd: float | None, told: bool) -> None:
    llm = ScriptedLLM(["Hello."], cost_usd=cost_usd)
    agent = ProductionAgent(llm, [], FakeTools(), DictMemory(), ListObservability(), {"max_cost_usd": 0.1}, storage=":memory:")
    run = await agent.run("Hi")
    assert any("ScriptedLLM told no cost, and no price is known for it" in warning for warning in run.warnings) is told
    await agent.aclose()


# -- without usage ----------------------------------------------------------------------------------------------------------------

PRICED = {"tiny": {"input": 1, "output": 4}}


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        pytest.param(TINY, {"max_cost_usd": 0.1}, "and that is how far max_cost_usd can hold.", id="a limit"),
        pytest.param(TINY, {"budget": USD}, "and that is how far the budget 'team' can hold.", id="a budget"),
        pytest.param(TINY, {}, None, id="our default limit"),
        pytest.param(TINY, {"max_cost_usd": 0.1, "prices": {"tiny": {"input": 0, "output": 0}}}, None, id="free"),
        pytest.param(TINY.model_copy(update={"usage": (10, 5)}), {"max_cost_usd": 0.1}, None, id="it tells"),
    ],
)
async def test_a_bill_that_is_a_guess_is_told(model: Any, options: dict[str, Any], told: str | None) -> None:
    """A streamed reply without usage was billed by its text, many times too low for a model that thinks, and nothing said so."""
    warnings, [row] = await asked(model, **{"prices": PRICED, **options})
    assert json.loads(row.usage or "").get("estimated") is (None if model.usage else True)
    assert [warning.partition("thinking, ")[2] for warning in warnings] == ([told] if told else [])


async def test_it_is_in_the_log_once_a_model(caplog: pytest.LogCaptureFixture) -> None:
    await asked(prices=PRICED)
    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.levelname == "WARNING"] == ["tiny told no usage"]


async def test_a_backend_that_tells_its_cost_needs_no_usage() -> None:
    warnings, _ = await asked(ScriptedLLM(["Hello.", "Hello."], cost_usd=0.01), max_cost_usd=0.1)
    assert warnings == []
