"""When the list is compressed, what is kept, and that nothing breaks on the way: tables, then properties over whole conversations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.decisions.compression import (
    Compressed,
    apply_cuts,
    assemble,
    fallback_summary,
    limit_of,
    needed,
    plan,
    summary_prompt,
)
from agent_graph.decisions.pairing import View, repairs
from agent_graph.decisions.tokens import estimate_message, estimate_messages, estimate_text
from agent_graph.types import Message, MessageRole

Count = Callable[[list[Message]], int]


def system(text: str = "You are helpful.") -> Message:
    return Message(MessageRole.SYSTEM, text)


def user(text: str, **metadata: Any) -> Message:
    return Message(MessageRole.USER, text, metadata)


def says(text: str, **metadata: Any) -> Message:
    return Message(MessageRole.ASSISTANT, text, metadata)


def calls(*ids: str, text: str = "", **metadata: Any) -> Message:
    return says(text, tool_calls=[{"id": id_, "name": "look_up", "args": {"q": id_}} for id_ in ids], **metadata)


def result(id_: str, text: str, **metadata: Any) -> Message:
    return Message(MessageRole.TOOL, text, {"tool_call_id": id_, "name": "look_up", **metadata})


def words(messages: list[Message]) -> int:
    """A counter that is easy to reckon with: a token a word."""
    return sum(len(message.content.split()) for message in messages)


def length(message: Message) -> int:
    return words([message])


def text(n: int) -> str:
    return " ".join(f"w{index}" for index in range(n))


def compressed(
    messages: list[Message], limit: int, summary: str | None = "in short", count: Count = words, task: int | None = None
) -> Compressed:
    return assemble(plan(messages, count=count, size=lambda one: count([one]), limit=limit, task=task), summary, count=count)


# --- when ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "threshold", "window", "over"),
    [
        (100, 100, None, False),
        (101, 100, None, True),
        (10**9, None, None, False),
        (900, None, 1_000, False),
        (901, None, 1_000, True),
        (901, 5_000, 1_000, True),
        (101, 100, 1_000, True),
        (1, 0, None, True),
        (0, 0, 0, False),
        (9, None, 11, False),
        (10, None, 11, True),
    ],
)
def test_over_is_above_the_threshold_or_nine_tenths_of_the_window(
    count: int, threshold: int | None, window: int | None, over: bool
) -> None:
    assert needed(count, threshold, window) is over


@pytest.mark.parametrize(
    ("threshold", "window", "limit"), [(None, None, None), (100, None, 100), (None, 1_000, 900), (100, 1_000, 100), (5_000, 1_000, 900)]
)
def test_the_limit_is_the_smaller_of_both(threshold: int | None, window: int | None, limit: int | None) -> None:
    assert limit_of(threshold, window) == limit


# --- what is kept ------------------------------------------------------------------------------------------------------------


def conversation() -> list[Message]:
    """Three rounds of 44 words, after a task: 139 words."""
    rounds = [message for n in range(3) for message in (calls(f"c{n}", text=text(4)), result(f"c{n}", text(40)))]
    return [system("be kind"), user("find the answer please now"), *rounds]


def test_the_oldest_rounds_become_one_summary_and_the_newest_stay_whole() -> None:
    messages = conversation()
    shorter = compressed(messages, limit=130)
    assert shorter.problem is None
    assert shorter.tokens == words(shorter.messages) <= 130
    kept = shorter.messages
    assert kept[0] is messages[0]
    assert kept[1] is messages[1]
    assert kept[2].metadata == {"summary": True}
    assert kept[2].content.endswith("in short")
    assert [id(message) for message in kept[-2:]] == [id(message) for message in messages[-2:]]


def test_an_oversized_result_is_cut_before_anything_is_summarised() -> None:
    messages = [system(), user("look it up"), calls("c1"), result("c1", text(1_000)), calls("c2"), result("c2", text(20))]
    chosen = plan(messages, count=words, size=length, limit=400)
    assert chosen.to_summarise == []
    shorter = assemble(chosen, None, count=words)
    assert shorter.problem is None
    assert len(shorter.messages) == len(messages)
    cut = shorter.messages[3]
    assert cut.content.startswith("w0 w1")
    assert cut.content.endswith("w998 w999")
    assert "characters were cut" in cut.content
    assert cut.metadata == messages[3].metadata
    assert words([cut]) <= 100
    assert messages[3].content == text(1_000)


def test_compression_leaves_room_for_the_next_steps() -> None:
    """Without hysteresis the list is over again at the next step, and a summary is paid for at each."""
    messages = [system(), user("go on"), *(message for n in range(30) for message in (calls(f"c{n}"), result(f"c{n}", text(30))))]
    shorter = compressed(messages, limit=600)
    assert shorter.tokens <= 0.6 * 600
    assert not needed(shorter.tokens + 200, 600, None)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(system("a second system message"), id="system"),
        pytest.param(user("never forget this", pinned=True), id="pinned user message"),
        pytest.param(says("I promise", pinned=True), id="pinned reply"),
    ],
)
def test_what_is_never_summarised(kept: Message) -> None:
    messages = [system(), user(text(50)), says(text(50)), kept, says(text(50)), user("and now?")]
    shorter = compressed(messages, limit=60)
    assert shorter.problem is None
    assert any(message is kept for message in shorter.messages)
    assert any(message is messages[-1] for message in shorter.messages)


def test_a_pinned_result_keeps_its_whole_round_and_is_not_cut() -> None:
    messages = [user("old"), calls("p", "q"), result("p", text(60), pinned=True), result("q", text(60)), says(text(300)), user("task")]
    kept = compressed(messages, limit=200).messages
    assert any(message is messages[2] for message in kept)
    assert [message.metadata.get("tool_call_id") for message in kept if message.role is MessageRole.TOOL] == ["p", "q"]


def test_the_task_is_the_last_user_message_unless_it_is_told() -> None:
    messages = [user("the task"), says(text(100)), user("try again, politely"), says(text(100)), calls("c"), result("c", text(5))]
    last, told = (compressed(messages, limit=80, task=task).messages for task in (None, 0))
    assert messages[2] in last
    assert messages[0] not in last
    assert messages[0] in told
    assert messages[2] not in told


def test_an_older_summary_is_neither_task_nor_kept_but_part_of_the_next_one() -> None:
    earlier = user("Summary: the sky is blue.", summary=True)
    messages = [earlier, says(text(100)), calls("c"), result("c", text(10))]
    chosen = plan(messages, count=words, size=length, limit=60)
    assert earlier in chosen.to_summarise


def test_kept_thinking_blocks_are_the_very_same() -> None:
    thought = calls("c", langchain={"content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]})
    messages = [user(text(200)), user("task"), thought, result("c", text(10))]
    assert any(message is thought for message in compressed(messages, limit=100).messages)


@pytest.mark.parametrize("limit", range(40, 70, 3))
def test_answers_without_ids_stay_with_their_call(limit: int) -> None:
    """A backend of the specification may leave ids out; its results are then known by where they stand."""
    call, answer = says(text(10), tool_call={"name": "f", "args": {}}), Message(MessageRole.TOOL, text(5))
    kept = compressed([user("task"), *([call, answer] * 8)], limit=limit).messages
    assert [message.role for message in kept[2:]] == [MessageRole.ASSISTANT, MessageRole.TOOL] * (len(kept) // 2 - 1)


@pytest.mark.parametrize("limit", range(60, 120, 6))
def test_an_answer_that_stands_elsewhere_is_not_parted_from_its_call(limit: int) -> None:
    messages = [user(text(80)), calls("a", text=text(10)), user(text(10)), result("a", text(10)), says(text(10)), user("task")]
    kept = compressed(messages, limit=limit).messages
    assert (messages[1] in kept) == (messages[3] in kept)


class Pasted(Enum):
    """The specification's starter code, pasted instead of imported."""

    SYSTEM = "system"
    USER = "user"
    TOOL = "tool"


@pytest.mark.parametrize("role", [Pasted.SYSTEM, "system"], ids=["pasted", "text"])
def test_roles_are_known_by_their_word(role: Any) -> None:
    prompt = Message(role, "be kind")
    messages = [prompt, says(text(100)), user("task")]
    assert compressed(messages, limit=50).messages[0] is prompt


# --- when it cannot be -------------------------------------------------------------------------------------------------------


def test_a_list_that_cannot_be_made_small_enough_says_so() -> None:
    messages = [system(text(100)), user(text(100)), says(text(100)), user("task")]
    shorter = compressed(messages, limit=50)
    assert shorter.problem is not None
    assert shorter.problem.startswith("compression_threshold: ")
    assert words(shorter.messages) == shorter.tokens < words(messages)


def test_nothing_to_gain_gives_the_very_list_back() -> None:
    messages = [system(text(100)), user("task")]
    shorter = compressed(messages, limit=50)
    assert shorter.messages is messages
    assert shorter.problem is not None


@pytest.mark.parametrize("stuck", [10_000, 10**9])
def test_a_counter_that_never_falls_stops_it_after_one_pass(stuck: int) -> None:
    messages, asked = conversation(), 0

    def count(_: list[Message]) -> int:
        nonlocal asked
        asked += 1
        return stuck

    shorter = compressed(messages, limit=100, count=count)
    assert shorter.messages is messages
    assert shorter.problem is not None
    assert asked < 2_000


def test_results_are_cut_harder_where_the_newest_round_is_too_large() -> None:
    messages = [user("task"), calls("a", "b", "c", "d", "e", "f"), *(result(id_, text(100)) for id_ in "abcdef")]
    shorter = compressed(messages, limit=200)
    assert shorter.problem is None
    assert len(shorter.messages) == len(messages)


# --- the summary ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("summary", [None, "", "  \n"], ids=repr)
def test_without_a_summary_there_is_a_deterministic_one(summary: str | None) -> None:
    messages = [user("task"), *(message for n in range(9) for message in (calls(f"c{n}"), result(f"c{n}", text(90))))]
    first, second = (compressed(messages, limit=750, summary=summary) for _ in range(2))
    assert first == second
    assert "tool look_up: w0 w1" in first.messages[1].content
    assert first.problem is None


def test_a_summary_that_is_too_long_is_cut() -> None:
    shorter = compressed(conversation(), limit=130, summary=text(5_000))
    assert shorter.problem is None
    assert "characters were cut" in shorter.messages[2].content


def test_what_is_smaller_than_any_summary_stays_as_it_is() -> None:
    messages = [system(text(40)), says("a b c"), user("task"), calls("c"), result("c", text(1_000))]
    shorter = compressed(messages, limit=100, summary="more words than there were")
    assert shorter.problem is None
    assert shorter.messages[:4] == messages[:4]


def test_what_cannot_even_be_summed_up_is_left_out() -> None:
    """A counter that charges by the message: the summary itself would be one too many."""
    messages = [system(), *(says("hello") for _ in range(7)), user("task")]

    def by_message(some: list[Message]) -> int:
        return 100 * len(some)

    shorter = compressed(messages, limit=250, count=by_message)
    assert shorter.problem is None
    assert shorter.messages == [messages[0], messages[-1]]


def test_the_fallback_names_calls_and_keeps_both_ends() -> None:
    messages = [user("find Paris"), calls("c1"), result("c1", "sunny"), *(says(text(100)) for _ in range(50)), says("the last word")]
    whole = fallback_summary(messages, 100_000)
    assert whole.splitlines()[:3] == ["user: find Paris", 'assistant: calls look_up({"q":"c1"})', "tool look_up: sunny"]
    short = fallback_summary(messages, 200)
    assert estimate_text(short) <= 200
    assert short.startswith("user: find Paris")
    assert short.endswith("the last word")
    assert "messages ...]" in short


def test_the_fallback_of_very_much_in_very_little_is_a_mark() -> None:
    assert fallback_summary([says(text(100)) for _ in range(50)], 1) == "[... 50 messages ...]"


def test_the_question_for_a_summary_holds_the_conversation_and_its_size() -> None:
    prompt = summary_prompt(conversation()[1:4], 300)
    assert [message.role for message in prompt] == [MessageRole.SYSTEM, MessageRole.USER]
    assert "at most 200 words" in prompt[0].content
    assert "user: find the answer please now" in prompt[1].content
    assert text(40) in prompt[1].content
    assert not any(message.metadata for message in prompt)


def test_the_question_keeps_within_its_room() -> None:
    prompt = summary_prompt([result("c", text(50_000)), says("and then")], 300, room=2_000)
    assert estimate_messages(prompt[1:]) < 2_100
    assert "and then" in prompt[1].content


# --- cuts ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spared",
    [result("c", text(50)), result("c", text(500), pinned=True), says(text(500)), user(text(500)), system(text(500))],
    ids=["within", "pinned", "reply", "user", "system"],
)
def test_only_oversized_results_that_are_not_pinned_are_cut(spared: Message) -> None:
    assert apply_cuts([spared], size=length, max_tokens=100)[0] is spared


@given(content=st.text(max_size=3_000), max_tokens=st.integers(1, 200))
def test_a_cut_result_is_never_larger(content: str, max_tokens: int) -> None:
    message = result("c", content)
    cut = apply_cuts([message], size=estimate_message, max_tokens=max_tokens)[0]
    assert estimate_messages([cut]) <= estimate_messages([message])
    assert len(cut.content) <= len(content)


# --- promises --------------------------------------------------------------------------------------------------------------------

COUNTERS: dict[str, Count] = {
    "estimate": estimate_messages,
    "words": words,
    "characters": lambda messages: sum(len(message.content) for message in messages),
    "by message": lambda messages: 50 * len(messages),
    "overhead": lambda messages: 200 + sum(len(message.content) // 4 + 7 for message in messages),
    "stuck": lambda messages: 5_000,
}


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A system prompt, then turns: texts, rounds of one to three calls, some messages pinned."""

    def some_text() -> str:
        return text(draw(st.sampled_from([0, 1, 5, 20, 80, 400])))

    def about() -> dict[str, Any]:
        return {"pinned": True} if draw(st.integers(0, 9)) == 0 else {}

    messages = [system(some_text())] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["user", "reply", "round", "round"]))
        if kind == "user":
            messages.append(user(some_text(), **about()))
        elif kind == "reply":
            messages.append(says(some_text(), **about()))
        else:
            ids = [f"c{number}_{index}" for index in range(draw(st.integers(1, 3)))]
            messages += [calls(*ids, text=some_text(), **about()), *(result(id_, some_text(), **about()) for id_ in ids)]
    return messages


def view(message: Message) -> View:
    ids = tuple(call["id"] for call in message.metadata.get("tool_calls", ()))
    return View(role=message.role.value, calls=ids, answers=message.metadata.get("tool_call_id"))


@given(
    messages=conversations(),
    limit=st.integers(1, 1_500),
    summary=st.none() | st.sampled_from(["", "in short", text(30), text(3_000)]),
    counter=st.sampled_from(sorted(COUNTERS)),
)
def test_compression_keeps_its_promises(messages: list[Message], limit: int, summary: str | None, counter: str) -> None:
    count, before = COUNTERS[counter], copy.deepcopy(messages)
    shorter = compressed(messages, limit, summary, count)
    kept = shorter.messages

    assert messages == before, "nothing that came in is changed"
    assert shorter.tokens == count(kept)
    assert (shorter.tokens > limit) == (shorter.problem is not None), "under the limit, or it says that it cannot be"
    assert kept is messages or shorter.tokens < count(messages), "never larger; the very list where nothing was gained"
    assert not repairs([view(message) for message in kept]), "no call without its answer, no answer without its call"

    for message in messages:
        if message.role is MessageRole.SYSTEM or message.metadata.get("pinned"):
            assert any(message is other for other in kept), "the system prompt and pinned messages stay"
    task = next((message for message in reversed(messages) if message.role is MessageRole.USER), None)
    assert task is None or any(task is other for other in kept), "the task stays"
    assert view(kept[-1]) == view(messages[-1]), "the newest round stays"

    places = {id(message): at for at, message in enumerate(messages)}
    order = [places[id(message)] for message in kept if id(message) in places]
    assert order == sorted(order), "what is kept stays in order"
    assert sum(bool(message.metadata.get("summary")) for message in kept) <= 1


# --- beside what cannot be made smaller --------------------------------------------------------------------------------------


@pytest.mark.parametrize("definitions", [0, 300, 3_000])
def test_what_goes_with_every_list_takes_nothing_from_a_summary_or_a_result(definitions: int) -> None:
    """Thirty tools' definitions were counted with each single message: summaries and results were cut to nothing."""

    def count(messages: list[Message]) -> int:
        return definitions + words(messages)

    rounds = [message for at in range(6) for message in (calls(f"c{at}"), result(f"c{at}", text(100)))]
    messages = [system(), user("the task"), *rounds]
    chosen = plan(messages, count=count, size=length, limit=definitions + 400)
    shorter = assemble(chosen, text(60), count=count)
    assert shorter.problem is None
    assert [length(message) for message in shorter.messages if message.metadata.get("summary")] == [60 + 5]
    assert [length(message) for message in shorter.messages if message.role is MessageRole.TOOL] == [56, 100]
