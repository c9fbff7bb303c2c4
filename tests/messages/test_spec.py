"""What is written: our documented layout, and beside it only what does not fit."""

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from agent_graph.errors import ContractError
from agent_graph.messages import Conversion
from agent_graph.messages.spec import to_spec
from agent_graph.types import Message, MessageRole

SYSTEM, USER, ASSISTANT, TOOL = MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL
USAGE = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "input_token_details": {"cache_read": 5}}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

CASES: list[tuple[str, BaseMessage, Message]] = [
    ("system", SystemMessage("Be brief."), Message(SYSTEM, "Be brief.")),
    ("user", HumanMessage("Hi"), Message(USER, "Hi")),
    ("made-up id", HumanMessage("Hi", id="lc_run--0"), Message(USER, "Hi")),
    ("provider's id", HumanMessage("Hi", id="msg_1"), Message(USER, "Hi", {"langchain": {"id": "msg_1"}})),
    (
        "image",
        HumanMessage(["What is this? ", IMAGE]),
        Message(USER, "What is this? ", {"langchain": {"content": ["What is this? ", IMAGE]}}),
    ),
    (
        "calls",
        AIMessage("", tool_calls=[{"id": "c1", "name": "weather", "args": {"city": "Paris"}}]),
        Message(ASSISTANT, "", {"tool_calls": [{"id": "c1", "name": "weather", "args": {"city": "Paris"}}]}),
    ),
    (
        "usage and provenance",
        AIMessage("Yes", usage_metadata=USAGE, response_metadata={"model_name": "m", "finish_reason": "stop", "cost_usd": "0.02"}),
        Message(ASSISTANT, "Yes", {"usage": USAGE, "model": "m", "finish_reason": "stop", "cost_usd": "0.02"}),
    ),
    (
        "thinking",
        AIMessage([THINKING, {"type": "text", "text": "Yes"}]),
        Message(ASSISTANT, "Yes", {"langchain": {"content": [THINKING, {"type": "text", "text": "Yes"}]}}),
    ),
    ("tool", ToolMessage("12", tool_call_id="c1", name="weather"), Message(TOOL, "12", {"tool_call_id": "c1", "name": "weather"})),
    (
        "failed tool with an artifact",
        ToolMessage("no", tool_call_id="c1", status="error", artifact={"code": 3}),
        Message(TOOL, "no", {"tool_call_id": "c1", "langchain": {"artifact": {"code": 3}, "status": "error"}}),
    ),
    ("artifact without a JSON form", ToolMessage("ok", tool_call_id="c1", artifact=object()), Message(TOOL, "ok", {"tool_call_id": "c1"})),
    ("chat", ChatMessage("No!", role="critic"), Message(USER, "No!", {"langchain": {"type": "chat", "role": "critic"}})),
    ("a message made of chunks", AIMessageChunk("Hel") + AIMessageChunk("lo"), Message(ASSISTANT, "Hello")),
]


@pytest.mark.parametrize(("given", "written"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_written(given: BaseMessage, written: Message) -> None:
    assert to_spec(given) == written


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"stop_reason": "max_tokens"}, "max_tokens"),
        ({"finish_reason": "tool_calls", "stop_reason": "x"}, "tool_calls"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": "completed", "incomplete_details": None}, None),
        ({"finish_reason": None}, None),
    ],
    ids=["anthropic", "openai", "responses, cut", "responses, whole", "none"],
)
def test_why_a_reply_ended_is_told_whatever_the_provider(about: dict[str, Any], reason: str | None) -> None:
    assert to_spec(AIMessage("", response_metadata=about)).metadata.get("finish_reason") == reason


def test_a_malformed_call_is_among_the_calls_with_its_text() -> None:
    """A model that calls a tool with broken JSON must be told so: a reader of metadata has to see the call."""
    bad = {"id": "c2", "name": "weather", "args": '{"city": ', "error": None}
    message = AIMessage("", tool_calls=[{"id": "c1", "name": "weather", "args": {}}], invalid_tool_calls=[bad])

    calls = to_spec(message).metadata["tool_calls"]

    assert calls == [{"id": "c1", "name": "weather", "args": {}}, {"id": "c2", "name": "weather", "args": '{"city": '}]


def test_what_has_no_json_form_is_made_storable() -> None:
    """Providers put objects into response_metadata; a memory that writes JSON must not fail on them."""
    [written] = Conversion().to_spec([AIMessage("", response_metadata={"limit": float("inf"), "ids": {3, 1}})])

    assert written.metadata == {"langchain": {"response_metadata": {"limit": "Infinity", "ids": [1, 3]}}}


def test_an_instruction_is_no_message() -> None:
    with pytest.raises(ContractError, match="RemoveMessage is no message of a conversation"):
        to_spec(RemoveMessage(id="m1"))
