"""The offline model as a chat model: its loop with tools, what it obeys, what it reports."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, ToolException, tool
from pydantic import BaseModel

from agent_graph_adapters.offline import LABEL, OfflineChatModel, demo_tools

MODEL = OfflineChatModel()
WITH_TOOLS = MODEL.bind_tools(demo_tools())


async def converse(question: str, tools: Sequence[BaseTool] | None = None, **options: Any) -> list[BaseMessage]:
    """Run the loop that an agent runs, and return its messages."""
    by_name = {one.name: one for one in tools or demo_tools()}
    model = MODEL.bind_tools(list(by_name.values()), **options)
    messages: list[BaseMessage] = [HumanMessage(question)]
    for _ in range(8):
        reply = await model.ainvoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        for call in reply.tool_calls:
            try:
                messages.append(await by_name[call["name"]].ainvoke({**call, "type": "tool_call"}))
            except ToolException as error:
                messages.append(ToolMessage(str(error), tool_call_id=call["id"], status="error"))
    raise AssertionError("the loop does not end")


def rounds(messages: Sequence[BaseMessage]) -> list[int]:
    """Return how many calls each reply asked for."""
    return [len(message.tool_calls) for message in messages if isinstance(message, AIMessage)]


async def test_loop_with_several_calls_at_once() -> None:
    messages = await converse("weather in Paris and Rome, and 17 * 23?")
    assert rounds(messages) == [3, 0]
    assert messages[-1].text.splitlines() == [
        "The weather in Paris is 12 °C, light rain (SAMPLE DATA, not a measurement).",
        "The weather in Rome is 16 °C, sunny (SAMPLE DATA, not a measurement).",
        "17 * 23 = 391.",
    ]


async def test_one_call_at_a_time_where_asked() -> None:
    messages = await converse("weather in Paris and Rome, and 17 * 23?", parallel_tool_calls=False)
    assert rounds(messages) == [1, 1, 1, 0]
    assert messages[-1].text.endswith("17 * 23 = 391.")


async def test_call_ids_are_unique_and_the_same_again() -> None:
    first, again = [await converse("weather in Paris, Rome, Oslo; 1 + 1", parallel_tool_calls=False) for _ in range(2)]
    ids = [call["id"] for message in first if isinstance(message, AIMessage) for call in message.tool_calls]
    assert len(set(ids)) == 4
    assert ids == [call["id"] for message in again if isinstance(message, AIMessage) for call in message.tool_calls]


async def test_tool_errors_are_told() -> None:
    messages = await converse("weather in Londen and 1/0")
    assert "weather(city: Londen) failed: The sample table has no city 'Londen'. Did you mean London?" in messages[-1].text
    assert "calculator(expression: 1/0) failed: division by zero" in messages[-1].text
    assert rounds(messages) == [2, 0]


async def test_what_no_tool_fits_is_told_beside_the_rest() -> None:
    messages = await converse("weather in Rome, and sing a song")
    assert "16 °C" in messages[-1].text
    assert "fits “sing a song”" in messages[-1].text


async def test_answers_do_not_repeat_the_label() -> None:
    for question in ("weather in Rome", "tell me a joke", ""):
        assert LABEL not in (await converse(question))[-1].text


def test_a_call_that_came_back_is_not_repeated_but_a_new_one_is_made() -> None:
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    messages = [HumanMessage("weather in Paris and Rome"), done, ToolMessage("rain", tool_call_id="1")]
    assert [call["args"] for call in WITH_TOOLS.invoke(messages).tool_calls] == [{"city": "Rome"}]


def test_an_error_is_known_by_its_opening_too() -> None:
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    messages = [HumanMessage("weather in Paris"), done, ToolMessage("Error: no luck", tool_call_id="1")]
    assert WITH_TOOLS.invoke(messages).text == "weather(city: Paris) failed: no luck."


def test_an_earlier_turns_call_is_made_again() -> None:
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    earlier = [HumanMessage("weather in Paris"), done, ToolMessage("rain", tool_call_id="1"), AIMessage("It rains.")]
    assert len(WITH_TOOLS.invoke([*earlier, HumanMessage("weather in Paris")]).tool_calls) == 1


def test_a_hint_after_a_result_is_no_new_question() -> None:
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    messages = [
        HumanMessage("weather in Paris"),
        done,
        ToolMessage("rain", tool_call_id="1"),
        HumanMessage("Answer now."),
    ]
    assert WITH_TOOLS.invoke(messages).text == "The weather in Paris is rain."


def test_after_a_call_that_was_cancelled_a_question_is_a_new_one() -> None:
    """Ctrl-C in a turn, then another question in the same run: it was told again of the call that had been given up."""
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    given_up = ToolMessage("This call was cancelled: it has no result.", tool_call_id="1", status="error")
    reply = WITH_TOOLS.invoke([HumanMessage("weather in Paris"), done, given_up, HumanMessage("And what is 2+2?")])
    assert [call["name"] for call in reply.tool_calls] == ["calculator"]


@pytest.mark.parametrize("choice", ["none", {"type": "none"}])
def test_tool_choice_none(choice: Any) -> None:
    reply = MODEL.bind_tools(demo_tools(), tool_choice=choice).invoke("weather in Rome")
    assert not reply.tool_calls
    assert "No tool may be used" in reply.text


def test_tool_choice_none_still_tells_what_is_known() -> None:
    done = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    messages = [HumanMessage("weather in Paris and Rome"), done, ToolMessage("rain", tool_call_id="1")]
    for model in (MODEL.bind_tools(demo_tools(), tool_choice="none"), MODEL):
        reply = model.invoke(messages)
        assert (reply.text, reply.tool_calls) == ("The weather in Paris is rain.", [])


@pytest.mark.parametrize(
    "choice",
    [
        "current_time",
        {"type": "function", "function": {"name": "current_time"}},
        {"type": "tool", "name": "current_time"},
    ],
)
def test_a_named_tool_is_the_one_called(choice: Any) -> None:
    reply = MODEL.bind_tools(demo_tools(), tool_choice=choice).invoke("weather in Rome")
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("current_time", {"city": "Rome"})]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def test_structured_output() -> None:
    assert MODEL.with_structured_output(Person).invoke("Ann Lee is 33 years old.") == Person(name="Ann Lee", age=33)


@tool
def explode(text: str) -> str:
    """Explode."""
    return text


async def test_any_tool_will_do() -> None:
    messages = await converse("explode the old bridge", [explode])
    assert messages[-1].text == "The explode for old bridge is old bridge."


def test_usage_and_metadata() -> None:
    asking, answering = WITH_TOOLS.invoke("weather in Rome"), WITH_TOOLS.invoke("tell me a joke")
    assert asking.response_metadata["finish_reason"] == "tool_calls"
    assert answering.response_metadata["finish_reason"] == "stop"
    for reply in (asking, answering):
        assert reply.usage_metadata is not None
        assert reply.usage_metadata["input_tokens"] > 100  # the schemas of the tools are part of the prompt
        assert reply.usage_metadata["output_tokens"] > 5
        assert reply.usage_metadata["total_tokens"] == sum(reply.usage_metadata[key] for key in ("input_tokens", "output_tokens"))
        assert reply.response_metadata["model_name"] == "offline"
        assert reply.response_metadata["cost_usd"] == 0


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_cap_on_output_is_kept(cap: str) -> None:
    reply = WITH_TOOLS.invoke("tell me a joke", **{cap: 10})
    assert reply.response_metadata["finish_reason"] == "length"
    assert reply.usage_metadata is not None
    assert 0 < reply.usage_metadata["output_tokens"] <= 10


def test_stop_words() -> None:
    assert WITH_TOOLS.invoke("tell me a joke", stop=["bound"]).text == "None of the "


@pytest.mark.parametrize("question", ["weather in Paris and 17 * 23", "tell me a joke", ""])
async def test_streaming_gives_the_same_reply(question: str) -> None:
    whole: AIMessageChunk | None = None
    pieces = 0
    async for chunk in WITH_TOOLS.astream(question):
        whole = chunk if whole is None else whole + chunk
        pieces += 1
    plain = WITH_TOOLS.invoke(question)
    assert whole is not None
    assert (whole.text, whole.tool_calls) == (plain.text, plain.tool_calls)
    assert whole.usage_metadata == plain.usage_metadata
    assert whole.response_metadata == plain.response_metadata
    assert pieces > 2
    assert "".join(chunk.text for chunk in WITH_TOOLS.stream(question)) == plain.text


async def test_async_calls_stay_in_their_thread() -> None:
    threads = threading.active_count()
    await asyncio.gather(*(WITH_TOOLS.ainvoke("weather in Rome") for _ in range(50)))
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="nothing"),
        pytest.param([SystemMessage("be kind")], id="system only"),
        pytest.param([AIMessage("hello")], id="assistant only"),
        pytest.param([ToolMessage("x", tool_call_id="1")], id="a stray result"),
        pytest.param([HumanMessage([{"type": "image", "url": "https://example.com/a.png"}])], id="an image"),
        pytest.param([HumanMessage("\ud800 weather in Rome")], id="lone surrogate"),
    ],
)  # fmt: skip
def test_odd_transcripts_get_a_reply(messages: list[BaseMessage]) -> None:
    reply = WITH_TOOLS._generate(messages) if not messages else WITH_TOOLS.invoke(messages)  # type: ignore[attr-defined]  # the model behind what bind_tools returned
    assert reply


def test_a_summary_is_made_of_openings() -> None:
    lines = "\n".join(f"[user] item {number} " + "bla " * 50 for number in range(100))
    reply = MODEL.invoke([SystemMessage("You summarise a conversation."), HumanMessage(f"<conversation>\n{lines}\n</conversation>")])
    assert "item 0 bla" in reply.text
    assert 0 < len(reply.text) < len(lines) / 4
    assert "<conversation>" not in reply.text


def test_five_megabytes_are_answered_in_less_than_a_second() -> None:
    question = "weather in Rome. " * 300_000
    start = time.process_time()
    reply = WITH_TOOLS.invoke(question)
    assert time.process_time() - start < 1
    assert reply.tool_calls
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_tokens"] > 500_000


def test_tokens_of_a_long_question_are_estimated_by_more_than_its_first_words() -> None:
    reply = MODEL.invoke("天気" * 20 + "The weather in Rome is mild. " * 10_000)
    assert reply.usage_metadata is not None
    assert 50_000 < reply.usage_metadata["input_tokens"] < 110_000


def test_it_can_be_stored() -> None:
    reply = WITH_TOOLS.invoke("weather in Paris and 17 * 23")
    assert json.loads(reply.model_dump_json())["tool_calls"][1]["args"] == {"expression": "17 * 23"}
