"""What is read: every layout that users' backends and memories write."""

from typing import Any

import pytest
from hypothesis import given
from langchain_core.messages import AIMessage, ToolMessage

from agent_graph.decisions.replies import read_usage
from agent_graph.errors import ContractError
from agent_graph.messages import Conversion
from agent_graph.messages.fields import build, with_text
from agent_graph.testing.strategies import usages
from agent_graph.types import Message, MessageRole

CALL = {"type": "tool_call", "id": "c1", "name": "weather", "args": {"city": "Paris"}}


def assistant(content: str = "", **metadata: Any) -> Message:
    return Message(MessageRole.ASSISTANT, content, metadata)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "c1", "name": "weather", "args": {"city": "Paris"}},
        {"call_id": "c1", "tool_name": "weather", "args": '{"city": "Paris"}'},
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
    ],
    ids=["ours", "the specification's names", "openai's"],
)
def test_a_call_is_read_from_every_layout(entry: dict[str, Any]) -> None:
    message = build(assistant(tool_calls=[entry]), ())

    assert isinstance(message, AIMessage)
    assert message.tool_calls == [CALL]


@pytest.mark.parametrize(
    ("metadata", "call_id", "name"),
    [
        ({"tool_call_id": "c1", "name": "weather"}, "c1", "weather"),
        ({"call_id": "c1", "tool_name": "weather"}, "c1", "weather"),
        ({"id": "c1"}, "c1", None),
        ({}, "", None),
    ],
    ids=["ours", "the specification's names", "id only", "nothing"],
)
def test_a_tool_message_is_read_from_every_layout(metadata: dict[str, Any], call_id: str, name: str | None) -> None:
    message = build(Message(MessageRole.TOOL, "12", metadata), ())

    assert isinstance(message, ToolMessage)
    assert (message.tool_call_id, message.name) == (call_id, name)


def test_calls_without_ids_take_those_under_which_they_were_answered() -> None:
    """A remembered call of a backend without ids was answered under an id that we made: the pair must be found again."""
    history = [
        assistant(tool_calls=[{"name": "weather", "args": {}}, {"name": "news", "args": {}}]),
        Message(MessageRole.TOOL, "12", {"tool_call_id": "call_3_0", "name": "weather"}),
        Message(MessageRole.TOOL, "none", {"tool_call_id": "call_3_1", "name": "news"}),
    ]

    reply = Conversion().to_langchain(history)[0]

    assert isinstance(reply, AIMessage)
    assert [call["id"] for call in reply.tool_calls] == ["call_3_0", "call_3_1"]
    assert Conversion().to_spec([reply]) == history[:1]


@pytest.mark.parametrize(("answered", "calls"), [(True, 1), (False, 0)], ids=["answered", "never answered"])
def test_a_call_in_the_text_of_the_past_counts_only_if_it_was_answered(answered: bool, calls: int) -> None:
    history = [assistant('{"tool": "weather", "args": {"city": "Paris"}}')]
    if answered:
        history.append(Message(MessageRole.TOOL, "12", {"tool_call_id": "c1", "name": "weather"}))

    reply = Conversion().to_langchain(history)[0]

    assert isinstance(reply, AIMessage)
    assert reply.tool_calls == [CALL][:calls]


@given(usages())
def test_usage_says_the_same_on_both_sides(usage: dict[str, Any]) -> None:
    openai = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
    details = usage["input_token_details"]
    openai["prompt_tokens_details"] = {"cached_tokens": details["cache_read"]}
    anthropic = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": details["cache_read"]}
    anthropic["cache_creation"] = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": details["cache_creation"]}

    for layout in (usage, openai, anthropic):
        message = build(assistant(usage=layout), ())
        assert isinstance(message, AIMessage)
        assert read_usage(message.usage_metadata) == read_usage(layout)


def test_no_usage_is_unknown() -> None:
    message = build(assistant("Yes"), ())

    assert isinstance(message, AIMessage)
    assert message.usage_metadata is None


def test_a_malformed_call_has_arguments_that_no_reader_repairs() -> None:
    """LangChain reads streamed arguments leniently, and would make a call with half of them of a cut one."""
    message = build(assistant(tool_calls=[{"id": "c1", "name": "pay", "args": '{"amount": 1'}]), ())

    assert isinstance(message, AIMessage)
    assert message.tool_calls == []
    assert message.invalid_tool_calls[0]["args"].startswith('"The arguments are not valid JSON')


@pytest.mark.parametrize(
    ("blocks", "text", "shown"),
    [
        ("gone", "new", "new"),
        ([{"type": "text", "text": "same"}], "same", [{"type": "text", "text": "same"}]),
        (
            [{"type": "thinking"}, {"type": "text", "text": "old"}, {"type": "image"}, "more"],
            "new",
            [{"type": "thinking"}, {"type": "text", "text": "new"}, {"type": "image"}],
        ),
        ([{"type": "image"}], "new", [{"type": "image"}, {"type": "text", "text": "new"}]),
    ],
    ids=["text", "unchanged", "changed", "no text before"],
)
def test_a_changed_text_takes_the_place_of_the_blocks_text(blocks: Any, text: str, shown: Any) -> None:
    """Whoever shortens `content` means the message: the old blocks must not go to the model in its place."""
    assert with_text(blocks, text) == shown


@pytest.mark.parametrize("kind", ["function_call", "tool_use", "tool_call"])
def test_a_text_that_is_added_stands_before_the_calls(kind: str) -> None:
    """A rail that put a text into a reply of nothing but calls put it between a call and its result, which a provider may refuse."""
    thought, call = {"type": "reasoning", "id": "rs"}, {"type": kind, "id": "c1"}
    assert with_text([thought, call, call], "Said.") == [thought, {"type": "text", "text": "Said."}, call, call]


@pytest.mark.parametrize(
    ("message", "due"),
    [
        (Message(MessageRole.USER, 3), "content is int; a str was due"),  # type: ignore[arg-type]  # as a backend may write it
        (Message("narrator", "Hi"), "role is 'narrator'; system, user, assistant or tool was due"),  # type: ignore[arg-type]  # as a backend may write it
    ],
    ids=["content", "role"],
)
def test_what_is_no_message_is_named(message: Message, due: str) -> None:
    with pytest.raises(ContractError, match=due):
        Conversion().to_langchain([message])


def test_classes_of_the_starter_code_are_taken_by_shape() -> None:
    class Role:
        value = "user"

    class Pasted:
        role, content, metadata = Role, "Hi", None

    [message] = Conversion().to_langchain([Pasted])  # type: ignore[list-item]  # as a backend may write it

    assert (message.type, message.content) == ("human", "Hi")
