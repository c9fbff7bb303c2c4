"""The fault matrix's row "model": every fault, through the real ChatOpenAI, over HTTP, judged by the server's own log and bill.

Each fault is tried in both of OpenAI's dialects, and streamed or not where that makes a difference. Besides what a row says, the same
invariants hold after every one: an attempt at the server is a row of the ledger; the client makes none of its own; what the server
billed lies between what is settled and that plus what is uncertain; and the conversation goes on afterwards, which the server would
refuse (400) if its transcript were not valid. Time is a fake clock's, but where the network itself is waited for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agent_graph import AgentRun, Allow, Budget, ProductionAgent, RunFinished, TextDelta, create_production_agent, guardrail
from agent_graph.runtime.circuits import circuit_of
from agent_graph.testing import Answer, FakeClock, OpenAIServer, Tokens, after, broken, call, calls, hang, refuse

pytestmark = pytest.mark.server

PRICES = {
    "m": {"input": 1, "cache_read": "0.1", "cache_write": "1.25", "output": 4},
    "spare": {"input": 2, "output": 8},
}
ALL = ("chat", "chat streamed", "responses", "responses streamed")
TWO = ("chat", "responses streamed")
"""Enough where the fault stands in front of the dialect: a status, a delay."""


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(prices=PRICES) as running:
        yield running


@pytest.fixture
def lone_server() -> Iterator[OpenAIServer]:
    """A server whose circuit breaker no other test has seen: breakers are the process's, by address."""
    with OpenAIServer(prices=PRICES) as running:
        yield running


@tool(extras={"idempotent": True})
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


def model_at(server: OpenAIServer, way: str, name: str = "m") -> ChatOpenAI:
    key: Any = "k"
    return ChatOpenAI(model=name, base_url=server.base_url, api_key=key, stream_usage=True, use_responses_api=way.startswith("responses"))


def agent_at(server: OpenAIServer, way: str, clock: FakeClock | None, **options: Any) -> ProductionAgent:
    options = {"timeout_s": 600, "retry_attempts": 3, "prices": PRICES} | options
    return create_production_agent(model_at(server, way), [weather], clock=clock, **options)


@guardrail(stages=["output"], pure=True)
async def harmless(stage: str, payload: Any, run: Any) -> Any:
    """Allows every answer; it might not, so text is held for it."""
    return Allow()


async def asked(agent: ProductionAgent, way: str, question: str = "How is it in Paris?") -> AgentRun:
    """Return the account of one turn of the run "r", streamed or not."""
    if not way.endswith("streamed"):
        return await agent.run(question, "r")
    runs = [event.run async for event in agent.stream(question, "r") if isinstance(event, RunFinished)]
    return runs[-1]


async def books(agent: ProductionAgent) -> list[Any]:
    """Return the ledger of the first turn of the run "r"."""
    [key] = {dataclasses.replace(row.key, turn=1) for row in await agent.runs()}
    return list(await agent.storage.ledger(key))


async def judged(server: OpenAIServer, agent: ProductionAgent, way: str, run: AgentRun, *, unseen: int = 0) -> list[Any]:
    """Assert the invariants; return the ledger. `unseen`: attempts that cannot have reached the server."""
    assert {request.headers["x-stainless-retry-count"] for request in server.requests} <= {"0"}, "the client makes no attempt of its own"
    rows = await books(agent)
    assert len(rows) == len(server.requests) + unseen, "every attempt is a row, and every row an attempt"
    assert all(row.state != "reserved" for row in rows)
    settled = sum((Decimal(row.cost_nusd) for row in rows), Decimal(0)) / 10**9
    uncertain = sum((Decimal(row.bound_nusd) for row in rows if row.state == "unsettled"), Decimal(0)) / 10**9
    assert (run.total_cost_usd, run.cost_uncertain_usd) == (float(settled), float(uncertain))
    assert settled <= server.bill_usd <= settled + uncertain
    server.script(["And so it goes on."])
    if run.status == "timeout":
        async with agent_at(server, way, None) as patient:
            again = await asked(patient, way, "And now?")
    else:
        again = await asked(agent, way, "And now?")
    assert (again.status, again.error, again.output) == ("complete", None, "And so it goes on.")
    assert [request.status for request in server.requests] == [200]
    return rows


# -- the rows ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and what becomes of the turn."""

    script: Sequence[Any] | Callable[[FakeClock], Sequence[Any]]
    """What the server says; a function is given the clock."""
    asked: int
    """Requests that the server sees."""
    status: str = "complete"
    error: str | None = None
    """What `error` contains."""
    output: str | None = "Fine."
    steps: int = 1
    waits_s: tuple[float, float] | None = None
    """Between which all back-offs together lie, seconds."""
    ways: tuple[str, ...] = TWO
    options: dict[str, Any] = field(default_factory=dict)


def a_date(clock: FakeClock) -> str:
    return format_datetime(datetime.fromtimestamp(clock.time() + 30, UTC), usegmt=True)


def later(**headers: str) -> Any:
    return refuse(429, "slow down", code="rate_limit_exceeded", headers={name.replace("_", "-"): value for name, value in headers.items()})


def failed(asked: int, error: str, **fields: Any) -> dict[str, Any]:
    return {"asked": asked, "error": error, "status": "failed", "output": None, "steps": 0, "waits_s": (0, 0.6)} | fields


NO_QUOTA = refuse(429, "You exceeded your quota", code="insufficient_quota")
TOO_LONG = refuse(400, "maximum context length is 10 tokens", code="context_length_exceeded")
REFUSED_INSIDE, NO_QUOTA_INSIDE = broken("failed", code="invalid_prompt"), broken("failed", code="insufficient_quota")
TOO_LONG_INSIDE = broken("failed", code="context_length_exceeded")
PARIS, ROME = call("weather", call_id="x", city="Paris"), call("weather", call_id="x", city="Rome")
NO_OBJECT = Answer(tool_calls=[{"name": "weather", "args": '["Paris"]'}])
NO_JSON = Answer(tool_calls=[{"name": "weather", "args": '{"city": '}])
MANY = calls(*(call("weather", city=f"City {number}") for number in range(200)))
CUT_CALL = Answer(tool_calls=[{"name": "weather", "args": {"city": "Paris"}}], finish_reason="length")
LONG = Answer("word " * 1_000_000, tokens=Tokens(20, 50), cap_honoured=False)
PASSES = {"asked": 2, "waits_s": (0, 0.2)}

ROWS = {
    "429": Row(script=[later(), "Fine."], **PASSES),
    "429, Retry-After in seconds": Row(script=[later(retry_after="30"), "Fine."], asked=2, waits_s=(30, 30.2)),
    "429, Retry-After as a date": Row(script=lambda clock: [later(retry_after=a_date(clock)), "Fine."], asked=2, waits_s=(29, 30.2)),
    "429, Retry-After in ms": Row(script=[later(retry_after_ms="1500"), "Fine."], asked=2, waits_s=(1.5, 1.7)),
    "429, Retry-After past the deadline": Row(script=[later(retry_after="601"), "Fine."], **failed(1, "429", waits_s=(0, 0))),
    "429 for ever": Row(script=[later()] * 9, **failed(3, "429")),
    "429, one attempt": Row(script=[later(), "Fine."], **failed(1, "429", options={"retry_attempts": 1})),
    "out of money": Row(script=[NO_QUOTA] * 9, **failed(1, "quota", waits_s=(0, 0))),
    **{f"{status}": Row(script=[refuse(status), "Fine."], **PASSES) for status in (408, 409, 500, 502, 503, 529)},
    "500 for ever": Row(script=[refuse(500)] * 9, **failed(3, "500")),
    **{f"{status}": Row(script=[refuse(status)] * 9, **failed(1, f"{status}", waits_s=(0, 0))) for status in (400, 401, 403, 404, 422)},
    "truncated": Row(script=[broken("truncate", after=2), "Fine."], ways=ALL, **PASSES),
    "disconnected": Row(script=[broken("disconnect", after=2), "Fine."], ways=ALL, **PASSES),
    "disconnected at once": Row(script=[broken("disconnect", after=0), "Fine."], **PASSES),
    "garbage": Row(script=[broken("garbage", after=2), "Fine."], ways=ALL, **PASSES),
    "an error inside the stream": Row(script=[broken("error", after=2), "Fine."], ways=ALL, **PASSES),
    "failed, with status 200": Row(script=[broken("failed", after=2), "Fine."], ways=ALL, **PASSES),
    "at its rate limit, with status 200": Row(script=[broken("failed", after=2, code="rate_limit_exceeded"), "Fine."], ways=ALL, **PASSES),
    "refused for good, with status 200": Row(script=[REFUSED_INSIDE] * 9, **failed(1, "", ways=ALL, waits_s=(0, 0))),
    "out of money, with status 200": Row(script=[NO_QUOTA_INSIDE] * 9, **failed(1, "", ways=ALL, waits_s=(0, 0))),
    "too long for the model, with status 200": Row(script=[TOO_LONG_INSIDE, "Fine."], asked=2, ways=ALL),
    "truncated for ever": Row(script=[broken("truncate")] * 9, **failed(3, "", ways=ALL)),
    "truncated in a tool call": Row(script=[broken("truncate", PARIS, after=2), ROME, "Fine."], asked=3, steps=2, ways=ALL),
    "too long for the model": Row(script=[TOO_LONG, "Fine."], asked=2),
    "too long for the model, compressed too": Row(script=[TOO_LONG] * 9, **failed(2, "context length")),
    "empty": Row(script=["", "Fine."], asked=2, steps=2, ways=ALL),
    "unknown tool": Row(script=[call("wether", city="Paris"), "Fine."], asked=2, steps=2),
    "arguments that are no JSON": Row(script=[NO_JSON, "Fine."], asked=2, steps=2, ways=ALL),
    "arguments of a wrong type": Row(script=[call("weather", city={"name": "Paris"}), "Fine."], asked=2, steps=2),
    "arguments that are no object": Row(
        script=[NO_OBJECT, PARIS, "Fine."], asked=3, steps=2, ways=("chat", "responses", "responses streamed")
    ),
    "arguments that are no object, streamed": Row(script=[NO_OBJECT, "Fine."], asked=2, steps=2, ways=("chat streamed",)),
    "duplicate ids": Row(script=[calls(PARIS, ROME), "Fine."], asked=2, steps=2, ways=ALL),
    "200 calls at once": Row(script=[MANY, "Fine."], asked=2, steps=2, ways=("chat", "chat streamed")),
    "a cut reply with a tool call": Row(script=[CUT_CALL, "Fine."], asked=2, steps=2, ways=ALL),
    "5 MB": Row(script=[LONG], asked=1, output=None, ways=("chat", "chat streamed")),
    "a cap that is ignored": Row(script=[Answer("Fine.", tokens=Tokens(20, 90_000), cap_honoured=False)], asked=1),
}
CASES = [pytest.param(row, way, id=f"{name}-{way}") for name, row in ROWS.items() for way in row.ways]


@pytest.mark.parametrize(("row", "way"), CASES)
async def test_faults(server: OpenAIServer, row: Row, way: str) -> None:
    clock = FakeClock(auto=True)
    server.script(row.script(clock) if callable(row.script) else row.script)
    async with agent_at(server, way, clock, **row.options) as agent:
        run = await asked(agent, way)
        assert (run.status, run.error if run.status == "complete" else None) == (row.status, None)
        assert row.error is None or row.error in str(run.error)
        assert (len(server.requests), run.steps) == (row.asked, row.steps)
        assert row.output is None or run.output == row.output
        assert row.waits_s is None or row.waits_s[0] <= sum(clock.slept) <= row.waits_s[1]
        await judged(server, agent, way, run)


# -- what has no row -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ALL)
@pytest.mark.parametrize("entry", [hang, after(3_600, "Fine."), broken("stall", after=2)], ids=["hang", "slow", "stalled"])
async def test_a_model_that_does_not_answer_ends_the_turn_in_time(server: OpenAIServer, entry: Any, way: str) -> None:
    server.script([entry])
    async with agent_at(server, way, None, timeout_s=0.5) as agent:
        run = await asked(agent, way)
        assert (run.status, str(run.error)[:12]) == ("timeout", "timeout_s: 0")
        assert run.cost_uncertain_usd > 0, "what a call that was given up costs is not known"
        assert run.latency_ms < 60_000
        await judged(server, agent, way, run)


@pytest.mark.parametrize("way", TWO)
async def test_a_server_that_is_not_there(server: OpenAIServer, way: str) -> None:
    server.script([])
    server.stop()
    try:
        async with agent_at(server, way, FakeClock(auto=True)) as agent:
            run = await asked(agent, way)
            assert (run.status, run.total_cost_usd, run.cost_uncertain_usd) == ("failed", 0, 0)
            assert "Connection" in str(run.error)
            server.start()
            assert len(await judged(server, agent, way, run, unseen=3)) == 3
    finally:
        server.start()


def cost_of(used: Tokens) -> Decimal:
    """Every part once, at the prices above."""
    plain = used.input - used.cache_read - used.cache_write
    usd = plain * Decimal(1) + used.cache_read * Decimal("0.1") + used.cache_write * Decimal("1.25") + used.output * Decimal(4)
    return usd / 10**6


@pytest.mark.parametrize("way", ALL)
async def test_every_kind_of_token_is_billed_as_the_server_bills_it(server: OpenAIServer, way: str) -> None:
    used = Tokens(10_007, 703, cache_read=8_192, cache_write=1_024, reasoning=640)
    server.script([Answer(tool_calls=PARIS.metadata["tool_calls"], tokens=used), Answer("Fine.", tokens=used)])
    async with agent_at(server, way, None) as agent:
        run = await asked(agent, way)
        rows = await judged(server, agent, way, run)
    assert [Decimal(row.cost_nusd) / 10**9 for row in rows] == [cost_of(used)] * 2
    assert run.total_tokens == 2 * (10_007 + 703)


@pytest.mark.parametrize("way", ALL)
@pytest.mark.parametrize(
    "told",
    [
        {"cached_tokens": 50_000},
        {"total_tokens": 5},
        {"total_tokens": 20_000},
        {"prompt_tokens": -5, "input_tokens": -5},
        {"prompt_tokens_details": None, "input_tokens_details": None},
    ],
    ids=str,
)
async def test_usage_that_cannot_be_never_makes_a_call_cheaper(server: OpenAIServer, way: str, told: dict[str, Any]) -> None:
    """More cached tokens than input came to less money than the input."""
    if "cached_tokens" in told:
        told = {"prompt_tokens_details": told, "input_tokens_details": told}
    server.script([Answer("Fine.", tokens=Tokens(10_000, 50), usage_extra=told)])
    async with agent_at(server, way, None) as agent:
        run = await asked(agent, way)
    assert run.status == "complete"
    assert Decimal(str(run.total_cost_usd)) >= server.bill_usd > 0


@pytest.mark.parametrize("way", ALL)
async def test_a_reply_without_usage_is_estimated_and_never_free(server: OpenAIServer, way: str) -> None:
    server.script([Answer("Fine, thank you.", usage_told=False)])
    async with agent_at(server, way, None) as agent:
        run = await asked(agent, way)
        [row] = await books(agent)
    assert run.status == "complete"
    assert json.loads(row.usage)["estimated"] is True
    assert Decimal(row.cost_nusd) / 10**9 >= server.bill_usd > 0


THOUGHT = Tokens(20, 60, reasoning=50)
ONLY_THOUGHT = {
    "empty": Answer("", tokens=THOUGHT),
    "cut at the cap": Answer("", tokens=Tokens(20, 4_096, reasoning=4_096), finish_reason="length"),
}


@pytest.mark.parametrize("way", ["responses", "responses streamed"])
@pytest.mark.parametrize("entry", ONLY_THOUGHT.values(), ids=ONLY_THOUGHT)
async def test_a_model_that_thought_and_said_nothing_is_asked_again(server: OpenAIServer, entry: Any, way: str) -> None:
    """OpenAI refuses a thought that led to nothing: the turn failed with 400, and so did every later one of that run."""
    server.script([entry, Answer("Fine.", tokens=THOUGHT)])
    async with agent_at(server, way, FakeClock(auto=True)) as agent:
        run = await asked(agent, way)
        assert (run.status, run.output, len(server.requests)) == ("complete", "Fine.", 2)
        await judged(server, agent, way, run)


async def test_a_model_that_was_handed_in_is_asked_for_usage_when_it_streams(server: OpenAIServer) -> None:
    """At any address but OpenAI's a ChatOpenAI leaves usage out of its streams, and the bill was a guess from the text."""
    key: Any = "k"
    server.script([Answer("Fine.", tokens=Tokens(60_000, 3_000))])
    model = ChatOpenAI(model="m", base_url=server.base_url, api_key=key)
    async with create_production_agent(model, prices=PRICES, max_cost_usd=0.5) as agent:
        run = await asked(agent, "chat streamed")
    assert Decimal(str(run.total_cost_usd)) == server.bill_usd == cost_of(Tokens(60_000, 3_000))
    assert model.stream_usage is None, "the object that was handed in is not changed"


@pytest.mark.parametrize("way", TWO)
async def test_fallbacks_are_asked_in_order_and_priced_as_themselves(server: OpenAIServer, way: str) -> None:
    server.script(lambda body: refuse(503, "down") if body["model"] == "m" else "Fine.")
    async with agent_at(server, way, FakeClock(auto=True), fallbacks=[model_at(server, way, "spare")]) as agent:
        run = await asked(agent, way)
        assert (run.status, run.output) == ("complete", "Fine.")
        assert [request.body["model"] for request in server.requests] == ["m", "m", "m", "spare"]
        assert any("falling back" in warning for warning in run.warnings)
        await judged(server, agent, way, run)


def shown(events: Sequence[Any]) -> str:
    """Return the text that stands on a screen that follows `events`."""
    text = ""
    for event in events:
        if isinstance(event, TextDelta):
            text = "" if event.restarts else text + event.text
    return text


@pytest.mark.parametrize("rails", [(), (harmless,)], ids=["text as it comes", "text held for a rail"])
@pytest.mark.parametrize("way", ["chat streamed", "responses streamed"])
async def test_text_of_an_attempt_that_failed_is_taken_back(server: OpenAIServer, way: str, rails: Sequence[Any]) -> None:
    """A user saw "One two one two three": what the first attempt had said before it broke off, and then all of the second."""
    server.script([broken("disconnect", "One two three four.", after=6), "One two three four."])
    async with agent_at(server, way, FakeClock(auto=True), guardrails=rails) as agent:
        events = [event async for event in agent.stream("Count.", "r")]
    assert len(server.requests) == 2
    assert shown(events) == "One two three four."
    assert sum(event.restarts for event in events if isinstance(event, TextDelta)) == (0 if rails else 1)


async def test_a_model_that_was_handed_in_is_not_changed(server: OpenAIServer) -> None:
    model = model_at(server, "chat")
    before = (model.max_retries, model.root_async_client, model.root_async_client.max_retries)
    server.script([refuse(503), "Fine."])
    async with create_production_agent(model, prices=PRICES, clock=FakeClock(auto=True)) as agent:
        assert (await agent.run("Hi")).status == "complete"
    assert (model.max_retries, model.root_async_client, model.root_async_client.max_retries) == before
    assert len(server.requests) == 2


async def test_many_runs_do_not_multiply_the_load_on_a_server_that_is_down(lone_server: OpenAIServer) -> None:
    """60 requests without a retry budget and a circuit breaker; and as soon as the server is back, so are the runs."""
    lone_server.script(lambda body: refuse(503))
    async with agent_at(lone_server, "chat", FakeClock(auto=True)) as agent:
        runs = await asyncio.gather(*(agent.run("Hi", f"r{number}") for number in range(20)))
        assert {run.status for run in runs} == {"failed"}
        assert 20 <= len(lone_server.requests) <= 35
        lone_server.script(["Fine."], last_forever=True)
        assert (await agent.run("Hi", "alone")).status == "complete"
        runs = await asyncio.gather(*(agent.run("Hi", f"r{number}") for number in range(20)))
        assert {run.status for run in runs} == {"complete"}


async def test_one_run_alone_asks_whether_the_server_is_back(lone_server: OpenAIServer) -> None:
    """With a shared budget nineteen of twenty did: each had looked at the breaker, and then waited for its reservation."""
    lone_server.script(lambda body: refuse(503))
    clock = FakeClock(auto=True)
    shared = {"budget": Budget("team", per="total", max_cost_usd=5), "retry_attempts": 1}
    async with agent_at(lone_server, "chat", clock, **shared) as agent:
        await asyncio.gather(*(agent.run("Hi", f"a{number}") for number in range(20)))
        clock.advance(30)
        asked = len(lone_server.requests)
        await asyncio.gather(*(agent.run("Hi", f"b{number}") for number in range(20)))
        assert len(lone_server.requests) == asked + 1


async def test_whoever_asks_whether_the_server_is_back_and_is_told_to_wait_comes_back(lone_server: OpenAIServer) -> None:
    """The run that had asked for all the others ended: its own next attempt was kept out, as if the server had not answered."""
    lone_server.script(lambda body: refuse(503))
    clock = FakeClock(auto=True)
    async with agent_at(lone_server, "chat", clock, retry_attempts=1) as agent:
        await asyncio.gather(*(agent.run("Hi", f"a{number}") for number in range(20)))
    clock.advance(30)
    first = iter([later(retry_after="1")])
    lone_server.script(lambda body: next(first, "Fine."))
    async with agent_at(lone_server, "chat", clock) as agent:
        circuit = circuit_of(agent.governor.model.breaker_key)
        circuit.count(+1)  # somebody else asks this server too, so that the breaker counts
        run = await agent.run("Hi", "b")
        circuit.count(-1)
    assert (run.status, run.error) == ("complete", None)


async def test_a_rate_limit_that_says_when_to_come_back_ends_no_run(lone_server: OpenAIServer) -> None:
    """Of thirty runs at a limit, nine were told that the model had failed for every run: the breaker had opened for a 429."""
    told: set[str] = set()

    def limited(body: dict[str, Any]) -> Any:
        who = body["messages"][-1]["content"]
        if who in told:
            return "Fine."
        told.add(who)
        return later(retry_after="1")

    lone_server.script(limited)
    async with agent_at(lone_server, "chat", FakeClock(auto=True)) as agent:
        runs = await asyncio.gather(*(agent.run(f"{number}", f"r{number}") for number in range(30)))
    assert [run.error for run in runs if run.status != "complete"] == []
    assert len(lone_server.requests) == 60


async def test_one_key_that_is_refused_does_not_keep_another_from_its_calls(lone_server: OpenAIServer) -> None:
    """Limits are per key: a tenant at its rate limit opened the circuit for all tenants of the process."""
    lone_server.script(lambda body: later() if body["messages"][-1]["content"] == "poor" else "Fine.")
    key: Any = "another"
    rich = ChatOpenAI(model="m", base_url=lone_server.base_url, api_key=key)
    async with (
        agent_at(lone_server, "chat", FakeClock(auto=True)) as agent,
        create_production_agent(rich, prices=PRICES, clock=FakeClock(auto=True)) as other,
    ):
        refused = await asyncio.gather(*(agent.run("poor", f"p{number}") for number in range(8)))
        served = await asyncio.gather(*(other.run("rich", f"r{number}") for number in range(8)))
    assert {run.status for run in refused} == {"failed"}
    assert {run.status for run in served} == {"complete"}


@pytest.mark.parametrize(("status", "uncertain"), [(503, False), (429, False), (504, True), (408, True), (524, True)])
async def test_a_timeout_on_the_way_may_have_been_billed(server: OpenAIServer, status: int, uncertain: bool) -> None:
    server.script([refuse(status)] * 3)
    async with agent_at(server, "chat", FakeClock(auto=True)) as agent:
        run = await asked(agent, "chat")
    assert run.status == "failed"
    assert (run.cost_uncertain_usd > 0) == uncertain


async def test_concurrent_runs_cost_together_what_the_server_billed(lone_server: OpenAIServer) -> None:
    """Tool loops with faults in between, on one agent; the sum is exact to the nano-dollar."""
    numbers = itertools.count()

    def reply(body: dict[str, Any]) -> Any:
        number = next(numbers)
        if number % 5 == 4:
            return refuse(503, headers={"Retry-After": "1"})
        used = Tokens(1_000 + number, 50 + number, cache_read=number, reasoning=number % 40)
        told = any(message["role"] == "tool" for message in body["messages"])
        return Answer("Fine.", tokens=used) if told else Answer(tool_calls=PARIS.metadata["tool_calls"], tokens=used)

    lone_server.script(reply)
    async with agent_at(lone_server, "chat", FakeClock(auto=True), retry_attempts=9) as agent:
        runs = await asyncio.gather(*(agent.run("Hi", f"r{number}") for number in range(25)))
    assert sum(run.status == "complete" for run in runs) >= 20, [run.error for run in runs]
    assert sum(round(run.total_cost_usd * 10**9) for run in runs) == lone_server.bill_usd * 10**9
