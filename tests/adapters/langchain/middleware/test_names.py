"""What names a turn and a call in somebody's graph."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agent_graph.config import validate_run_id
from agent_graph_adapters.langchain.middleware.names import asking_of, begun, messages_in
from tests.adapters.langchain.middleware.somebodys import calls

FIRST = HumanMessage("Hello", id="h1")
SUMMARY = HumanMessage("Here is a summary", id="s", additional_kwargs={"lc_source": "summarization"})


def in_thread(name: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}, "metadata": {"lc_agent_name": "clerk"}}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([FIRST], "t/h1"),
        ([FIRST, AIMessage("a"), HumanMessage("more", id="h2"), AIMessage("b")], "t/h2"),
        ([SUMMARY, FIRST, AIMessage("a")], "t/h1"),
        ([FIRST, AIMessage("a"), SUMMARY], "t/h1"),
        ([SystemMessage("system", id="sys")], "t/sys"),
        ([], "t/nobody"),
    ],
    ids=["one question", "the second question", "a summary before it", "a summary after it", "no question", "nothing"],
)
def test_a_turn_is_named_by_the_thread_and_the_message_that_began_it(messages: list[BaseMessage], expected: str) -> None:
    assert begun(messages, in_thread("t")).run_id == expected


def test_what_else_is_known_of_a_turn() -> None:
    turn = begun([FIRST], in_thread("t"))
    assert (turn.thread_id, turn.input, turn.agent) == ("t", "Hello", "clerk")
    assert begun([FIRST], {}).run_id == "h1", "without a checkpointer there is no thread"
    assert begun([SUMMARY], in_thread("t"), known="h1").run_id == "t/h1", "the list need not hold it any more"


def test_a_message_without_an_id_is_named_by_its_text() -> None:
    one, again, other = (begun([HumanMessage(text)], in_thread("t")).run_id for text in ("a", "a", "b"))
    assert one == again != other


@pytest.mark.parametrize("thread", ["x" * 300, "a\nb", "\ud800"])
def test_a_name_that_no_storage_takes_becomes_another(thread: str) -> None:
    name = begun([FIRST], in_thread(thread)).run_id
    assert validate_run_id(name) == name
    assert name == begun([FIRST], in_thread(thread)).run_id


def test_a_call_is_placed_by_its_reply() -> None:
    asks = calls(("look", {}), ("pay", {}), id="r2")
    messages = [FIRST, AIMessage("hm", id="r1"), asks]
    found = asking_of(messages, "pay_1")
    assert (found.reply_id, found.step, found.index) == ("r2", 2, 1)
    assert asking_of(messages, "unknown").reply_id == "call/unknown"
    assert asking_of([FIRST, calls(("pay", {}), id="old"), HumanMessage("again"), calls(("pay", {}), id="new")], "pay_0").reply_id == "new"


@pytest.mark.parametrize("state", [[FIRST], {"messages": [FIRST]}, type("State", (), {"messages": [FIRST]})()])
def test_messages_are_found_in_any_kind_of_state(state: Any) -> None:
    assert list(messages_in(state)) == [FIRST]


def test_a_state_without_messages_has_none() -> None:
    assert list(messages_in({})) == []
    assert list(messages_in({"messages": ["text", ToolMessage("x", tool_call_id="1")]})) == [ToolMessage("x", tool_call_id="1")]
