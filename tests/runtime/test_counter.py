"""The counter of a LangChain model's messages: whatever was counted before, a list has one estimate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_graph import Message, MessageRole
from agent_graph.decisions.tools import read_tools
from agent_graph.runtime.counter import Counter, Learned

TOOLS = read_tools([{"name": "weather", "description": "Weather in a city."}])


@given(st.lists(st.tuples(st.sampled_from(["append", "drop", "change", "replace"]), st.text(max_size=20))))
def test_a_list_that_grew_shrank_or_changed_is_counted_as_if_it_were_new(changes: list[tuple[str, str]]) -> None:
    counter, learned, messages = Counter(None, TOOLS), Learned(), list[Message]()
    for change, text in changes:
        if change == "append" or not messages:
            messages.append(Message(MessageRole.USER, text))
        elif change == "drop":
            messages.pop(len(text) % len(messages))
        elif change == "change":
            messages[len(text) % len(messages)].content = text
        else:
            messages[len(text) % len(messages)] = Message(MessageRole.USER, text)
        assert counter.count(messages, learned) == counter.count(messages, None)
