"""The cache of a run: the same objects again, and no staleness."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agent_graph.decisions.replies import read_reply
from agent_graph.messages import Conversion, ensure_id, to_ai_message
from agent_graph.types import Message, MessageRole


def question(text: str = "Hi") -> Message:
    return Message(MessageRole.USER, text, {"pinned": True})


def changed_content(message: Message) -> None:
    message.content = "Ho"


def changed_metadata(message: Message) -> None:
    message.metadata["pinned"] = False


def changed_deep_inside(message: Message) -> None:
    message.metadata["calls"][0]["args"]["city"] = "Rome"


@pytest.mark.parametrize("change", [changed_content, changed_metadata, changed_deep_inside])
def test_a_changed_message_is_converted_anew_and_keeps_its_id(change: Callable[[Message], None]) -> None:
    conversion = Conversion()
    message = Message(MessageRole.USER, "Hi", {"pinned": True, "calls": [{"args": {"city": "Paris"}}]})
    [before] = conversion.to_langchain([message])
    ensure_id(before)

    change(message)
    [after] = conversion.to_langchain([message])

    assert after is not before
    assert after.id == before.id
    assert Conversion().to_spec([after]) == [message]


def test_a_backend_that_changes_what_it_is_given_changes_nothing_for_the_next_request() -> None:
    conversion = Conversion()
    history: list[BaseMessage] = [HumanMessage("Hi")]

    given = conversion.to_spec(history)
    given[0].content += " Answer in French."

    assert conversion.to_spec(history) == [Message(MessageRole.USER, "Hi")]


def test_a_copy_with_the_same_id_and_content_is_the_same_message() -> None:
    """After a checkpoint the objects are others: the history is still not converted again."""
    conversion = Conversion()
    message = HumanMessage("Hi", id="m1")
    [spec] = conversion.to_spec([message])

    assert conversion.to_spec([message.model_copy(deep=True)])[0] is spec
    assert conversion.to_spec([message.model_copy(update={"content": "Ho"})])[0].content == "Ho"


def test_a_backends_metadata_comes_back_as_the_very_object() -> None:
    answer = Message(MessageRole.ASSISTANT, "Yes", {"raw": object()})
    conversion = Conversion()
    reply = to_ai_message(answer, read_reply(answer, tool_names=(), step=1, json_content=True))

    conversion.remember(reply, answer)

    assert conversion.to_spec([reply])[0] is answer


def test_metadata_that_was_kept_is_unchanged_though_the_run_adds_to_the_reply() -> None:
    answer = Message(MessageRole.ASSISTANT, "", {"calls_of_mine": 1, "tool_call": {"name": "weather"}})
    reply = to_ai_message(answer, read_reply(answer, tool_names=(), step=2, json_content=True))
    reply.usage_metadata = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    reply.id = "msg_1"

    assert [call["id"] for call in reply.tool_calls] == ["call_2_0"]
    assert Conversion().to_spec([reply]) == [answer]


def test_calls_that_somebody_changed_since_are_written_anew() -> None:
    """A person who approves a call may edit its arguments: the backend must see the call that was made."""
    answer = Message(MessageRole.ASSISTANT, "", {"x": 1, "tool_call": {"id": "c1", "name": "pay", "args": {"amount": 9}}})
    reply = to_ai_message(answer, read_reply(answer, tool_names=(), step=1, json_content=True))

    edited = reply.model_copy(update={"tool_calls": [{**reply.tool_calls[0], "args": {"amount": 5}}]})

    assert Conversion().to_spec([edited])[0].metadata == {"x": 1, "tool_calls": [{"id": "c1", "name": "pay", "args": {"amount": 5}}]}


def test_a_reply_that_wraps_a_langchain_models_keeps_its_blocks() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "text", "text": "Yes"}]
    original = AIMessage(blocks, id="msg_1", response_metadata={"model_name": "m", "logprobs": None})
    answer = Conversion().to_spec([original])[0]

    reply = to_ai_message(answer, read_reply(answer, tool_names=(), step=1, json_content=True))

    assert (reply.content, reply.id, reply.response_metadata["logprobs"]) == (blocks, "msg_1", None)
    assert Conversion().to_spec([reply]) == [answer]


def test_what_compression_dropped_is_let_go() -> None:
    conversion = Conversion()
    for number in range(2_000):
        conversion.to_spec([HumanMessage(str(number))])

    assert len(conversion._by_spec) < 300


def test_a_history_that_grows_is_never_converted_twice() -> None:
    conversion = Conversion()
    history: list[BaseMessage] = []
    specs: list[Message] = []
    for number in range(700):
        history.append(HumanMessage(str(number)))
        now = conversion.to_spec(history)
        assert all(again is was for again, was in zip(now[:-1], specs, strict=True))
        specs = now


def test_an_id_is_made_up_only_where_there_is_none() -> None:
    assert ensure_id(HumanMessage("Hi", id="m1")).id == "m1"
    made = ensure_id(HumanMessage("Hi"))
    assert made.id is not None
    assert made.id.startswith("lc_")
    assert Conversion().to_spec([made]) == [Message(MessageRole.USER, "Hi")]


def test_an_equal_message_that_is_another_object_is_converted_on_its_own() -> None:
    conversion = Conversion()
    first = question()
    second = replace(first)

    one, two = conversion.to_langchain([first, second])

    assert one == two
    assert one is not two


@pytest.mark.parametrize("change", [{"content": "changed"}, {"metadata": {"changed": True}}], ids=["content", "metadata"])
def test_a_changed_message_is_noticed_wherever_it_stands_in_a_history_that_grows(change: dict[str, Any]) -> None:
    conversion = Conversion()
    history: list[BaseMessage] = [HumanMessage(str(number)) for number in range(4)]
    conversion.to_spec(history)
    for index in range(4):
        for name, value in change.items():
            setattr(conversion.to_spec(history)[index], name, value)
        history.append(HumanMessage(str(len(history))))

        assert conversion.to_spec(history) == [Message(MessageRole.USER, str(number)) for number in range(len(history))]
