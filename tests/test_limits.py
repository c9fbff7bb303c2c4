"""Landing and degradation: what a turn does as it comes near a limit. After it has reached one: test_add_budget.py."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import (
    AgentRun,
    Budget,
    ConfigError,
    MessageRole,
    ProductionAgent,
    create_production_agent,
)
from agent_graph.decisions import prompt
from agent_graph.storage.port import LedgerRow, TurnKey
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import FakeClock, ScriptedChatModel
from tests.provider import CENT, APIConnectionError, InternalServerError, PaidModel, Provider, paid_agent, scripted, tool_call


@tool(extras={"idempotent": True})
def look(at: int = 0) -> str:
    """Look."""
    return f"nothing at {at}"


def agent_of(model: PaidModel, *fallbacks: PaidModel, **options: Any) -> ProductionAgent:
    return paid_agent(model, [look], fallbacks=fallbacks, **{"max_cost_usd": 1, "clock": FakeClock(auto=True), **options})


async def rows_of(agent: ProductionAgent, run: AgentRun) -> list[LedgerRow]:
    [turn, *_] = [row for row in await agent.storage.turns("default", run.run_id) if row.key.turn == run.turn]
    return list(await agent.storage.ledger(turn.key))


# -- a landing whose input does not fit ------------------------------------------------------------------------------------------


@tool(extras={"idempotent": True})
def read_all() -> str:
    """Read far more than was left for a landing."""
    return "the beginning" + " word" * 15_000 + " the end"


class Shown:
    """A model that reads all, answers in a landing, bills what it was shown, and remembers it."""

    def __init__(self) -> None:
        self.provider, self.inputs = Provider(), list[list[BaseMessage]]()
        self.model = scripted(self.provider, self.answer)

    def answer(self, messages: list[BaseMessage]) -> Any:
        self.inputs.append(messages)
        return (AIMessage("from the ends") if prompt.LANDING in messages[0].text else tool_call("read_all", len(self.inputs))), 20

    @property
    def last_result(self) -> str:
        [result] = [message.text for message in self.inputs[-1] if isinstance(message, ToolMessage)]
        return result


@pytest.mark.parametrize(
    ("options", "key"),
    [
        pytest.param({"max_tokens": 6_000}, "max_tokens", id="tokens"),
        pytest.param({"max_cost_usd": 0.05}, "max_cost_usd", id="money"),
        pytest.param({"budget": Budget("team", max_tokens=6_000, per="total")}, "budget", id="a shared budget"),
        pytest.param({"max_tokens": 6_000, "middleware": [AgentMiddleware[Any, Any, Any]()]}, "max_tokens", id="with a hook"),
    ],
)
async def test_a_landing_that_does_not_fit_is_shown_less_of_the_tool_results(options: dict[str, Any], key: str) -> None:
    """One large result, and a turn that had spent ended without an answer."""
    world = Shown()
    prices = {"main": {"input": Decimal(10), "output": Decimal(10)}}
    agent = create_production_agent(
        world.model, [read_all], prices=prices, storage=":memory:", max_output_tokens=1_000, **{"max_tokens": None, **options}
    )
    run = await agent.run("q", "r")
    assert (run.status, run.output, run.landed, run.steps) == ("complete", "from the ends", key, 2)
    assert world.last_result.startswith("the beginning word")
    assert world.last_result.endswith("word the end")
    assert "characters were cut" in world.last_result
    assert 3_000 < len(world.last_result) < 60_000, "as much as fits, or nearly"
    [said] = [warning for warning in run.warnings if "landing" in warning]
    assert re.fullmatch(rf"the landing was shown tool results of at most \d+ tokens each: the whole did not fit \({key}: .*\)\.", said)
    [kept] = [entry.message.content for entry in await agent.history("r") if entry.message.role is MessageRole.TOOL]
    assert "characters were cut" not in kept, "the turn's own messages stay whole"
    assert run.tool_calls[0].result == kept


async def test_a_landing_on_a_dearer_fallback_is_shown_less_where_it_does_not_fit() -> None:
    provider, shown = Provider(), Shown()
    main = scripted(provider, (tool_call("read_all", 1), 20), InternalServerError("down"))
    prices = {"main": {"input": 1, "output": 1}, "dear": {"input": 50, "output": 50}}
    shown.model.model_name = "dear"
    agent = create_production_agent(
        main, [read_all], fallbacks=[shown.model], prices=prices, max_cost_usd=0.2, clock=FakeClock(auto=True), storage=":memory:",
        max_output_tokens=1_000,
    )  # fmt: skip
    run = await agent.run("q", "r")
    assert (run.status, run.output, run.landed) == ("complete", "from the ends", "error")
    assert "characters were cut" in shown.last_result


# -- a limit smaller than the first call ------------------------------------------------------------------------------------------


async def test_a_limit_smaller_than_the_first_calls_worst_case_ends_the_turn_before_any_call() -> None:
    provider = Provider()
    run = await agent_of(scripted(provider, (AIMessage("hi"), 1)), max_cost_usd=0.002).run("q")
    assert provider.calls == []
    assert (run.status, run.stop_reason, run.steps) == ("failed", "max_cost_usd", 0)
    assert run.error == "max_cost_usd: 0 + 0.00256 of 0.002"


async def test_a_first_call_that_fits_shrunk_is_made_shrunk() -> None:
    provider = Provider()
    agent = agent_of(scripted(provider, (AIMessage("hi"), 1_000)), max_cost_usd=0.005)
    run = await agent.run("q")
    assert (run.status, run.output) == ("complete", "hi")
    assert provider.bill_usd == Decimal("0.005")
    [row] = await rows_of(agent, run)
    assert (row.bound_nusd, row.cost_nusd) == (5_000_000, 5_000_000)


# -- each attempt at its own price ----------------------------------------------------------------------------------------------


async def test_where_the_model_does_not_fit_a_cheaper_fallback_answers() -> None:
    provider = Provider()
    dear = scripted(provider, (AIMessage("dear"), 1), name="dear", usd_per_token=Decimal("0.001"))
    cheap = scripted(provider, (AIMessage("cheap"), 1), name="cheap")
    agent = agent_of(dear, cheap, max_cost_usd=0.02)
    run = await agent.run("q")
    assert (run.status, run.output, provider.calls) == ("complete", "cheap", ["cheap"])
    assert run.warnings == ["dear was not asked (max_cost_usd: 0 + 0.256 of 0.02); falling back."]
    assert [(row.model, row.bound_nusd) for row in await rows_of(agent, run)] == [("cheap", 10_000_000)]


async def test_a_dearer_fallback_that_does_not_fit_is_not_asked() -> None:
    provider = Provider()
    failing = scripted(provider, InternalServerError("no"), name="failing")
    dear = scripted(provider, (AIMessage("dear"), 1), name="dear", usd_per_token=Decimal("0.001"))
    run = await agent_of(failing, dear, max_cost_usd=0.02).run("q")
    assert provider.calls == []
    assert run.status == "failed"
    assert "InternalServerError" in str(run.error)


async def test_a_retry_that_the_lost_reply_left_no_money_for_is_not_made() -> None:
    """The lost reply may have been billed: it stays counted, and another attempt would pass the limit."""
    provider = Provider()
    run = await agent_of(scripted(provider, APIConnectionError("lost")), max_cost_usd=0.012).run("q")
    assert len(provider.calls) == 1
    assert provider.bill_usd <= Decimal("0.012")
    assert run.cost_uncertain_usd == 0.01
    assert run.status == "failed"
    assert run.warnings == ["main was not asked again (max_cost_usd: 0.01 + 0.00256 of 0.012)."]


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_exactly_as_many_attempts_as_allowed_and_none_after_the_deadline(attempts: int) -> None:
    provider, clock = Provider(), FakeClock(auto=True)
    asked: list[float] = []

    def fails(messages: list[BaseMessage]) -> Any:
        asked.append(clock.monotonic())
        return InternalServerError("no")

    began = clock.monotonic()
    run = await agent_of(scripted(provider, fails), retry_attempts=attempts, clock=clock).run("q")
    assert (run.status, len(asked)) == ("failed", attempts)
    limit = 3.0
    asked.clear()
    clock.slept.clear()
    began = clock.monotonic()
    run = await agent_of(scripted(provider, fails), retry_attempts=None, timeout_s=limit, clock=clock).run("q")
    assert len(asked) > 3
    assert max(asked) - began < limit
    assert sum(clock.slept) < limit


async def test_a_summary_that_does_not_fit_is_made_without_the_model() -> None:
    provider = Provider()
    long = "word " * 3_000

    def lead(messages: list[BaseMessage]) -> Any:
        return (AIMessage("done"), 10) if isinstance(messages[-1], ToolMessage) else (tool_call("look", 1), 10)

    agent = agent_of(scripted(provider, lead), compression_threshold=2_000, max_cost_usd=0.003)
    await agent.run(long, "r")
    run = await agent.run("and now?", "r")
    kinds = [row.kind for row in await rows_of(agent, run)]
    assert "summary" not in kinds
    assert any("the summary was made without the model" in warning for warning in run.warnings)
    assert provider.bill_usd <= Decimal("0.006")


# -- landing --------------------------------------------------------------------------------------------------------------------


async def test_wherever_the_limit_falls_a_turn_that_has_made_a_second_call_has_an_answer() -> None:
    """The reply itself was not counted in what is kept for the landing behind it: one limit in five ended in nothing, by some hundredths
    of a cent."""

    def says(messages: list[BaseMessage]) -> AIMessage:
        usage: Any = {"input_tokens": 60 + 40 * len(messages), "output_tokens": min(300, model.requests[-1][1]["max_tokens"])}
        usage |= {"total_tokens": sum(usage.values())}
        if prompt.LANDING in str(messages[0].content):
            return AIMessage("What I know.", usage_metadata=usage)
        return AIMessage("", tool_calls=[{"id": "1", "name": "look", "args": {"at": len(messages)}}], usage_metadata=usage)

    for tenths_of_a_cent in range(30, 130, 3):
        limit = tenths_of_a_cent / 10_000
        model = ScriptedChatModel([says], last_forever=True, model_name="m")
        async with create_production_agent(
            model, [look], max_cost_usd=limit, prices={"m": {"input": 1, "output": 4}}, storage=":memory:"
        ) as agent:
            run = await agent.run("Look around.", "r")
        assert (run.status, run.output, run.landed) == ("complete", "What I know.", "max_cost_usd"), (limit, run.error)
        assert run.total_cost_usd <= limit


async def test_a_landing_on_a_fallback_when_the_model_fails_for_good_and_a_call_no_longer_fits() -> None:
    """The model fails at its second step; the fallback is too dear for an ordinary call, and can pay for a landing."""
    provider = Provider()
    main = scripted(provider, (tool_call("look", 1), 1_000), InternalServerError("no"))
    dear = scripted(provider, (AIMessage("from what is known"), 5), name="dear", usd_per_token=CENT * 10)
    agent = agent_of(main, dear, max_cost_usd=0.01 + 0.04)
    run = await agent.run("q")
    assert (run.status, run.output, run.landed, run.stop_reason) == ("complete", "from what is known", "error", "answer")
    assert provider.calls == ["main", "dear"]
    assert provider.bill_usd <= Decimal("0.05")


async def test_a_landing_on_a_fallback_that_gives_no_answer_says_what_failed() -> None:
    provider = Provider()
    main = scripted(provider, (tool_call("look", 1), 1_000), InternalServerError("no"))
    dear = scripted(provider, (tool_call("look", 2), 5), name="dear", usd_per_token=CENT * 10)
    run = await agent_of(main, dear, max_cost_usd=0.01 + 0.04).run("q")
    assert (run.status, run.landed, run.stop_reason, len(run.tool_calls)) == ("failed", "error", "error", 1)
    assert run.error == "LLMError: the model failed, and another one gave no answer from what was known."


class Enough(ProductionAgent):
    """Has enough once it looks at the limits for the n-th time."""

    looks = 0

    async def _check_budgets(self, run: AgentRun) -> str | None:
        self.looks += 1
        return "enough: it is" if self.looks == 3 else await super()._check_budgets(run)


@pytest.mark.parametrize(
    ("answers", "dear", "options", "kind", "landed", "error"),
    [
        pytest.param(
            [(AIMessage(""), 1)], None, {"max_steps": 2}, ProductionAgent, "max_steps", "max_steps: 2 of 2", id="made, and no answer"
        ),
        pytest.param(
            [InternalServerError("no")],
            None,
            {"max_steps": 2},
            ProductionAgent,
            "max_steps",
            "InternalServerError: no",
            id="made, and failed",
        ),
        pytest.param(
            [InternalServerError("no")],
            InternalServerError("neither"),
            {"max_cost_usd": 0.05},
            ProductionAgent,
            "error",
            "InternalServerError: no",
            id="made on a fallback, and failed there too",
        ),
        pytest.param(
            [InternalServerError("no")],
            InternalServerError("not asked"),
            {"max_cost_usd": 0.03},
            ProductionAgent,
            None,
            "InternalServerError: no",
            id="the fallback cannot be paid",
        ),
        pytest.param([(AIMessage("ok"), 1)], None, {"max_steps": 2}, Enough, None, "enough: it is", id="decided, and not made"),
    ],
)
async def test_a_turn_that_failed_has_landed_where_a_landing_was_made(
    answers: list[Any], dear: Any, options: dict[str, Any], kind: type[ProductionAgent], landed: str | None, error: str
) -> None:
    """It named a landing that had not been made, and none where one had been made on a fallback."""
    provider = Provider()
    main = scripted(provider, (tool_call("look", 1), 1_000), *answers)
    others = [scripted(provider, dear, name="dear", usd_per_token=CENT * 10)] if dear else []
    agent = agent_of(main, *others, **options)
    agent.__class__ = kind
    run = await agent.run("q")
    assert (run.status, run.error, run.landed) == ("failed", error, landed)


def test_a_fallback_that_needs_another_package_is_refused_with_the_line_to_paste() -> None:
    with pytest.raises(ConfigError, match=r"mistralai:mistral-small.*pip install"):
        create_production_agent("offline", fallbacks=["mistralai:mistral-small"])


async def test_never_a_landing_on_the_model_that_just_failed() -> None:
    provider = Provider()
    main = scripted(provider, (tool_call("look", 1), 10), InternalServerError("no"))
    run = await agent_of(main).run("q")
    assert (run.status, run.landed) == ("failed", None)
    assert run.error == "InternalServerError: no"
    assert provider.calls == ["main"]


async def test_a_model_that_is_too_slow_lands_in_the_time_kept_for_it() -> None:
    provider = Provider()

    async def forever() -> Any:
        await asyncio.Event().wait()

    slow = [(tool_call("look", 1), 10), lambda messages: forever(), (AIMessage("in time"), 10)]
    agent = agent_of(scripted(provider, *slow), timeout_s=2.5, clock=None)
    run = await agent.run("q")
    assert (run.status, run.output, run.landed) == ("complete", "in time", "timeout_s")
    assert run.latency_ms < 2_500
    assert run.cost_uncertain_usd == 0.01, "the call that was cut may have been billed"


class SlowDisk(SqliteStorage):
    """A storage at whose n-th barrier time passes."""

    def __init__(self, clock: FakeClock, barrier: int, seconds: float) -> None:
        super().__init__(":memory:")
        self._fake, self._left, self._seconds = clock, barrier, seconds

    async def durable(self, key: TurnKey, *, fence: int) -> None:
        await super().durable(key, fence=fence)
        self._left -= 1
        if not self._left:
            self._fake.advance(self._seconds)


@pytest.mark.parametrize(
    ("barrier", "seconds", "requests", "end"),
    [
        pytest.param(1, 11.0, 0, ("timeout", None, None), id="the first call's, past the end"),
        pytest.param(3, 8.5, 2, ("complete", "landed", "timeout_s"), id="a later call's, into what is kept for a landing"),
        pytest.param(3, 11.0, 1, ("timeout", None, None), id="a later call's, past the end"),
    ],
)
async def test_a_call_whose_barrier_took_its_time_is_not_sent_and_costs_nothing(
    barrier: int, seconds: float, requests: int, end: Any
) -> None:
    """It was booked as if it might be billed, and counted against the limit for ever."""
    clock, provider = FakeClock(), Provider()
    model = scripted(provider, (tool_call("look", 1), 10), (AIMessage("landed"), 10))
    storage = SlowDisk(clock, barrier, seconds)
    run = await agent_of(model, clock=clock, timeout_s=10, storage=storage).run("q")
    assert (run.status, run.output, run.landed) == end
    assert len(provider.calls) == requests
    assert run.cost_uncertain_usd == 0


async def test_a_tool_that_hangs_leaves_time_for_an_answer() -> None:
    @tool(extras={"idempotent": False})
    async def hang() -> str:
        """Hang."""
        await asyncio.Event().wait()
        return "never"

    model = ScriptedChatModel([tool_call("hang", 1), "I could not find out."])
    run = await create_production_agent(model, [hang], timeout_s=2.5).run("q")
    assert (run.status, run.output, run.landed) == ("complete", "I could not find out.", "timeout_s")


async def test_a_cut_text_that_cannot_be_continued_is_kept() -> None:
    """A reply that ended at its length limit is continued where there is money, else it is the answer, with a warning."""
    cut = AIMessage("The first half", response_metadata={"finish_reason": "length"})
    for cents, output in ((5, "The first half and the rest"), (1, "The first half")):
        provider = Provider()
        model = scripted(provider, (cut, 1_000), (AIMessage(" and the rest"), 10))
        run = await agent_of(model, max_cost_usd=cents / 100).run("q")
        assert (run.status, run.output) == ("complete", output)
        assert bool(run.warnings) == (cents == 1)


# -- what a provider may do wrong -------------------------------------------------------------------------------------------------


class Boundless(PaidModel):
    """Ignores the output cap."""

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any) -> Any:
        return await super()._agenerate(messages, stop, run_manager, **{**options, "max_tokens": 10**9})


async def test_a_provider_that_ignores_the_cap_is_booked_flagged_and_counted() -> None:
    provider = Provider()
    model = Boundless(model_name="main", provider=provider, usd_per_token=CENT, says=lambda messages, number: (AIMessage("long"), 9_000))
    agent = agent_of(model, max_cost_usd=0.05)
    run = await agent.run("q")
    assert run.total_cost_usd == 0.09, "booked in full"
    assert run.warnings == [
        "main cost more than was reserved for it: 9000 tokens came where 1000 were the cap. It is booked in full, and may pass the limit."
    ]
    assert agent.governor.ceiling_breaches == 1
    assert any("1 reply" in promise.text for promise in agent.guarantees())


async def test_usage_that_contradicts_itself_is_booked_at_the_larger_figure_and_said() -> None:
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110, "input_token_details": {"cache_read": 120}}
    model = ScriptedChatModel([AIMessage("hi", usage_metadata=usage)])
    agent = create_production_agent(model, prices={"scripted": {"input": 10, "output": 10}})
    run = await agent.run("q")
    assert (run.status, run.total_tokens) == ("complete", 130)
    assert run.warnings == [
        "scripted reported usage that contradicts itself (120 cached of 100 input tokens); the larger figures were booked."
    ]
