"""ScriptedChatModel behaves as a LangChain chat model does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from pydantic import ValidationError

from agent_graph import ConfigError, Message, MessageRole
from agent_graph.testing import ScriptedChatModel, ScriptEnded, call, calls

CALL = {"name": "weather", "args": {"city": "Zürich"}, "id": "c1", "type": "tool_call"}


@tool
def weather(city: str) -> str:
    """The weather."""
    return city


async def test_replies_come_in_order_with_usage_and_the_models_name() -> None:
    model = ScriptedChatModel(
        ["one", AIMessage("two", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})], usage=(12, 5)
    )
    first, second = await model.ainvoke("Hi"), model.invoke("Hi")
    assert (first.content, first.usage_metadata) == ("one", {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17})
    assert (second.content, second.usage_metadata["total_tokens"]) == ("two", 2)
    assert first.response_metadata["model_name"] == "scripted"
    with pytest.raises(ScriptEnded):
        await model.ainvoke("Hi")


@pytest.mark.parametrize("replies", ["Hello", AIMessage("Hello"), call("weather"), {"a": "b"}, lambda messages: "Hello"], ids=repr)
def test_a_single_reply_is_no_script(replies: Any) -> None:
    """A text was taken for a list of letters, an AIMessage for a list of its fields."""
    with pytest.raises(ConfigError, match="replies: a list is due"):
        ScriptedChatModel(replies)


def test_an_option_that_there_is_not_is_refused() -> None:
    """`last_for_ever=True` was taken and did nothing."""
    with pytest.raises(ValidationError, match="last_for_ever"):
        ScriptedChatModel(["Hello"], last_for_ever=True)


async def test_bound_tools_arrive_with_each_call() -> None:
    model = ScriptedChatModel(["a"])
    await model.bind_tools([weather], tool_choice="any").ainvoke([HumanMessage("Hi")])
    [(messages, options)] = model.requests
    assert messages == [HumanMessage("Hi")]
    assert (options["tools"][0]["function"]["name"], options["tool_choice"]) == ("weather", "any")
    assert model.bound == [[weather]]


@pytest.mark.parametrize(
    "reply",
    [
        AIMessage("Sunny in Zürich,  21 °C.\n"),
        AIMessage("", tool_calls=[CALL]),
        AIMessage("Looking.", tool_calls=[CALL, {**CALL, "id": "c2"}], response_metadata={"finish_reason": "tool_calls"}),
        AIMessage([{"type": "text", "text": "a"}, {"type": "image", "url": "x"}]),
    ],
    ids=["text", "call", "both", "blocks"],
)
async def test_the_chunks_of_a_stream_add_up_to_the_reply(reply: AIMessage) -> None:
    expected = await ScriptedChatModel([reply], usage=(12, 5)).ainvoke("Hi")
    chunks = [chunk async for chunk in ScriptedChatModel([reply], usage=(12, 5)).astream("Hi")]
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert isinstance(total, AIMessageChunk)
    assert total.content == expected.content
    assert total.tool_calls == expected.tool_calls == reply.tool_calls
    assert total.usage_metadata == expected.usage_metadata
    assert total.response_metadata == expected.response_metadata


async def test_a_text_is_streamed_word_by_word() -> None:
    words = [chunk.content async for chunk in ScriptedChatModel(["one two  three"]).astream("Hi")]
    assert words[:3] == ["one ", "two  ", "three"]


@pytest.mark.parametrize("error", [ValueError("broken"), ValueError], ids=["instance", "class"])
async def test_exceptions_are_raised(error: Any) -> None:
    with pytest.raises(ValueError, match=r"broken|"):
        await ScriptedChatModel([error]).ainvoke("Hi")


async def test_functions_answer_from_the_messages_and_copies_share_the_script() -> None:
    model = ScriptedChatModel([lambda messages: messages[-1].content, "second"])
    assert (await model.ainvoke("Hi")).content == "Hi"
    assert (await copy.deepcopy(model).ainvoke("Hi")).content == "second"
    assert len(model.requests) == 2


async def test_calls_are_written_as_for_the_scripted_backend() -> None:
    """`'Message' object has no attribute 'model_copy'`: `call(...)` was an entry of the other script only."""
    script = [calls(call("weather", city="Paris"), call("weather", call_id="mine", city="Rome")), call("weather", city="Oslo"), "Sunny."]
    model = ScriptedChatModel(script, usage=(12, 5))
    first = await model.ainvoke("Hi")
    assert [(made["name"], made["args"], made["id"]) for made in first.tool_calls] == [
        ("weather", {"city": "Paris"}, "call_1_0"),
        ("weather", {"city": "Rome"}, "mine"),
    ]
    assert first.usage_metadata == {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}
    second = await model.ainvoke([HumanMessage("Hi"), first])
    assert second.tool_calls[0]["id"] == "call_2_0", "an id of its own in a conversation"
    said = Message(MessageRole.ASSISTANT, "Hi.", {"usage": {"input_tokens": 3, "output_tokens": 4}, "model": "m", "cost_usd": 0.5})
    reply = await ScriptedChatModel([said]).ainvoke("Hi")
    assert (reply.content, reply.usage_metadata["total_tokens"]) == ("Hi.", 7)
    assert reply.response_metadata == {"model_name": "m", "cost_usd": "0.5"}


async def test_what_is_no_entry_is_said_to_be_none() -> None:
    with pytest.raises(TypeError, match="5 is no entry of a ScriptedChatModel's script"):
        await ScriptedChatModel([5]).ainvoke("Hi")
