"""RetryMiddleware in somebody's `create_agent`: which failure is tried again, by whom, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

from agent_graph import ConfigError
from agent_graph.testing import OpenAIServer, ScriptedChatModel, refuse
from agent_graph_adapters.langchain import BudgetMiddleware, RetryMiddleware
from tests.adapters.langchain.middleware.somebodys import PRICES, Metered

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
HELLO: Any = {"messages": [("user", "Hello.")]}


class Refused(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


def answering(*failures: Any) -> Metered:
    return Metered(asks=lambda _: AIMessage("Here."), wants=100, fails=iter(failures))


async def test_what_may_pass_is_tried_again(invoke: Invoke) -> None:
    model = answering(Refused(503), ConnectionError("reset"))
    state = await invoke(create_agent(model, [], middleware=[RetryMiddleware()]), HELLO)
    assert state["messages"][-1].text == "Here."


@pytest.mark.parametrize(("error", "attempts"), [(Refused(400), 1), (Refused(401), 1), (Refused(503), 2), (KeyError("a mistake"), 1)])
async def test_what_cannot_pass_is_raised_as_it_was(error: Exception, attempts: int) -> None:
    tried: list[int] = []

    def fails(_: Any) -> Exception:
        tried.append(1)
        return error

    with pytest.raises(type(error)) as raised:
        await create_agent(ScriptedChatModel([fails], last_forever=True), [], middleware=[RetryMiddleware(retry_attempts=2)]).ainvoke(HELLO)
    assert raised.value is error
    assert len(tried) == attempts


async def test_the_next_model_is_asked_when_one_has_failed_for_good(invoke: Invoke) -> None:
    spare = Metered(asks=lambda _: AIMessage("I am the spare."), model_name="spare")
    retry = RetryMiddleware(retry_attempts=1, fallbacks=[answering(Refused(401)), spare])
    state = await invoke(create_agent(answering(Refused(503)), [], middleware=[retry]), HELLO)
    assert state["messages"][-1].text == "I am the spare."
    assert len(spare.requests) == 1


async def test_each_attempt_is_counted(invoke: Invoke) -> None:
    """Two attempts that may have been billed, one that was: all three stand in the account."""
    model = answering(TimeoutError("no answer"), TimeoutError("no answer"))
    budget = BudgetMiddleware(max_cost_usd=5, prices=PRICES)
    await invoke(create_agent(model, [], middleware=[RetryMiddleware(), budget]), HELLO)
    (hosted,) = budget.turns._live.values()
    spent = hosted.turn.spent
    assert spent.cost_usd == model.billed
    assert spent.uncertain_usd > 2 * Decimal(4_096 * 40).scaleb(-6)
    assert hosted.turn.account.entries == 3


async def test_a_budget_ends_the_attempts(invoke: Invoke) -> None:
    model = answering(*[TimeoutError("no answer")] * 50)
    agent = create_agent(model, [], middleware=[RetryMiddleware(retry_attempts=50), BudgetMiddleware(max_cost_usd=0.5, prices=PRICES)])
    state = await invoke(agent, HELLO)
    assert "max_cost_usd" in state["messages"][-1].text


async def test_the_wrong_order_is_an_error_before_the_first_call(invoke: Invoke) -> None:
    model = answering()
    with pytest.raises(ConfigError, match="Put it before"):
        await invoke(create_agent(model, [], middleware=[BudgetMiddleware(max_cost_usd=1, prices=PRICES), RetryMiddleware()]), HELLO)
    assert not model.requests


@pytest.mark.server
async def test_a_client_makes_no_attempts_of_its_own(invoke: Invoke) -> None:
    """With `max_retries=5` three attempts would be eighteen requests; each is counted, and the server's bill is the account."""
    prices = {"m": {"input": 1, "output": 4}}
    with OpenAIServer([refuse(503), refuse(429), "Here."], prices=prices) as server:
        key: Any = "k"
        model = ChatOpenAI(model="m", base_url=server.base_url, api_key=key, max_retries=5)
        budget = BudgetMiddleware(max_cost_usd=1, prices=prices)
        state = await invoke(create_agent(model, [], middleware=[RetryMiddleware(), budget]), HELLO)
        assert state["messages"][-1].text == "Here."
        assert [request.status for request in server.requests] == [503, 429, 200]
        (hosted,) = budget.turns._live.values()
        assert hosted.turn.spent.cost_usd == server.bill_usd
    model.root_client.close()
    await model.root_async_client.close()


def test_a_setting_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="retry_attempts"):
        RetryMiddleware(retry_attempts=-1)
    with pytest.raises(ConfigError, match="names no known provider"):
        RetryMiddleware(fallbacks=["nobody:gpt"])
    one: Any = ScriptedChatModel(["x"])
    for alone, said in (
        (one, r"not ScriptedChatModel\. Put it into one: fallbacks=\[model\]"),
        ("offline", r"fallbacks=\['offline'\]"),
        (3, "int"),
    ):
        with pytest.raises(ConfigError, match=f"fallbacks: a list of models is due, .*{said}"):
            RetryMiddleware(fallbacks=alone)


async def test_a_rate_limit_that_says_when_to_come_back_ends_no_run() -> None:
    """Of thirty agents at a limit, nine were told that the service had failed for everybody: the breaker had opened for a 429."""
    told: set[str] = set()

    def limited(body: dict[str, Any]) -> Any:
        who = body["messages"][-1]["content"]
        if who in told:
            return "Fine."
        told.add(who)
        return refuse(429, headers={"Retry-After": "0"})

    key: Any = "k"
    with OpenAIServer(limited) as server:
        agent = create_agent(ChatOpenAI(model="m", base_url=server.base_url, api_key=key), [], middleware=[RetryMiddleware()])
        states = await asyncio.gather(*(agent.ainvoke({"messages": [("user", f"{number}")]}) for number in range(30)))
        assert len(server.requests) == 60
    assert {state["messages"][-1].text for state in states} == {"Fine."}
