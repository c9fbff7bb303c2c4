"""The promise: whatever goes from one side to the other comes back as it was, also through JSON and another process."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.content import ContentBlock

from agent_graph.messages import Conversion
from agent_graph.messages.fields import text_of
from agent_graph.messages.spec import _foreseen, _read_back, _role_of, _written, to_spec
from agent_graph.testing.strategies import conversations, json_values, messages, texts, usages
from agent_graph.types import Message, MessageRole

objects = st.dictionaries(texts(max_size=8), json_values(max_leaves=4), max_size=3)
ids = st.none() | st.text("abc123_-", min_size=1, max_size=12).map(lambda text: f"msg_{text}")
names = st.none() | texts(max_size=8)
call_ids = st.text("abc123_", min_size=1, max_size=8)

STANDARD_BLOCKS: tuple[dict[str, Any], ...] = (
    {"type": "text", "text": "hi", "annotations": [{"type": "citation", "url": "https://example.org", "cited_text": "hi"}], "index": 0},
    {"type": "reasoning", "reasoning": "so ...", "extras": {"signature": "c2ln"}},
    {"type": "tool_call", "id": "c1", "name": "search", "args": {"q": "x"}},
    {"type": "tool_call_chunk", "id": "c1", "name": "search", "args": '{"q"', "index": 0},
    {"type": "invalid_tool_call", "id": "c1", "name": "search", "args": "{", "error": "cut"},
    {"type": "server_tool_call", "id": "s1", "name": "web_search", "args": {"q": "x"}},
    {"type": "server_tool_call_chunk", "id": "s1", "name": "web_search", "args": "{", "index": 1},
    {"type": "server_tool_result", "id": "s2", "tool_call_id": "s1", "status": "success", "output": [{"title": "x"}]},
    {"type": "image", "base64": "iVBOR", "mime_type": "image/png", "id": "i1"},
    {"type": "image", "url": "https://example.org/a.png"},
    {"type": "audio", "base64": "UklGR", "mime_type": "audio/wav"},
    {"type": "video", "file_id": "file-1", "mime_type": "video/mp4"},
    {"type": "file", "url": "https://example.org/a.pdf", "mime_type": "application/pdf"},
    {"type": "text-plain", "text": "a document", "mime_type": "text/plain", "title": "T"},
    {"type": "non_standard", "value": {"type": "thinking", "thinking": "hm"}},
)
"""One at least of every type of block that LangChain knows (see `test_every_type_of_block_is_among_them`)."""

blocks = st.one_of(
    st.sampled_from(STANDARD_BLOCKS),
    texts(max_size=20),
    st.builds(lambda text: {"type": "text", "text": text}, texts(max_size=20)),
    st.builds(lambda text: {"type": "text", "text": text, "annotations": [{"type": "citation"}]}, texts(max_size=20)),
    st.just({"type": "thinking", "thinking": "so ...", "signature": "c2ln"}),
    st.just({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}),
    st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}),
    st.just({"type": "tool_use", "id": "c1", "name": "search", "input": {}}),
    objects,
)
contents = texts() | st.lists(blocks, max_size=4)
common = {"content": contents, "id": ids, "name": names, "additional_kwargs": objects}
calls = st.fixed_dictionaries({"name": texts(max_size=8), "args": objects, "id": st.none() | call_ids})
bad_calls = st.fixed_dictionaries(
    {"name": st.none() | texts(max_size=8), "args": st.none() | texts(), "id": st.none() | call_ids, "error": st.none() | texts()}
)
provenance = st.fixed_dictionaries(
    {},
    optional={
        "model_name": texts(max_size=10) | st.just("gpt-5-mini"),
        "finish_reason": st.sampled_from(["stop", "tool_calls", "max_tokens", "length"]) | st.none(),
        "cost_usd": st.sampled_from(["0.0125", "1", "nonsense"]),
        "token_usage": objects,
        "status": st.just("incomplete"),
        "incomplete_details": st.just({"reason": "max_output_tokens"}),
    },
)
ai_messages = st.builds(
    AIMessage,
    **common,
    tool_calls=st.lists(calls, max_size=3),
    invalid_tool_calls=st.lists(bad_calls, max_size=2),
    usage_metadata=st.none() | usages(),
    response_metadata=provenance | objects,
)
tool_messages = st.builds(
    ToolMessage,
    **common,
    tool_call_id=texts(max_size=8),
    status=st.sampled_from(["success", "error"]),
    artifact=json_values(),
)
langchain_messages = st.one_of(
    st.builds(SystemMessage, **common),
    st.builds(HumanMessage, **common, response_metadata=objects),
    ai_messages,
    tool_messages,
    st.builds(ChatMessage, **common, role=st.sampled_from(["user", "assistant", "critic", "system"])),
    st.builds(FunctionMessage, **{**common, "name": texts(max_size=8)}),
    st.builds(HumanMessage, content=texts(), unknown_field=json_values()),
)

USUAL_REPLY = AIMessage(
    "",
    id="lc_run--1",
    tool_calls=[{"id": "c1", "name": "work", "args": {"n": 1}}],
    usage_metadata={"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
    response_metadata={"model_name": "gpt-5-mini", "finish_reason": "tool_calls"},
)

layouts = st.fixed_dictionaries(
    {},
    optional={
        "tool_calls": st.lists(calls | objects, max_size=2) | json_values(),
        "tool_call": objects,
        "tool_call_id": json_values(),
        "name": json_values(),
        "usage": usages() | json_values(),
        "model": json_values(),
        "cost_usd": json_values(),
        "langchain": objects
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["system", "ai", "chat", "RemoveMessage"]) | json_values(),
                "id": json_values(),
                "content": contents | json_values(),
                "content_blocks": json_values(),
                "tool_calls": json_values(),
                "response_metadata": json_values(),
                "self": json_values(),
            },
        ),
    },
)
spec_messages = st.builds(Message, st.sampled_from(MessageRole), texts(), layouts | objects) | messages()


def through_json(message: Message) -> Message:
    return Message(message.role, message.content, json.loads(json.dumps(message.metadata, allow_nan=False)))


def _kinds(union: Any) -> Iterator[str]:
    for member in get_args(union):
        if isinstance(member, type):
            yield from get_args(get_type_hints(member)["type"])
        else:
            yield from _kinds(member)


def test_every_type_of_block_is_among_them() -> None:
    """A type that a later LangChain adds fails here until the property below has it."""
    assert {block["type"] for block in STANDARD_BLOCKS} == set(_kinds(ContentBlock))


@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, SystemMessage])
def test_all_of_them_in_one_message(kind: type[BaseMessage]) -> None:
    message = kind(content=[*STANDARD_BLOCKS])
    [spec] = Conversion().to_spec([message])
    [back] = Conversion().to_langchain([Message(spec.role, spec.content, json.loads(json.dumps(spec.metadata)))])
    assert back == message


@given(langchain_messages)
def test_a_langchain_message_comes_back_in_another_process(message: BaseMessage) -> None:
    stored = [through_json(spec) for spec in Conversion().to_spec([message])]

    assert Conversion().to_langchain(stored) == [message]


@given(langchain_messages)
def test_what_is_foreseen_of_a_message_is_what_reading_it_gives(message: BaseMessage) -> None:
    spec = Message(_role_of(message), text_of(message.content), _written(message))

    assert _foreseen(message, spec) in (None, _read_back(spec))


@pytest.mark.parametrize(
    "message", [HumanMessage("Hi"), SystemMessage("Hi"), ToolMessage("1", tool_call_id="c1"), USUAL_REPLY], ids=lambda m: m.type
)
def test_the_usual_messages_are_foreseen(message: BaseMessage) -> None:
    assert _foreseen(message, to_spec(message)) is not None


@given(spec_messages)
def test_a_message_comes_back_whatever_its_metadata(message: Message) -> None:
    langchain = Conversion().to_langchain([message])

    assert Conversion().to_spec(langchain) == [message]


@given(spec_messages)
def test_a_role_is_never_changed_by_metadata(message: Message) -> None:
    [langchain] = Conversion().to_langchain([message])

    expected = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage, "tool": ToolMessage}
    assert isinstance(langchain, expected[message.role.value] | ChatMessage | FunctionMessage)


@given(conversations())
def test_a_conversation_comes_back_and_is_plain_on_the_way(conversation: list[Message]) -> None:
    langchain = Conversion().to_langchain(conversation)

    assert Conversion().to_spec(langchain) == conversation
    assert [message.text for message in langchain] == [message.content for message in conversation]


@given(st.lists(langchain_messages, max_size=4, unique_by=lambda message: message.id or id(message)))
def test_the_second_conversion_gives_the_same_objects(given_messages: list[BaseMessage]) -> None:
    conversion = Conversion()
    specs = conversion.to_spec(given_messages)

    assert all(again is spec for again, spec in zip(conversion.to_spec(given_messages), specs, strict=True))
    assert all(back is was for back, was in zip(conversion.to_langchain(specs), given_messages, strict=True))


@given(st.lists(spec_messages, max_size=4))
def test_the_same_holds_from_the_other_side(given_messages: list[Message]) -> None:
    conversion = Conversion()
    langchain: list[Any] = conversion.to_langchain(given_messages)

    assert all(back is was for back, was in zip(conversion.to_spec(langchain), given_messages, strict=True))
    assert all(again is was for again, was in zip(conversion.to_langchain(given_messages), langchain, strict=True))
