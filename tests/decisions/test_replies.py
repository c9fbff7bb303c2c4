"""Replies: one row for every layout that docs/backends.md lists, and what is made of what nobody should send."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any, Dict, Optional  # noqa: UP035  (the specification's own spelling)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.replies import UNNAMED, Call, Reply, Usage, read_reply
from agent_graph.errors import ContractError
from agent_graph.types import Message, MessageRole, ToolCall


# The specification's starter code, pasted as its users paste it, spelling and all: not our classes.
class PastedRole(Enum):
    ASSISTANT = "assistant"


@dataclass
class PastedMessage:
    role: PastedRole
    content: str
    metadata: Dict = field(default_factory=dict)  # type: ignore[type-arg]  # noqa: UP006  its own spelling


@dataclass
class PastedToolCall:
    tool_name: str
    args: Dict  # type: ignore[type-arg]  # noqa: UP006  its own spelling
    call_id: str
    result: Optional[Any] = None  # noqa: UP045  its own spelling
    error: Optional[str] = None  # noqa: UP045  its own spelling
    latency_ms: float = 0.0


def read(content: Any = "", /, *, tool_names: set[str] = frozenset({"f", "g"}), json_content: bool = True, **metadata: Any) -> Reply:  # type: ignore[assignment]  # a frozenset is as good here
    message = Message(MessageRole.ASSISTANT, content, metadata)
    return read_reply(message, tool_names=tool_names, step=3, json_content=json_content)


ONE = (Call(id="c1", name="f", args={"a": 1}),)
SDK_CALL = SimpleNamespace(id="c1", type="function", function=SimpleNamespace(name="f", arguments='{"a": 1}'))

CALLS = {
    "the layout we write": {"tool_calls": [{"id": "c1", "name": "f", "args": {"a": 1}}]},
    "tool_call": {"tool_call": {"id": "c1", "name": "f", "args": {"a": 1}}},
    "tool_call with a list": {"tool_call": [{"id": "c1", "name": "f", "args": {"a": 1}}]},
    "tool_calls without a list": {"tool_calls": {"id": "c1", "name": "f", "args": {"a": 1}}},
    "a tuple": {"tool_calls": ({"id": "c1", "name": "f", "args": {"a": 1}},)},
    "our ToolCall": {"tool_calls": [ToolCall("f", {"a": 1}, "c1")]},
    "a pasted ToolCall": {"tool_calls": [PastedToolCall("f", {"a": 1}, "c1")]},
    "one pasted ToolCall": {"tool_call": PastedToolCall("f", {"a": 1}, "c1")},
    "call_id": {"tool_calls": [{"call_id": "c1", "name": "f", "args": {"a": 1}}]},
    "tool_call_id": {"tool_calls": [{"tool_call_id": "c1", "name": "f", "args": {"a": 1}}]},
    "tool_name": {"tool_calls": [{"id": "c1", "tool_name": "f", "args": {"a": 1}}]},
    "function.name, function.arguments (OpenAI)": {
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    },
    "OpenAI's own objects": {"tool_calls": [SDK_CALL]},
    "function as a name": {"tool_calls": [{"id": "c1", "function": "f", "arguments": {"a": 1}}]},
    "arguments (OpenAI Responses)": {"tool_calls": [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}]},
    "both ids of OpenAI Responses": {"tool_calls": [{"id": "c1", "call_id": "c2", "name": "f", "arguments": {"a": 1}}]},
    "input (Anthropic)": {"tool_calls": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
    "args as JSON text": {"tool_calls": [{"id": "c1", "name": "f", "args": ' {"a": 1} '}]},
    "args encoded twice": {"tool_calls": [{"id": "c1", "name": "f", "args": json.dumps('{"a": 1}')}]},
    "args as bytes": {"tool_calls": [{"id": "c1", "name": "f", "args": b'{"a": 1}'}]},
    "the list as JSON text": {"tool_calls": '[{"id": "c1", "name": "f", "args": {"a": 1}}]'},
    "spaces around the name": {"tool_calls": [{"id": "c1", "name": " f\n", "args": {"a": 1}}]},
}


@pytest.mark.parametrize("metadata", CALLS.values(), ids=CALLS.keys())
def test_every_layout_of_a_call_reads_the_same(metadata: dict[str, Any]) -> None:
    assert read(**metadata).calls == ONE


def test_a_call_among_content_blocks() -> None:
    reply = read([{"type": "text", "text": "Let me "}, "see.", {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}])
    assert (reply.text, reply.calls) == ("Let me see.", ONE)


def test_a_pasted_message_is_read_by_its_shape() -> None:
    pasted = PastedMessage(PastedRole.ASSISTANT, "hm", {"tool_calls": [PastedToolCall("f", {"a": 1}, "c1")]})
    reply = read_reply(pasted, tool_names={"f"}, step=1, json_content=True)
    assert (reply.text, reply.calls) == ("hm", ONE)


NO_ARGS = {"missing": {}, "None": {"args": None}, "empty text": {"args": " "}, "empty": {"args": {}}}


@pytest.mark.parametrize("entry", NO_ARGS.values(), ids=NO_ARGS.keys())
def test_a_call_may_have_no_arguments(entry: dict[str, Any]) -> None:
    assert read(tool_calls=[{"id": "c1", "name": "f", **entry}]).calls == (Call(id="c1", name="f", args={}),)


IDS = {
    "none": ([None, None], ["call_3_0", "call_3_1"]),
    "empty": (["", "x"], ["call_3_0", "x"]),
    "given ids are kept": (["x", "y"], ["x", "y"]),
    "a repeated id is rewritten": (["x", "x", "x"], ["x", "call_3_1", "call_3_2"]),
    "a made id avoids a given one": ([None, "call_3_0"], ["call_3_0_", "call_3_0"]),
    "a rewritten id avoids a later one": (["x", "x", "call_3_1"], ["x", "call_3_1_", "call_3_1"]),
    "a number": ([7], ["7"]),
}


@pytest.mark.parametrize(("given", "expected"), IDS.values(), ids=IDS.keys())
def test_ids(given: list[Any], expected: list[str]) -> None:
    entries = [{"name": "f"} if call_id is None else {"id": call_id, "name": "f"} for call_id in given]
    assert [call.id for call in read(tool_calls=entries).calls] == expected


MALFORMED = {
    "broken JSON": ({"name": "f", "args": '{"a": '}, "f", "The arguments are not valid JSON: "),
    "NaN": ({"name": "f", "args": '{"a": NaN}'}, "f", "NaN is no JSON value"),
    "too deep": ({"name": "f", "args": "[" * 100_000}, "f", "it is nested too deep"),
    "an integer without end": ({"name": "f", "args": '{"a": ' + "9" * 5_000 + "}"}, "f", "The arguments are not valid JSON: "),
    "a list": ({"name": "f", "args": [1]}, "f", "The arguments are a list, not an object."),
    "a list as JSON": ({"name": "f", "args": "[1]"}, "f", "The arguments are a list, not an object."),
    "a text": ({"name": "f", "args": '"Paris"'}, "f", "The arguments are not valid JSON: "),
    "a number": ({"name": "f", "args": 5}, "f", "The arguments are int, not an object."),
    "no name": ({"args": {}}, UNNAMED, "This call names no tool."),
    "an empty name": ({"name": " ", "args": {}}, UNNAMED, "This call names no tool."),
    "a name that is no text": ({"name": 5}, UNNAMED, "This call names no tool."),
    "no call at all": (5, UNNAMED, "This call names no tool."),
    "nothing": (None, UNNAMED, "This call names no tool."),
}


@pytest.mark.parametrize(("entry", "name", "says"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_call_carries_its_problem(entry: Any, name: str, says: str) -> None:
    (call,) = read(tool_calls=[entry]).calls
    assert (call.name, call.args, call.id) == (name, None, "call_3_0")
    assert call.problem is not None
    assert says in call.problem
    assert call.problem.endswith("Send the call again with its arguments as one JSON object.")


def test_a_list_of_calls_that_cannot_be_read_is_one_malformed_call() -> None:
    (call,) = read(tool_calls='[{"name": "f"').calls
    assert call.problem is not None


def test_a_malformed_call_does_not_spoil_its_neighbours() -> None:
    calls = read(tool_calls=[{"id": "x", "name": "f", "args": "{"}, {"id": "c1", "name": "f", "args": {"a": 1}}]).calls
    assert calls[0].problem is not None
    assert calls[1:] == ONE


IN_CONTENT = {
    "an object": '{"tool": "f", "args": {"a": 1}}',
    "with space around": '\n {"tool": "f", "args": {"a": 1}} \n',
    "fenced": '```json\n{"tool": "f", "args": {"a": 1}}\n```',
    "fenced without a language": '```\n{"tool": "f", "args": {"a": 1}}```',
    "with a thought": '{"thought": "hm", "tool": "f", "args": {"a": 1}}',
    "arguments": '{"tool": "f", "arguments": {"a": 1}}',
    "input": '{"tool": "f", "input": {"a": 1}}',
    "args as JSON text": '{"tool": "f", "args": "{\\"a\\": 1}"}',
    "name and arguments": '{"name": "f", "arguments": {"a": 1}}',
    "tool_name": '{"tool_name": "f", "args": {"a": 1}}',
    "OpenAI's": '{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}',
}


@pytest.mark.parametrize("content", IN_CONTENT.values(), ids=IN_CONTENT.keys())
def test_a_call_that_is_the_content(content: str) -> None:
    reply = read(content)
    assert reply.calls == (Call(id="call_3_0", name="f", args={"a": 1}),)
    assert reply.text == ""


TEXT = {
    "words before": 'I call: {"tool": "f", "args": {"a": 1}}',
    "words after": '{"tool": "f", "args": {"a": 1}} is what I call',
    "words around a fence": 'So:\n```json\n{"tool": "f", "args": {}}\n```\nthat is it',
    "two fences": '```\n{"tool": "f"}\n```\n```\n{"tool": "f"}\n```',
    "two objects": '{"tool": "f", "args": {}}\n{"tool": "f", "args": {}}',
    "an unknown tool": '{"tool": "h", "args": {}}',
    "an answer in JSON": '{"name": "f", "age": 5}',
    "a list": '[{"tool": "f", "args": {}}]',
    "no tool": '{"args": {}}',
    "a tool that is no text": '{"tool": ["f"], "args": {}}',
    "broken": '{"tool": "f", "args": {}',
    "text": "The weather is fine.",
    "nothing": "",
}


@pytest.mark.parametrize("content", TEXT.values(), ids=TEXT.keys())
def test_text_that_is_no_call(content: str) -> None:
    reply = read(content)
    assert (reply.calls, reply.text) == ((), content)


def test_content_is_no_call_where_that_is_not_wanted() -> None:
    content = '{"tool": "f", "args": {"a": 1}}'
    assert read(content, json_content=False).calls == ()
    with_calls = read(content, tool_calls=[{"id": "c1", "name": "f", "args": {"a": 1}}])
    assert (with_calls.calls, with_calls.text) == (ONE, content)


USAGE = Usage(input_tokens=10, output_tokens=2, total_tokens=12)
USAGES = {
    "the layout we write": ({"usage": {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}}, USAGE),
    "usage_metadata": ({"usage_metadata": {"input_tokens": 10, "output_tokens": 2}}, USAGE),
    "token_usage": ({"token_usage": {"prompt_tokens": 10, "completion_tokens": 2}}, USAGE),
    "prompt_tokens in the metadata itself": ({"prompt_tokens": 10, "completion_tokens": 2}, USAGE),
    "an object": ({"usage": SimpleNamespace(prompt_tokens=10, completion_tokens=2)}, USAGE),
    "a bare total": ({"usage": 12}, Usage(input_tokens=0, output_tokens=12, total_tokens=12)),
    "a bare total in the metadata": ({"total_tokens": 12}, Usage(input_tokens=0, output_tokens=12, total_tokens=12)),
    "tokens": ({"tokens": 12}, Usage(input_tokens=0, output_tokens=12, total_tokens=12)),
    "none": ({}, None),
    "None": ({"usage": None}, None),
    "unreadable": ({"usage": "lots"}, None),
}


@pytest.mark.parametrize(("metadata", "expected"), USAGES.values(), ids=USAGES.keys())
def test_usage_is_found(metadata: dict[str, Any], expected: Usage | None) -> None:
    assert read("hi", **metadata).usage == expected


FIGURES = {
    "cost_usd": ({"cost_usd": 0.002}, "cost_usd", Decimal("0.002")),
    "cost": ({"cost": "0.002"}, "cost_usd", Decimal("0.002")),
    "total_cost": ({"total_cost": Decimal("0.002")}, "cost_usd", Decimal("0.002")),
    "cost inside the usage": ({"usage": {"total_tokens": 5, "cost": 0.002}}, "cost_usd", Decimal("0.002")),
    "a cost of 0 is told": ({"cost_usd": 0}, "cost_usd", Decimal(0)),
    "no cost": ({}, "cost_usd", None),
    "cost nan": ({"cost_usd": float("nan")}, "cost_usd", None),
    "cost below 0": ({"cost_usd": -1}, "cost_usd", None),
    "cost true": ({"cost_usd": True}, "cost_usd", None),
    "cost in words": ({"cost_usd": "cheap"}, "cost_usd", None),
    "an unusable cost gives way": ({"cost_usd": "cheap", "total_cost": 1}, "cost_usd", Decimal(1)),
    "model": ({"model": "m"}, "model", "m"),
    "model_name": ({"model_name": "m"}, "model", "m"),
    "no model": ({"model": ""}, "model", None),
    "finish_reason": ({"finish_reason": "stop"}, "finish_reason", "stop"),
    "stop_reason": ({"stop_reason": "end_turn"}, "finish_reason", "end_turn"),
    "cut": ({"finish_reason": "length"}, "finish_reason", "length"),
    "cut (Anthropic)": ({"stop_reason": "max_tokens"}, "finish_reason", "length"),
    "cut (Gemini)": ({"finish_reason": "MAX_TOKENS"}, "finish_reason", "length"),
    "no finish_reason": ({}, "finish_reason", None),
}


@pytest.mark.parametrize(("metadata", "name", "expected"), FIGURES.values(), ids=FIGURES.keys())
def test_figures(metadata: dict[str, Any], name: str, expected: Any) -> None:
    assert getattr(read("hi", **metadata), name) == expected


NO_MESSAGE = {
    "None": (None, "NoneType"),
    "text": ("hello", "str"),
    "a dict": ({"role": "assistant", "content": "hi"}, "dict"),
    "a list": ([Message(MessageRole.ASSISTANT, "hi")], "list"),
    "a class": (Message, "type"),
    "content of bytes": (Message(MessageRole.ASSISTANT, b"hi"), "Message whose content is bytes"),  # type: ignore[arg-type]  # as a backend may write it
    "metadata of text": (Message(MessageRole.ASSISTANT, "hi", "x"), "Message whose metadata is str"),  # type: ignore[arg-type]  # as a backend may write it
}


@pytest.mark.parametrize(("returned", "named"), NO_MESSAGE.values(), ids=NO_MESSAGE.keys())
def test_what_is_no_message_breaks_the_contract(returned: Any, named: str) -> None:
    with pytest.raises(ContractError) as broken:
        read_reply(returned, tool_names=(), step=1, json_content=True)
    due = f"LLMBackend.complete returned {named}; a Message(role, content, metadata) was due."
    assert str(broken.value) == due


def test_content_and_metadata_may_be_none() -> None:
    assert read_reply(SimpleNamespace(content=None, metadata=None), tool_names=(), step=1, json_content=True) == Reply(text="")
    assert read_reply(SimpleNamespace(content="hi"), tool_names=(), step=1, json_content=True) == Reply(text="hi")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "name", "args", "function", "x"]), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(
    st.text() | st.none() | st.lists(ANYTHING, max_size=3),
    st.dictionaries(st.sampled_from(["tool_calls", "tool_call", "usage", "cost_usd", "model", "finish_reason"]), ANYTHING),
)
def test_a_message_is_always_readable_and_its_ids_are_all_different(content: Any, metadata: dict[str, Any]) -> None:
    reply = read(content, **metadata)
    ids = [call.id for call in reply.calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    assert all((call.args is None) == (call.problem is not None) for call in reply.calls)
    assert reply.usage is None or reply.usage.total_tokens > 0
    assert reply.cost_usd is None or reply.cost_usd >= 0
