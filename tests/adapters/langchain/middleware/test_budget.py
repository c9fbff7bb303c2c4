"""BudgetMiddleware in somebody's `create_agent`, held against the provider's own bill."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from agent_graph import ConfigError, LimitReached, SqliteStorage, create_production_agent, failpoints
from agent_graph.testing import Answer, OpenAIServer, ScriptedChatModel, Tokens
from agent_graph_adapters.langchain import BudgetMiddleware
from tests.adapters.langchain.middleware.somebodys import PRICES, Died, Metered, calling, calls, numbered

Invoke = Callable[..., Any]
New = Callable[[], SqliteStorage]
HELLO: Any = {"messages": [("user", "Find out about everything.")]}


@tool
def look(at: str = "it") -> str:
    """Look at something."""
    return f"saw {at}, and much more " * 40


def endless(**fields: Any) -> Metered:
    """Return a model that never has enough."""
    return Metered(asks=numbered(("look", {})), **fields)


def last(state: Any) -> str:
    return str(state["messages"][-1].text)


# -- money ------------------------------------------------------------------------------------------------------------------------


async def test_eight_agents_at_once_never_pass_half_a_dollar(invoke: Invoke) -> None:
    """Each of eight would spend the whole budget by itself; together they and their caller do not pass it."""
    budget = BudgetMiddleware(max_cost_usd=0.50, prices=PRICES)
    boss = Metered(asks=lambda _: calls(*[("research", {"topic": str(n)}) for n in range(8)]), wants=500)
    workers = endless(wants=800)
    sub = create_agent(workers, [look], middleware=[budget])
    state = await invoke(create_agent(boss, [calling(sub)], middleware=[budget]), HELLO)

    spent = boss.billed + workers.billed
    assert spent <= Decimal("0.50")
    assert spent > Decimal("0.40"), "it was the budget that ended it"
    assert not last(state).startswith("I have to stop"), "the caller still has an answer: what that takes was kept"


@pytest.mark.slow
async def test_agents_at_any_depth_spend_from_the_first(invoke: Invoke) -> None:
    """Each has a budget of its own, wider than what is left of its caller's."""
    leaf, middle, top = endless(), Metered(asks=numbered(("middle", {"topic": "b"}))), Metered(asks=numbered(("top", {"topic": "a"})))
    lowest = create_agent(leaf, [look], middleware=[BudgetMiddleware(max_cost_usd=9, prices=PRICES)])
    middling = create_agent(middle, [calling(lowest, "middle")], middleware=[BudgetMiddleware(max_cost_usd=9, prices=PRICES)])
    await invoke(create_agent(top, [calling(middling, "top")], middleware=[BudgetMiddleware(max_cost_usd=0.6, prices=PRICES)]), HELLO)
    assert leaf.requests
    assert Decimal("0.4") < leaf.billed + middle.billed + top.billed <= Decimal("0.6")


@pytest.mark.slow
async def test_a_production_agent_in_a_tool_spends_from_its_caller() -> None:
    worker, boss = endless(), Metered(asks=numbered(("research", {"topic": "a"})), wants=100)
    agent = create_production_agent(worker, [look], storage=":memory:", prices=PRICES, max_cost_usd=9, max_steps=None, max_tokens=None)

    @tool
    async def research(topic: str) -> str:
        """Find out."""
        return str((await agent.run(topic)).output)

    budget = BudgetMiddleware(max_cost_usd=0.5, prices=PRICES)
    await create_agent(boss, [research], middleware=[budget]).ainvoke(HELLO)
    assert Decimal("0.3") < worker.billed + boss.billed <= Decimal("0.5")
    await agent.aclose()


async def test_the_last_call_is_made_without_tools(invoke: Invoke) -> None:
    model = endless(wants=1_000)
    state = await invoke(create_agent(model, [look], middleware=[BudgetMiddleware(max_cost_usd=0.5, prices=PRICES)]), HELLO)
    assert model.billed <= Decimal("0.5")
    messages, options = model.requests[-1]
    assert options["tool_choice"] == "none", "the definitions stay: providers refuse a history of calls without them"
    assert "budget of this task is nearly used up" in messages[0].text
    assert last(state) == "That is all I know."


async def test_a_reply_is_made_shorter_rather_than_not_at_all(invoke: Invoke) -> None:
    model = Metered(asks=lambda _: AIMessage("short"), wants=4_000)
    state = await invoke(create_agent(model, [], middleware=[BudgetMiddleware(max_cost_usd=0.05, prices=PRICES)]), HELLO)
    assert 256 <= model.requests[0][1]["max_tokens"] < 1_250
    assert model.billed <= Decimal("0.05")
    assert last(state) == "short"


@pytest.mark.parametrize("behavior", ["end", "error"])
async def test_what_cannot_be_paid_is_not_called(invoke: Invoke, behavior: Any) -> None:
    model = endless()
    agent = create_agent(model, [look], middleware=[BudgetMiddleware(max_cost_usd=0.001, prices=PRICES, exit_behavior=behavior)])
    if behavior == "error":
        with pytest.raises(LimitReached, match=r"max_cost_usd: 0 \+ 0\.\d+ of 0.001") as raised:
            await invoke(agent, HELLO)
        assert raised.value.key == "max_cost_usd"
    else:
        state = await invoke(agent, HELLO)
        assert last(state).startswith("I have to stop here")
        assert state["messages"][-1].response_metadata == {"stop_reason": "max_cost_usd"}
    assert not model.requests


@pytest.mark.slow
async def test_structured_output_that_cannot_be_paid_is_an_error() -> None:
    class Answer(BaseModel):
        text: str

    agent = create_agent(endless(), [look], response_format=Answer, middleware=[BudgetMiddleware(max_steps=0)])
    with pytest.raises(LimitReached, match="max_steps: 0 of 0"):
        await agent.ainvoke(HELLO)


async def test_what_failed_and_may_have_been_billed_stays_counted(invoke: Invoke) -> None:
    class Refused(Exception):
        status_code = 500

    model = Metered(asks=lambda _: AIMessage("well"), fails=iter([TimeoutError("no answer"), Refused("busy"), None]))
    budget = BudgetMiddleware(max_cost_usd=1, prices=PRICES)
    agent = create_agent(model, [], middleware=[budget], checkpointer=SqliteStorage(":memory:").checkpointer)
    with pytest.raises(TimeoutError):
        await invoke(agent, HELLO)
    (hosted,) = budget.turns._live.values()
    uncertain = hosted.turn.spent.uncertain_usd
    assert uncertain > 0
    with pytest.raises(Refused):
        await invoke(agent, None)
    await invoke(agent, None)
    spent = hosted.turn.spent
    assert (spent.uncertain_usd, spent.cost_usd) == (uncertain, model.billed), "a refusal is free, a timeout may not be"


@pytest.mark.slow
async def test_a_price_that_nobody_knows_is_an_error_before_the_first_call() -> None:
    model = ChatOpenAI(model="gpt-nobody-knows", api_key=SecretStr("x"))
    with pytest.raises(ConfigError, match=r'prices=\{"gpt-nobody-knows"'):
        await create_agent(model, [], middleware=[BudgetMiddleware(max_cost_usd=1)]).ainvoke(HELLO)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"max_cost_usd": 1}, 1, id="a limit in USD"),
        pytest.param({"max_cost_usd": 1, "prices": {"scripted": {"input": 0, "output": 0}}}, 0, id="free"),
        pytest.param({"max_cost_usd": 1, "on_unknown_price": "ignore"}, 0, id="ignored"),
        pytest.param({"max_tokens": 9_000}, 0, id="another limit"),
    ],
)
async def test_a_limit_that_cannot_hold_for_want_of_a_price_is_said_once(
    options: dict[str, Any], said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A graph has no account whose warnings anybody reads: at a server of one's own half a dollar was no limit, and nothing said so."""
    model = ScriptedChatModel(["Hello."], last_forever=True, usage=(10, 5))
    agent = create_agent(model, middleware=[BudgetMiddleware(**options)])
    for _ in range(2):
        await agent.ainvoke(HELLO)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == said
    assert all("scripted has no price that is known" in text and "prices={" in text for text in told)


@pytest.mark.server
async def test_a_streamed_reply_is_billed_as_the_provider_bills_it() -> None:
    """Without usage in the stream, each step was taken for a few cents less than nothing, and the limit was passed many times over."""

    def script(body: Any) -> Answer:
        if body.get("tool_choice") == "none":
            return Answer("That is what I know.", tokens=Tokens(100, 50))
        return Answer("", [{"name": "look", "args": {}}], tokens=Tokens(100, 1_000))

    with OpenAIServer(script, prices={"m": {"input": 1, "output": 4}}) as server:
        model = ChatOpenAI(model="m", base_url=server.base_url, api_key=SecretStr("k"))
        budget = BudgetMiddleware(max_cost_usd=0.02, max_steps=20, max_output_tokens=1_000, prices={"m": {"input": 1, "output": 4}})
        async for _ in create_agent(model, [look], middleware=[budget]).astream(HELLO, stream_mode="messages"):
            pass
        assert all(request.body["stream"] for request in server.requests)
        assert Decimal("0.01") < server.bill_usd <= Decimal("0.02")


# -- the other limits ----------------------------------------------------------------------------------------------------------------


async def test_steps_and_tokens_of_a_turn(invoke: Invoke) -> None:
    model = endless(wants=100)
    await invoke(create_agent(model, [look], middleware=[BudgetMiddleware(max_steps=3)]), HELLO)
    assert len(model.requests) == 3
    assert "max_tokens" not in model.requests[0][1], "without a limit on money or tokens no reply is capped"

    model = endless(wants=1_000)
    await invoke(create_agent(model, [look], middleware=[BudgetMiddleware(max_tokens=8_000)]), HELLO)
    assert 4_000 < model.tokens <= 8_000


async def test_a_call_that_takes_too_long_is_cut_short() -> None:
    class Slow(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()

    state = await create_agent(Slow(["late"]), [], middleware=[BudgetMiddleware(timeout_s=0.05)]).ainvoke(HELLO)
    assert "timeout_s" in last(state)


@pytest.mark.parametrize("limit", [{"max_tokens": 8_000}, {"max_cost_usd": 0.04}])
async def test_a_landing_that_does_not_fit_is_shown_less_of_the_tool_results(invoke: Invoke, limit: dict[str, Any]) -> None:
    """One large result, and the agent stopped without an answer."""

    @tool
    def read_all() -> str:
        """Read far more than is left."""
        return "the beginning" + " word" * 15_000 + " the end"

    model = Metered(asks=numbered(("read_all", {})), wants=100)
    state = await invoke(create_agent(model, [read_all], middleware=[BudgetMiddleware(**limit, prices=PRICES)]), HELLO)
    assert len(model.requests) == 2
    assert model.tokens <= limit.get("max_tokens", 100_000)
    assert model.billed <= Decimal(str(limit.get("max_cost_usd", 1)))
    assert not last(state).startswith("I have to stop")
    [shown] = [message.text for message in model.requests[-1][0] if message.type == "tool"]
    assert "characters were cut" in shown
    assert shown.startswith("the beginning word")
    assert shown.endswith("word the end")
    [kept] = [message.text for message in state["messages"] if message.type == "tool"]
    assert kept == "the beginning" + " word" * 15_000 + " the end", "the agent's own messages stay whole"


class SlowDisk(SqliteStorage):
    async def durable(self, key: Any, *, fence: int) -> None:
        await super().durable(key, fence=fence)
        await asyncio.sleep(0.3)


async def test_a_call_whose_barrier_took_its_time_is_not_made_and_costs_nothing(invoke: Invoke, tmp_path: Path) -> None:
    model, storage = endless(wants=100), SlowDisk(tmp_path / "runs.db")
    budget = BudgetMiddleware(timeout_s=0.2, max_cost_usd=1, prices=PRICES, storage=storage)
    agent = create_agent(model, [look], middleware=[budget], checkpointer=storage.checkpointer)
    state = await invoke(agent, HELLO, {"configurable": {"thread_id": "t"}})
    assert "timeout_s" in last(state)
    assert model.requests == []
    await storage.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("SELECT state FROM ag_ledger").fetchall() in ([("failed",)], [])


async def test_each_question_has_the_whole_budget(invoke: Invoke, new_storage: New) -> None:
    model = endless(wants=100)
    agent = create_agent(model, [look], middleware=[BudgetMiddleware(max_steps=2)], checkpointer=new_storage().checkpointer)
    await invoke(agent, HELLO)
    await invoke(agent, HELLO)
    assert len(model.requests) == 4


@pytest.mark.slow
async def test_a_summary_begins_no_new_turn(invoke: Invoke, new_storage: New) -> None:
    """LangChain's SummarizationMiddleware takes the question out of the list, and puts a human message of its own there."""
    model = endless(wants=10)
    summaries: Any = SummarizationMiddleware(
        ScriptedChatModel(["so far"], last_forever=True), trigger=("messages", 5), keep=("messages", 2)
    )
    agent = create_agent(model, [look], middleware=[summaries, BudgetMiddleware(max_steps=6)], checkpointer=new_storage().checkpointer)
    state = await invoke(agent, HELLO)
    assert all(message.text != "Find out about everything." for message in state["messages"])
    assert len(model.requests) == 6


# -- over crashes ----------------------------------------------------------------------------------------------------------------------


async def test_the_account_survives_the_process(invoke: Invoke, new_storage: New) -> None:
    """Five lives of one turn, each ended by a crash in a tool: together they spend what one would have."""
    bills, lives = [], 5

    @tool("look")
    def deadly(at: str = "it") -> str:
        """Look, and die."""
        raise Died

    def agent(tools: Any, storage: SqliteStorage, model: Metered) -> Any:
        budget = BudgetMiddleware(max_cost_usd=0.4, prices=PRICES, storage=storage)
        return create_agent(model, tools, middleware=[budget], checkpointer=storage.checkpointer)

    for life in range(lives):
        model = endless()
        if life == lives - 1:
            state = await invoke(agent([look], new_storage(), model), None)
            assert state["messages"][-1].text
        else:
            with pytest.raises(Died):
                await invoke(agent([deadly], new_storage(), model), HELLO if life == 0 else None)
        bills.append(model.billed)
    assert sum(bills) <= Decimal("0.4")
    assert len(bills) == lives


async def test_a_call_that_was_cut_by_a_crash_stays_counted(invoke: Invoke, new_storage: New) -> None:
    """Each life dies with one call under way, billed or not: none of them gives its reservation back."""

    def dies(name: str) -> None:
        if name == "budget.reserved":
            raise Died

    async def live(given: Any) -> Any:
        storage = new_storage()
        budget = BudgetMiddleware(max_cost_usd=0.4, prices=PRICES, storage=storage)
        return await invoke(create_agent(endless(), [look], middleware=[budget], checkpointer=storage.checkpointer), given)

    failpoints.arm(dies)
    try:
        for life in range(2):
            with pytest.raises(Died):
                await live(HELLO if life == 0 else None)
    finally:
        failpoints.disarm()
    state = await live(None)
    storage = new_storage()
    (run,) = await storage.runs("create_agent")
    rows = await storage.ledger(run.key)
    bounds = [row.bound_nusd for row in rows if row.state == "unsettled"]
    assert len(bounds) == 2
    assert sum(bounds) + sum(row.cost_nusd for row in rows) <= 400_000_000
    assert last(state)


# -- beside others -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_backend_that_tells_its_cost_afterwards_is_counted() -> None:
    from agent_graph import as_chat_model
    from agent_graph.testing import ScriptedLLM, call

    llm = ScriptedLLM([call("look", at="a"), call("look", at="b"), "done"], cost_usd=0.01)
    budget = BudgetMiddleware(max_cost_usd=0.025)
    state = await create_agent(as_chat_model(llm), [look], middleware=[budget]).ainvoke(HELLO)
    (hosted,) = budget.turns._live.values()
    assert hosted.turn.spent.cost_usd <= Decimal("0.025")
    assert state["messages"][-1].text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "no limit is given"),
        ({"max_cost_usd": -1}, "max_cost_usd: -1 is negative"),
        ({"max_steps": "3"}, "max_steps"),
        ({"max_steps": 1, "exit_behavior": "stop"}, "exit_behavior"),
        ({"max_cost_usd": 1, "prices": {"m": 3}}, "prices"),
        ({"max_cost_usd": 1, "storage": 3}, "storage"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(options: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        BudgetMiddleware(**options)
