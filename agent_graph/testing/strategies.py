"""Hypothesis strategies: messages, conversations whose pairs are valid, JSON values, usages, run_ids.

Importing this module needs Hypothesis (`pip install hypothesis`). The functions are cached: a strategy that is made anew for each
draw is validated anew, which made conversations eight times as slow to draw.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from agent_graph.errors import optional
from agent_graph.types import Message, MessageRole, ToolCall

with optional(__name__):
    from hypothesis import strategies as st

__all__ = ["conversations", "json_values", "messages", "run_ids", "texts", "tool_calls", "usages"]


@cache
def texts(*, max_size: int = 40) -> st.SearchStrategy[str]:
    """Any text that JSON and a database can hold: no lone surrogates."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size)


@cache
def json_values(*, max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Any strict JSON value: no NaN, no infinity, whole numbers of 64 bits."""
    whole = st.integers(min_value=-(2**63), max_value=2**63 - 1)
    leaves = st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(max_size=10), inner, max_size=4),
        max_leaves=max_leaves,
    )


@cache
def _objects() -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(texts(max_size=10), json_values(max_leaves=4), max_size=3)


@cache
def run_ids() -> st.SearchStrategy[str]:
    """Any string that may name a run: 1-255 characters, no control characters, no lone surrogates."""
    return st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255)


@cache
def usages() -> st.SearchStrategy[dict[str, Any]]:
    """Usage as a reply reports it, with details that fit into their sums."""

    @st.composite
    def usage(draw: st.DrawFn) -> dict[str, Any]:
        sent, received = draw(st.integers(0, 1_000_000)), draw(st.integers(0, 100_000))
        read = draw(st.integers(0, sent))
        details = {"cache_read": read, "cache_creation": draw(st.integers(0, sent - read))}
        return {
            "input_tokens": sent,
            "output_tokens": received,
            "total_tokens": sent + received,
            "input_token_details": details,
            "output_token_details": {"reasoning": draw(st.integers(0, received))},
        }

    return usage()


_names = st.sampled_from(["weather", "search", "calculator", "send_email"])


@cache
def tool_calls() -> st.SearchStrategy[ToolCall]:
    """Calls that have finished, with a result or an error."""
    return st.builds(
        ToolCall,
        tool_name=_names,
        args=_objects(),
        call_id=st.uuids().map(lambda value: f"call_{value.hex}"),
        result=json_values(),
        error=st.none() | texts(),
        latency_ms=st.floats(0, 60_000),
    )


@cache
def messages(*, roles: tuple[MessageRole, ...] = (MessageRole.USER, MessageRole.ASSISTANT)) -> st.SearchStrategy[Message]:
    """Single messages without tool calls; `metadata` holds any JSON object under names of its own."""
    extra = st.dictionaries(texts(max_size=8).map(lambda name: f"x_{name}"), json_values(max_leaves=4), max_size=2)
    return st.builds(Message, role=st.sampled_from(roles), content=texts(max_size=200), metadata=extra)


@cache
def conversations(*, max_rounds: int = 5, system: bool = True) -> st.SearchStrategy[list[Message]]:
    """Conversations as providers accept them: each tool call is answered, directly after its reply, in order; ids are never reused.

    `system`: whether a system message may come first.
    """

    @st.composite
    def conversation(draw: st.DrawFn) -> list[Message]:
        said: list[Message] = []
        if system and draw(st.booleans()):
            said.append(draw(messages(roles=(MessageRole.SYSTEM,))))
        for number in range(draw(st.integers(0, max_rounds))):
            said += draw(_round(number))
        return said

    return conversation()


@st.composite
def _round(draw: st.DrawFn, number: int) -> list[Message]:
    """Draw a question, replies that call tools, with the tools' answers, and mostly a final answer."""
    said = [draw(messages(roles=(MessageRole.USER,)))]
    for reply in range(draw(st.integers(0, 2))):
        entries = [
            {"id": f"call_{number}_{reply}_{index}", "name": draw(_names), "args": draw(_objects())}
            for index in range(draw(st.integers(1, 3)))
        ]
        said.append(Message(MessageRole.ASSISTANT, draw(texts()), {"tool_calls": entries}))
        said += [Message(MessageRole.TOOL, draw(texts()), {"tool_call_id": entry["id"], "name": entry["name"]}) for entry in entries]
    if draw(st.integers(0, 4)):
        said.append(draw(messages(roles=(MessageRole.ASSISTANT,))))
    return said
