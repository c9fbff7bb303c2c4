"""What an entry of the script comes to: its text, its tokens under an output cap, its bill."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from agent_graph import ConfigError, Message, MessageRole
from agent_graph.testing import Answer, OpenAIServer, Refusal, Tokens, after, broken, call, calls, hang, refuse
from agent_graph.testing.openai_server.requests import ServedRequest
from agent_graph.testing.openai_server.script import bill, count, cut, plan


@pytest.mark.parametrize(
    ("entry", "delay_s", "said"),
    [
        ("Hello.", 0.0, Answer("Hello.")),
        (call("weather", city="Paris"), 0.0, Answer(tool_calls=[{"name": "weather", "args": {"city": "Paris"}}])),
        (
            calls(call("a"), call("b", call_id="x")),
            0.0,
            Answer(tool_calls=[{"name": "a", "args": {}}, {"id": "x", "name": "b", "args": {}}]),
        ),
        (Answer("Hello.", model="m"), 0.0, Answer("Hello.", model="m")),
        (after(2, after(3, "Hello.")), 5.0, Answer("Hello.")),
        (hang, math.inf, Answer()),
        (after(1, hang), math.inf, Answer()),
        (lambda body: f"{body['model']} here", 0.0, Answer("m here")),
        (lambda body: lambda same: refuse(503, "busy"), 0.0, refuse(503, "busy")),
        (broken("disconnect", "Hello.", after=3), 0.0, Answer("Hello.", breaks="disconnect", breaks_after=3)),
        (broken("error", "Hello."), 0.0, refuse(500, "the model failed", code="server_error")),
    ],
)
def test_entries(entry: Any, delay_s: float, said: Answer | Refusal) -> None:
    planned = plan(entry, {"model": "m"})
    assert (planned.delay_s, planned.said) == (delay_s, said)


@pytest.mark.parametrize("entry", [None, 5, {"content": "Hello."}, Answer, ValueError("no")], ids=repr)
def test_what_is_no_entry_is_said_to_be_none(entry: Any) -> None:
    with pytest.raises(TypeError, match=r"is no entry of an OpenAIServer's script"):
        plan(entry, {})


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (400, None, "invalid_request_error", None),
        (401, None, "invalid_request_error", "invalid_api_key"),
        (429, None, "requests", "rate_limit_exceeded"),
        (429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
        (503, None, "server_error", None),
    ],
)
def test_a_refusal_has_openais_form(status: int, code: str | None, kind: str, told: str | None) -> None:
    refusal = refuse(status, "no", code=code, headers={"Retry-After": "2"})
    assert refusal.body == {"error": {"message": "no", "type": kind, "param": None, "code": told}}
    assert (refusal.status, refusal.headers) == (status, {"Retry-After": "2"})


def test_an_answer_without_tokens_is_counted() -> None:
    said, tokens = cut(Answer("one two  three", [{"name": "a", "args": {"x": 1}}]), None, 7)
    assert (tokens, said.finish_reason) == (Tokens(7, 5), "tool_calls")
    assert count("") == 0


@pytest.mark.parametrize(
    ("answer", "cap", "text", "reason", "output"),
    [
        (Answer("one two three"), 3, "one two three", "stop", 3),
        (Answer("one two three"), 2, "one two ", "length", 2),
        (Answer("one two three", tokens=Tokens(9, 500)), 100, "one two three", "length", 100),
        (Answer("one two three", tokens=Tokens(9, 500, reasoning=400)), 100, "one two three", "length", 100),
        (Answer("one two three", cap_honoured=False), 2, "one two three", "stop", 3),
        (Answer("one", finish_reason="content_filter"), 2, "one", "content_filter", 1),
    ],
)
def test_a_reply_is_cut_at_the_cap(answer: Answer, cap: int, text: str, reason: str, output: int) -> None:
    said, tokens = cut(answer, cap, 9)
    assert (said.text, said.finish_reason, tokens.output) == (text, reason, output)
    assert tokens.reasoning <= tokens.output


def test_choices_are_counted_each_and_cut_each() -> None:
    assert cut(Answer("one two three"), None, 9, 2)[1].output == 6
    said, tokens = cut(Answer("one two three"), 2, 9, 2)
    assert (said.text, tokens.output) == ("one two ", 4)


def test_a_cut_tool_call_has_half_its_arguments() -> None:
    said, _ = cut(Answer(tool_calls=[{"name": "a", "args": {"city": "Paris", "days": 3}}]), 1, 9)
    assert said.tool_calls[0]["args"] == '{"city": "Pari'
    assert said.finish_reason == "length"


PRICE = {"input": 2, "output": "8", "cache_read": 0.5, "cache_write": Decimal("2.5"), "audio_input": 20, "audio_output": 40}


@pytest.mark.parametrize(
    ("tokens", "price", "usd"),
    [
        (Tokens(1_000, 500), PRICE, "0.006"),
        (Tokens(1_000, 500, cache_read=400, cache_write=200), PRICE, "0.0055"),
        (Tokens(1_000, 500, reasoning=499), PRICE, "0.006"),
        (Tokens(1_000, 500, audio_input=100, audio_output=100), PRICE, "0.011"),
        (Tokens(1_000, 500, cache_read=400, audio_input=100), {"input": 1, "output": 1}, "0.0015"),
        (Tokens(0, 0), {"input": 1, "output": 1, "per_request": "0.01"}, "0.01"),
    ],
)
def test_the_bill(tokens: Tokens, price: dict[str, Any], usd: str) -> None:
    assert bill(tokens, price) == Decimal(usd)


@given(text=st.text(), cap=st.integers(1, 50))
def test_a_cut_text_is_a_beginning_of_the_text_and_within_the_cap(text: str, cap: int) -> None:
    said, tokens = cut(Answer(text), cap, 1)
    assert text.startswith(said.text)
    assert count(said.text) <= tokens.output <= cap
    assert (said.text == text) == (said.finish_reason == "stop")


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ("Hello.", "replies: a list of entries"),
        (Answer("Hello."), "replies: a list of entries"),
        ({"content": "Hello."}, "replies: a list of entries"),
        (None, "replies: a list of entries"),
        (["one", 5], "replies[1]: 5 is no entry"),
        ([AIMessage("Hello.")], "replies[0]: AIMessage("),
        ([Answer], "is no entry"),
        ([after(1, 5)], "replies[0]: 5 is no entry"),
        ([Message(MessageRole.ASSISTANT, "", {"tool_calls": [{"tool": "a"}]})], "replies[0]: Answer: {'tool': 'a'} is no tool call"),
        ([Message(MessageRole.ASSISTANT, 5)], "replies[0]: Answer: the text is 5"),  # type: ignore[arg-type]  # as a test may write it
    ],
    ids=repr,
)
def test_a_script_is_checked_where_it_is_given(replies: Any, says: str) -> None:
    """It came out as a traceback of the server's thread, or as a refusal of the client's request."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        OpenAIServer(replies)
    with OpenAIServer(["before"]) as server:
        with pytest.raises(ConfigError, match=re.escape(says)):
            server.script(replies)
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        _, said = server.decide(ServedRequest(api="chat", body=body, headers={}))
        assert said.answer.text == "before"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Answer(5), "the text is 5"),
        (lambda: Answer("a", tokens=(1, 2)), "tokens is (1, 2)"),
        (lambda: Answer("a", ["weather"]), "'weather' is no tool call"),
        (lambda: Tokens(-1, 2), "input is -1"),
        (lambda: Tokens(1, 2.5), "output is 2.5"),
        (lambda: Tokens(10, 2, cache_read=6, cache_write=5), "are more than input"),
        (lambda: Tokens(10, 2, reasoning=3), "are more than output"),
        (lambda: Answer("a", {"name": "weather"}), "tool_calls is {'name': 'weather'}; a list is due"),
        (lambda: Answer("a", [{"name": "weather", "args": {"when": Decimal(1)}}]), "the arguments of 'weather' cannot be sent as JSON"),
        (lambda: Answer("a", usage_extra={"cost": Decimal("0.1")}), "usage_extra cannot be sent as JSON"),
        (lambda: Answer("a", model=5), "model is 5"),
        (lambda: Answer("a", finish_reason=7), "finish_reason is 7"),
        (lambda: Answer("a", chunk_delay_s="1"), "chunk_delay_s is '1'"),
        (lambda: Answer("a", chunk_delay_s=math.nan), "chunk_delay_s is nan"),
        (lambda: broken("truncate", after=-1), "after -1 pieces"),
        (lambda: refuse(429, headers={"Retry-After": "2\r\nSet-Cookie: a"}), "printable ASCII is due"),
        (lambda: refuse(429, headers={"Retry-After": "€"}), "printable ASCII is due"),
        (lambda: broken("truncated"), "Did you mean 'truncate'?"),
        (lambda: refuse("429"), "status is '429'"),
        (lambda: refuse(42), "status is 42"),
        (lambda: after("5", "a"), "'5' is no time to wait"),
        (lambda: OpenAIServer(prices={"m": {"inptu": 1}}), "Did you mean 'input'?"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_where_it_is_written(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        make()
