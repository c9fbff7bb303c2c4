"""The two dialects, and which conversations OpenAI would refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_graph.testing import Answer, Tokens
from agent_graph.testing.openai_server.wire import MOST_PIECES, Reply, chat, chat_stream, problem, responses, responses_stream, sse

USAGE = Tokens(100, 20, cache_read=40, cache_write=30, reasoning=8, audio_input=5, audio_output=2)


def reply(text: str = "", *calls: Any, **fields: Any) -> Reply:
    return Reply(1, "m", Answer(text, calls, finish_reason=fields.pop("finish_reason", "stop"), **fields), USAGE)


WEATHER = {"name": "weather", "args": {"city": "Paris"}}


def test_every_kind_of_token_is_told() -> None:
    told = chat(reply("Hello."))["usage"]
    assert told == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 5, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 2},
    }
    assert responses(reply("Hello."))["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 30},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 120,
    }


def test_usage_may_be_left_out_or_added_to() -> None:
    assert "usage" not in chat(reply("Hello.", usage_told=False))
    assert responses(reply("Hello.", usage_told=False))["usage"] is None
    assert chat(reply("Hello.", usage_extra={"cost": 0.5}))["usage"]["cost"] == 0.5


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_tells_usage_only_where_it_is_asked(asked: bool) -> None:
    chunks = list(chat_stream(reply("Hello."), {"stream_options": {"include_usage": asked}}))
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if "usage" in chunk] == [120] * asked


def test_the_deltas_of_a_stream_add_up() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in chat_stream(reply("one two three", WEATHER, {**WEATHER, "id": "x"}), {})]
    assert "".join(delta.get("content") or "" for delta in deltas) == "one two three"
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    for index, call_id in enumerate(("call_1_0", "x")):
        mine = [part for part in parts if part["index"] == index]
        assert (mine[0]["id"], mine[0]["function"]["name"]) == (call_id, "weather")
        assert json.loads("".join(part["function"]["arguments"] for part in mine)) == {"city": "Paris"}


def test_the_events_of_a_response_add_up() -> None:
    events = list(responses_stream(reply("one two three", WEATHER)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == "one two three"
    assert events[-1]["response"] == responses(reply("one two three", WEATHER))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message", "function_call"]


def test_a_cut_response_is_incomplete() -> None:
    body = responses(reply("one", finish_reason="length"))
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_a_long_text_is_streamed_in_few_pieces() -> None:
    long = reply("word " * 10_000)
    assert len(long.pieces) <= MOST_PIECES
    assert "".join(long.pieces) == "word " * 10_000


def test_an_event_on_the_wire() -> None:
    assert sse({"type": "a", "x": 1}) == b'event: a\ndata: {"type": "a", "x": 1}\n\n'
    assert sse({"x": 1}) == b'data: {"x": 1}\n\n'


USER = {"role": "user", "content": "Hi"}


def asks(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": id_} for id_ in ids]}


def tells(id_: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": "x"}


def item(kind: str, id_: str) -> dict[str, Any]:
    return {"type": kind, "call_id": id_}


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([USER], None),
        ([USER, asks("a", "b"), tells("b"), tells("a"), USER], None),
        ([USER, asks("a", "a"), tells("a"), tells("a")], None),
        ([USER, asks("a")], "'a' have no results"),
        ([USER, asks("a", "b"), tells("a"), USER, tells("b")], "'b' have no results"),
        ([USER, asks("a"), tells("b")], "'b' answers no tool call"),
        ([USER, tells("a")], "'a' answers no tool call"),
        (
            [
                USER,
                item("function_call", "a"),
                item("function_call", "b"),
                item("function_call_output", "a"),
                item("function_call_output", "b"),
            ],
            None,
        ),
        ([USER, item("function_call", "a"), USER], "'a' have no results"),
        ([USER, item("function_call_output", "a")], "'a' answers no tool call"),
        ([], "needs a model and a conversation"),
        ("Hi", None),
    ],
)
def test_a_conversation_that_openai_would_refuse(items: Any, wrong: str | None) -> None:
    for key in ("messages", "input"):
        said = problem({"model": "m", key: items})
        assert (said is None) if wrong is None else (said is not None and wrong in said)
