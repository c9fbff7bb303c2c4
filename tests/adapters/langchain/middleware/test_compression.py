"""CompressionMiddleware in somebody's `create_agent`: what the model is shown, what stays, what the summary costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import ConfigError, SqliteStorage
from agent_graph.decisions.tokens import estimate_messages
from agent_graph.messages import Conversion
from agent_graph_adapters.langchain import BudgetMiddleware, CompressionMiddleware
from tests.adapters.langchain.middleware.somebodys import PRICES, Metered, numbered

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
New = Callable[[], SqliteStorage]
QUESTION = "Find out about everything there is."
HELLO: Any = {"messages": [("user", QUESTION)]}
SUMMARY = "They saw it many times."


@tool
def look() -> str:
    """Look at something."""
    return "saw it, and much more; " * 30


def looking(times: int) -> Metered:
    """Return a model that looks so often, then answers; asked for a summary, it gives one."""
    more, left = numbered(("look", {})), iter(range(times))

    def asks(messages: list[BaseMessage]) -> AIMessage:
        if "You summarise" in messages[0].text:
            return AIMessage(SUMMARY)
        return more(messages) if next(left, None) is not None else AIMessage("That is all.")

    return Metered(asks=asks, wants=20)


def summaries(model: Metered) -> int:
    return sum("You summarise" in messages[0].text for messages, _ in model.requests)


def steps(model: Metered) -> list[list[BaseMessage]]:
    return [messages for messages, _ in model.requests if "You summarise" not in messages[0].text]


async def test_the_model_is_shown_a_list_within_the_threshold(invoke: Invoke, new_storage: New) -> None:
    model = looking(20)
    agent = create_agent(
        model,
        [look],
        system_prompt="Be brief.",
        middleware=[CompressionMiddleware(compression_threshold=1_500)],
        checkpointer=new_storage().checkpointer,
    )
    state = await invoke(agent, HELLO)

    assert state["messages"][-1].text == "That is all."
    assert sum(isinstance(message, ToolMessage) for message in state["messages"]) == 20, "nothing was taken out of the state"
    assert SUMMARY not in "".join(message.text for message in state["messages"])
    for shown in steps(model):
        assert estimate_messages(Conversion().to_spec(shown)) <= 1_500
        assert shown[0].text == "Be brief."
        assert any(message.text == QUESTION for message in shown), "the question stays"
        asked = {call["id"] for message in shown if isinstance(message, AIMessage) for call in message.tool_calls}
        assert {message.tool_call_id for message in shown if isinstance(message, ToolMessage)} == asked, "calls and results stay together"
    assert SUMMARY in "".join(message.text for message in steps(model)[-1])
    assert 0 < summaries(model) < 10, "not at every step"


async def test_a_short_list_is_left_alone(invoke: Invoke) -> None:
    model = looking(2)
    state = await invoke(create_agent(model, [look], middleware=[CompressionMiddleware()]), HELLO)
    assert steps(model)[-1] == state["messages"][:-1]
    assert summaries(model) == 0


async def test_the_next_question_begins_from_the_summary(invoke: Invoke, new_storage: New) -> None:
    def agent(model: Metered) -> Any:
        middleware = [CompressionMiddleware(compression_threshold=1_500)]
        return create_agent(model, [look], middleware=middleware, checkpointer=new_storage().checkpointer)

    await invoke(agent(looking(12)), HELLO)
    later = looking(0)
    await invoke(agent(later), {"messages": [("user", "And now?")]})
    (shown,) = steps(later)
    assert summaries(later) == 0
    assert SUMMARY in "".join(message.text for message in shown)
    assert shown[-1].text == "And now?"


async def test_a_summary_is_in_the_account_and_is_no_step(invoke: Invoke) -> None:
    model = looking(8)
    budget = BudgetMiddleware(max_cost_usd=5, prices=PRICES)
    await invoke(create_agent(model, [look], middleware=[CompressionMiddleware(compression_threshold=1_200), budget]), HELLO)
    (hosted,) = budget.turns._live.values()
    assert summaries(model) > 0
    assert hosted.turn.spent.cost_usd == model.billed
    assert hosted.turn.spent.steps == 9


async def test_a_summary_that_would_leave_too_little_is_made_without_the_model(invoke: Invoke, caplog: pytest.LogCaptureFixture) -> None:
    model = looking(8)
    budget = BudgetMiddleware(max_cost_usd=0.06, prices=PRICES)
    state = await invoke(create_agent(model, [look], middleware=[CompressionMiddleware(compression_threshold=1_200), budget]), HELLO)
    assert "the summary was made without the model" in caplog.text
    assert float(model.billed) <= 0.06
    assert state["messages"][-1].text


async def test_a_window_that_is_smaller_than_thought_is_found_out(invoke: Invoke) -> None:
    class TooLong(Exception):
        code = "context_length_exceeded"

    def asks(messages: list[BaseMessage]) -> AIMessage:
        if estimate_messages(Conversion().to_spec(messages)) > 600:
            raise TooLong
        return AIMessage("Here.")

    long: Any = {
        "messages": [("user", "word " * 100), ("ai", "word " * 300), ("user", "word " * 100), ("ai", "word " * 300), ("user", "So?")]
    }
    state = await invoke(create_agent(Metered(asks=asks), [], middleware=[CompressionMiddleware()]), long)
    assert state["messages"][-1].text == "Here."


def test_a_setting_that_cannot_be_is_refused() -> None:
    for wrong in (0, -1, "1k"):
        with pytest.raises(ConfigError, match="compression_threshold"):
            CompressionMiddleware(compression_threshold=wrong)  # type: ignore[arg-type]  # that is the point
