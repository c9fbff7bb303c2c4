"""One reply, about to be written in either dialect.

Sources (read November 2026): the response and event classes of the `openai` package (3.54), which are generated from OpenAI's own
description of its API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_graph.testing.openai_server.script import Answer, Tokens, arguments_of, words

__all__ = ["CREATED", "MOST_PIECES", "Reply", "halves", "sse"]

CREATED = 1_795_000_000
"""The same in every reply, so that a test may compare them."""
MOST_PIECES = 40
"""Pieces in which a text is streamed, at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply."""

    number: int
    """From 1: it makes the ids."""
    model: str
    answer: Answer
    """As the output cap left it."""
    tokens: Tokens
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The request that it answers."""

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of each tool call."""
        return [
            (str(call.get("id") or f"call_{self.number}_{index}"), str(call["name"]), arguments_of(call))
            for index, call in enumerate(self.answer.tool_calls)
        ]

    @property
    def pieces(self) -> list[str]:
        """The text, or what is said instead, by words or by groups of words."""
        said = words(self.answer.text if self.answer.refusal is None else self.answer.refusal)
        size = -(-len(said) // MOST_PIECES) or 1
        return ["".join(said[start : start + size]) for start in range(0, len(said), size)]


def halves(text: str) -> list[str]:
    """Return the two parts in which a stream gives `text`, without empty ones."""
    return [half for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]


def sse(event: Mapping[str, Any]) -> bytes:
    """Return an event of a stream as it goes over the wire."""
    named = f"event: {event['type']}\n" if "type" in event else ""
    return f"{named}data: {json.dumps(event)}\n\n".encode()
