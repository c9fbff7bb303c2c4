"""An afternoon with the starter code: what a model may say, in every layout."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest

from agent_graph import Message, ToolCall
from tests.starter import ASSISTANT, PARIS, TOOL, Tools, ask, make, said

pytestmark = pytest.mark.usefixtures("at_home")


OPENAI = {"id": "x", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(PARIS)}}
LAYOUTS = {
    "id, name, args": {"tool_calls": [{"id": "x", "name": "get_weather", "args": PARIS}]},
    "one tool_call": {"tool_call": {"id": "x", "name": "get_weather", "args": PARIS}},
    "a list under tool_call": {"tool_call": [{"id": "x", "name": "get_weather", "args": PARIS}]},
    "a dict under tool_calls": {"tool_calls": {"id": "x", "name": "get_weather", "args": PARIS}},
    "a ToolCall": {"tool_calls": [ToolCall("get_weather", PARIS, "x")]},
    "one ToolCall": {"tool_call": ToolCall("get_weather", PARIS, "x")},
    "call_id, tool_name": {"tool_calls": [{"call_id": "x", "tool_name": "get_weather", "args": PARIS}]},
    "arguments": {"tool_calls": [{"id": "x", "name": "get_weather", "arguments": PARIS}]},
    "arguments as JSON text": {"tool_calls": [{"id": "x", "name": "get_weather", "arguments": json.dumps(PARIS)}]},
    "args as JSON text": {"tool_calls": [{"id": "x", "name": "get_weather", "args": json.dumps(PARIS)}]},
    "Anthropic": {"tool_calls": [{"id": "x", "type": "tool_use", "name": "get_weather", "input": PARIS}]},
    "OpenAI": {"tool_calls": [OPENAI]},
    "OpenAI, arguments as an object": {"tool_calls": [{"id": "x", "function": {"name": "get_weather", "arguments": PARIS}}]},
}


@pytest.mark.parametrize("metadata", LAYOUTS.values(), ids=LAYOUTS)
def test_tool_calls_are_read_in_every_layout(metadata):
    it = make(Message(ASSISTANT, "", copy.deepcopy(metadata)), "Sunny.")
    run = ask(it)
    assert (run.status, run.steps, run.output) == ("complete", 2, "Sunny.")
    assert [(c.tool_name, c.args, c.call_id) for c in run.tool_calls] == [("get_weather", PARIS, "x")]
    [answer] = [m for m in it.llm.requests[1] if m.role is TOOL]
    assert (answer.metadata["tool_call_id"], answer.metadata["name"], answer.content) == ("x", "get_weather", "sunny in Paris")
    assert it.llm.requests[1][2].metadata == metadata, "metadata comes back unchanged"


@pytest.mark.parametrize(
    "content",
    ['{"tool": "get_weather", "args": {"city": "Paris"}}', '```json\n{"tool": "get_weather", "args": {"city": "Paris"}}\n```'],
    ids=["bare", "fenced"],
)
def test_a_tool_call_may_stand_in_the_content(content):
    run = ask(make(content, "Sunny."))
    assert [(c.tool_name, c.args, c.result) for c in run.tool_calls] == [("get_weather", PARIS, "sunny in Paris")]
    assert run.output == "Sunny."


@pytest.mark.parametrize("content", ['{"tool": "unknown", "args": {}}', 'Use {"tool": "get_weather", "args": {}}', '{"city": "Paris"}'])
def test_json_that_calls_no_tool_is_an_answer(content):
    run = ask(make(content))
    assert (run.status, run.output, run.tool_calls) == ("complete", content, [])


def test_a_call_without_an_id_is_given_one():
    it = make(said(tool_calls=[{"name": "get_weather", "args": PARIS}]), "Sunny.")
    assert [c.call_id for c in ask(it).tool_calls] == ["call_1_0"]
    assert [m.metadata["tool_call_id"] for m in it.llm.requests[1] if m.role is TOOL] == ["call_1_0"]


def test_an_id_repeated_inside_a_reply_is_rewritten():
    entries = [{"id": "x", "name": "get_weather", "args": {"city": city}} for city in ("Paris", "Rome")]
    run = ask(make(said(tool_calls=entries), "Sunny."))
    first, second = run.tool_calls
    assert (first.call_id, first.result, second.result) == ("x", "sunny in Paris", "sunny in Rome")
    assert second.call_id != "x"


def test_several_calls_of_one_reply_are_answered_in_their_order():
    async def slow_first(call):
        await asyncio.sleep(0.05 if call.args["city"] == "Paris" else 0)
        return call.args["city"]

    it = make(said(calls=[("get_weather", {"city": c}) for c in ("Paris", "Rome", "Oslo")]), "Done.", tools=Tools(get_weather=slow_first))
    run = ask(it)
    assert [c.result for c in run.tool_calls] == ["Paris", "Rome", "Oslo"]
    assert [m.content for m in it.llm.requests[1] if m.role is TOOL] == ["Paris", "Rome", "Oslo"]


@pytest.mark.parametrize(("key", "reason"), [("finish_reason", "content_filter"), ("stop_reason", "refusal"), ("finish_reason", "SAFETY")])
def test_a_reply_that_its_provider_withheld_is_said_to_be_one(key, reason):
    """A text that a content filter had cut counted as an answer like any other."""
    run = ask(make(Message(ASSISTANT, "First, take", {key: reason, "cost_usd": 0.001})))
    assert (run.status, run.output) == ("complete", "First, take")
    assert run.warnings == [f"the provider withheld a reply, or the rest of it, for what it was about (finish reason {reason!r})."]
    assert ask(make(Message(ASSISTANT, "Done.", {key: "stop", "cost_usd": 0.001}))).warnings == []
