"""The two dialects, held to the types of the `openai` package, and what OpenAI would refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from agent_graph.testing import Answer, Tokens
from agent_graph.testing.openai_server import chat, responses
from agent_graph.testing.openai_server.reply import MOST_PIECES, Reply, sse
from agent_graph.testing.openai_server.requests import Api, wrong

USAGE = Tokens(100, 20, cache_read=40, cache_write=30, reasoning=8, audio_input=5, audio_output=2)


def reply(text: str = "", *calls: Any, **fields: Any) -> Reply:
    body = fields.pop("body", {})
    return Reply(1, "m", Answer(text, calls, finish_reason=fields.pop("finish_reason", "stop"), **fields), USAGE, body)


WEATHER = {"name": "weather", "args": {"city": "Paris"}}


def test_every_kind_of_token_is_told() -> None:
    told = chat.whole(reply("Hello."))["usage"]
    assert told == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 5, "cache_write_tokens": 30},
        "completion_tokens_details": {
            "reasoning_tokens": 8,
            "audio_tokens": 2,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    assert responses.whole(reply("Hello."))["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 30},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 120,
    }


def test_usage_may_be_left_out_or_added_to() -> None:
    assert "usage" not in chat.whole(reply("Hello.", usage_told=False))
    assert responses.whole(reply("Hello.", usage_told=False))["usage"] is None
    assert chat.whole(reply("Hello.", usage_extra={"cost": 0.5}))["usage"]["cost"] == 0.5


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_tells_usage_only_where_it_is_asked(asked: bool) -> None:
    chunks = list(chat.stream(reply("Hello.", body={"stream_options": {"include_usage": asked}})))
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")] == [120] * asked
    assert all(("usage" in chunk) == asked for chunk in chunks), "OpenAI says null in each chunk before the last"


def test_the_deltas_of_a_stream_add_up() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in chat.stream(reply("one two three", WEATHER, {**WEATHER, "id": "x"}))]
    assert "".join(delta.get("content") or "" for delta in deltas) == "one two three"
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    for index, call_id in enumerate(("call_1_0", "x")):
        mine = [part for part in parts if part["index"] == index]
        assert (mine[0]["id"], mine[0]["function"]["name"]) == (call_id, "weather")
        assert json.loads("".join(part["function"]["arguments"] for part in mine)) == {"city": "Paris"}


def test_the_events_of_a_response_add_up() -> None:
    events = list(responses.stream(reply("one two three", WEATHER)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == "one two three"
    assert events[-1]["response"] == responses.whole(reply("one two three", WEATHER))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message", "function_call"]


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_a_response_that_was_cut_is_incomplete(reason: str, told: str) -> None:
    body = responses.whole(reply("one", finish_reason=reason))
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": told})
    assert list(responses.stream(reply("one", finish_reason=reason)))[-1]["type"] == "response.incomplete"


# -- as the openai package reads it --------------------------------------------------------------------------------------------

SHAPES = {
    "text": reply("one two"),
    "tool calls": reply("", WEATHER, WEATHER),
    "text and a tool call": reply("one", WEATHER),
    "refused": reply(refusal="I cannot help with that."),
    "cut": reply("one", finish_reason="length"),
    "filtered": reply("one", finish_reason="content_filter"),
    "tier": reply("one", service_tier="flex"),
    "without usage": reply("one", usage_told=False),
    "empty": reply(""),
    "two choices with logprobs": reply("one two", WEATHER, body={"n": 2, "logprobs": True, "top_logprobs": 1}),
    "a request with everything": reply(
        "one",
        body={
            "stream_options": {"include_usage": True},
            "instructions": "Be brief.",
            "metadata": {"a": "b"},
            "include": ["reasoning.encrypted_content"],
            "tools": [{"type": "function", "name": "weather", "parameters": {}, "strict": True}],
        },
    ),
}
shapes = pytest.mark.parametrize("said", SHAPES.values(), ids=SHAPES)


@shapes
def test_the_openai_package_reads_a_chat_completion(said: Reply) -> None:
    whole = ChatCompletion.model_validate(chat.whole(said))
    assert whole.choices[0].message.refusal == said.answer.refusal
    assert not whole.model_extra
    chunks = [ChatCompletionChunk.model_validate(chunk) for chunk in chat.stream(said)]
    for index, choice in enumerate(whole.choices):
        deltas = [delta for chunk in chunks for delta in chunk.choices if delta.index == index]
        assert "".join(delta.delta.content or "" for delta in deltas) == (choice.message.content or "")
        assert "".join(delta.delta.refusal or "" for delta in deltas) == (choice.message.refusal or "")
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [choice.finish_reason]


@shapes
def test_the_openai_package_reads_a_response(said: Reply) -> None:
    whole = Response.model_validate(responses.whole(said))
    assert whole.output_text == said.answer.text
    assert not whole.model_extra
    events = [TypeAdapter[ResponseStreamEvent](ResponseStreamEvent).validate_python(event) for event in responses.stream(said)]
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert all(event.__pydantic_fields_set__ >= {"type", "sequence_number"} for event in events)


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded"])
def test_the_openai_package_reads_a_failure_inside_a_reply(code: str) -> None:
    said = reply("one", breaks="failed", error_code=code)
    whole = Response.model_validate(responses.failed(said))
    assert (whole.status, whole.error and whole.error.code) == ("failed", code)
    adapter = TypeAdapter[ResponseStreamEvent](ResponseStreamEvent)
    assert adapter.validate_python(responses.stream_failed(said, 3)).type == "response.failed"
    assert adapter.validate_python(responses.stream_error(said, 3)).type == "error"
    assert chat.failed(said)["error"]["code"] == chat.stream_error(said)["error"]["code"] == code


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
    ("items", "says"),
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
        ([], "empty array"),
        (["Hi"], "an object is due, not 'Hi'"),
        ([None], "an object is due, not None"),
        (5, "an array of objects is due, not 5"),
        ({"role": "user"}, "an array of objects is due"),
        ([{"content": "Hi"}], "it has no role"),
        ([{"role": "robot"}], "'robot' is no role"),
        ([{"role": ["user"]}], "['user'] is no role"),
        ([USER, {"role": "assistant", "tool_calls": [{}]}], "its tool_calls are no array of objects with an id"),
        ([USER, {"role": "assistant", "tool_calls": 5}], "its tool_calls are no array of objects with an id"),
        ([USER, {"role": "tool", "content": "x"}], "it has no tool_call_id"),
        ([USER, {"type": "function_call", "name": "weather"}], "it has no call_id"),
    ],
)
def test_a_conversation_that_openai_would_refuse(items: Any, says: str | None) -> None:
    dialects: list[tuple[Api, str]] = [("chat", "messages"), ("responses", "input")]
    for api, key in dialects:
        said = wrong(api, {"model": "m", key: items})
        assert (said is None) if says is None else (said is not None and says in said.body["error"]["message"])
        assert said is None or (said.status, said.body["error"]["param"].partition("[")[0]) == (400, key)


THOUGHT, CALL, TOLD = (
    {"type": "reasoning", "id": "rs", "summary": []},
    item("function_call", "a") | {"id": "fc"},
    item("function_call_output", "a"),
)
SAID = {"type": "message", "role": "assistant", "id": "msg", "content": "x"}


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([USER, THOUGHT, CALL, TOLD], None),
        ([USER, THOUGHT, CALL, TOLD, {**THOUGHT, "id": "rs2"}, SAID, USER], None),
        ([USER, THOUGHT, {**CALL, "id": "another"}, TOLD], None),
        ([USER, item("function_call", "a"), TOLD], None),
        ([USER, {**CALL, "id": None}, TOLD], None),
        ([USER, THOUGHT], "'rs' of type 'reasoning' was provided without its required following item"),
        ([THOUGHT, USER], "'rs' of type 'reasoning' was provided without its required following item"),
        ([USER, CALL, TOLD], "'fc' of type 'function_call' was provided without its required 'reasoning' item: 'rs'"),
        ([USER, SAID, USER], "'msg' of type 'message' was provided without its required 'reasoning' item: 'rs2'"),
        ([USER, CALL, TOLD, THOUGHT, SAID], "'fc' of type 'function_call' was provided without"),
    ],
    ids=str,
)
def test_reasoning_stays_with_what_it_led_to(items: list[Any], says: str | None) -> None:
    said = wrong("responses", {"model": "m", "input": items}, {"fc": "rs", "msg": "rs2"})
    assert (said is None) if says is None else (said is not None and says in said.body["error"]["message"])


@pytest.mark.parametrize(
    ("api", "changes", "param"),
    [
        ("chat", {"model": None}, "model"),
        ("chat", {"model": 5}, "model"),
        ("chat", {"messages": None}, "messages"),
        ("chat", {"messages": "Hi"}, "messages"),
        ("chat", {"max_tokens": "5"}, "max_tokens"),
        ("chat", {"max_completion_tokens": -1}, "max_completion_tokens"),
        ("responses", {"max_output_tokens": 0}, "max_output_tokens"),
        ("chat", {"n": 0}, "n"),
        ("chat", {"n": True}, "n"),
        ("chat", {"stream": "yes"}, "stream"),
        ("chat", {"stream_options": [1]}, "stream_options"),
        ("responses", {"include": "usage"}, "include"),
        ("responses", {"input": 5}, "input"),
    ],
    ids=str,
)
def test_a_field_that_openai_would_refuse(api: Api, changes: dict[str, Any], param: str) -> None:
    fine = {"model": "m", "messages" if api == "chat" else "input": [USER]}
    assert wrong(api, fine) is None
    said = wrong(api, fine | changes)
    assert said is not None
    assert (said.status, said.body["error"]["param"], said.body["error"]["type"]) == (400, param, "invalid_request_error")


def test_each_dialect_wants_its_own_name_for_the_conversation() -> None:
    said = [wrong("chat", {"model": "m", "input": "Hi"}), wrong("responses", {"model": "m", "messages": [USER]})]
    assert [refusal and refusal.body["error"]["code"] for refusal in said] == ["missing_required_parameter"] * 2
    assert wrong("responses", {"model": "m", "input": "Hi"}) is None
