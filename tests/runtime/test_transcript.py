"""Every tool call has an id of its own, wherever the reply says it, and an answer; what is as it should be is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.types import Overwrite

from agent_graph.runtime.transcript import CANCELLED, answerable, repaired, update_of


def call(id_: str | None) -> dict[str, Any]:
    return {"name": "weather", "args": {}, "id": id_, "type": "tool_call"}


def ids(*told: str | None, wrong: tuple[str | None, ...] = ()) -> list[str | None]:
    invalid = [{"name": "weather", "args": "{", "id": id_, "error": None, "type": "invalid_tool_call"} for id_ in wrong]
    reply = answerable(AIMessage("", tool_calls=[call(id_) for id_ in told], invalid_tool_calls=invalid), 3)
    return [one["id"] for one in [*reply.tool_calls, *reply.invalid_tool_calls]]


def test_ids_are_kept_where_they_can_be() -> None:
    assert ids("a", "b", wrong=("c",)) == ["a", "b", "c"]
    assert ids("a", "a", "a_1", "a") == ["a", "a_1", "a_1_2", "a_3"]
    assert ids(None, "a", "", wrong=("a", None)) == ["call_3_0", "a", "call_3_2", "a_3", "call_3_4"]


@pytest.mark.parametrize(("kind", "key"), [("function_call", "call_id"), ("tool_use", "id"), ("tool_call", "id")])
def test_a_block_that_repeats_a_call_gets_its_id(kind: str, key: str) -> None:
    """OpenAI's responses carry each call as a block too; with its old id there, the next request was refused with 400."""
    blocks: list[Any] = [
        "text",
        {"type": "text", "text": "x"},
        {"type": kind, key: "a"},
        {"type": kind, key: "a"},
        {"type": kind, key: "other"},
    ]
    reply = answerable(AIMessage(blocks, tool_calls=[call("a"), call("a")]), 3)
    assert [block[key] for block in reply.content if isinstance(block, dict) and block["type"] == kind] == ["a", "a_1", "other"]
    assert [one["id"] for one in reply.tool_calls] == ["a", "a_1"]


THOUGHT: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ([THOUGHT], ""),
        ([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}], ""),
        ([THOUGHT, {"type": "text", "text": "Fine."}], [THOUGHT, {"type": "text", "text": "Fine."}]),
        ([THOUGHT, {"type": "text", "text": "Fine."}, THOUGHT], [THOUGHT, {"type": "text", "text": "Fine."}]),
        (["Fine."], ["Fine."]),
        ([], []),
        ("Fine.", "Fine."),
    ],
    ids=str,
)
def test_a_thought_that_led_to_nothing_is_not_kept(content: Any, kept: Any) -> None:
    """OpenAI refuses it (`without its required following item`), and Anthropic as the last block of a message."""
    assert answerable(AIMessage(content), 3).content == kept


def test_a_thought_that_led_to_a_call_is_kept() -> None:
    assert answerable(AIMessage([THOUGHT], tool_calls=[call("a")]), 3).content == [THOUGHT]


def test_a_thought_beside_the_content_goes_too() -> None:
    """As LangChain's older layout of OpenAI's responses has it."""
    assert answerable(AIMessage("", additional_kwargs={"reasoning": THOUGHT}), 3).additional_kwargs == {}
    assert answerable(AIMessage("Fine.", additional_kwargs={"reasoning": THOUGHT}), 3).additional_kwargs == {"reasoning": THOUGHT}


QUESTION, ASKS = HumanMessage("q"), AIMessage("", tool_calls=[call("a"), call("b")])
A, B = ToolMessage("1", tool_call_id="a"), ToolMessage("2", tool_call_id="b")


def test_a_list_that_is_as_it_should_be_is_returned_itself() -> None:
    """A state that is written anew at each step would cost the whole conversation each time."""
    messages = [QUESTION, ASKS, A, B]
    assert repaired(messages) is messages


def test_each_open_call_is_answered_and_an_answer_to_nobody_goes() -> None:
    known = repaired([QUESTION, ASKS, A], {"b": "unknown", "c": "never asked"})
    assert [message.text for message in known] == ["q", "", "1", "unknown"]
    assert repaired([QUESTION, ASKS, B])[-1].text == CANCELLED
    assert list(repaired([A, QUESTION])) == [QUESTION]


@pytest.mark.parametrize(
    ("messages", "written"),
    [([QUESTION, ASKS, A], [A]), ([QUESTION, ASKS], Overwrite([QUESTION, ASKS])), ([ASKS, QUESTION, A], Overwrite([ASKS, QUESTION, A]))],
)
def test_only_what_comes_after_is_written(messages: list[BaseMessage], written: Any) -> None:
    assert update_of([QUESTION, ASKS], messages) == written
