"""What a request asks for, and why OpenAI would refuse it: pure functions from its body.

Checked is what every client gets wrong sooner or later: a conversation that cannot be (a tool call without its result), and fields of
the wrong type among those that the server reads. Not checked is whether each field of a request exists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from agent_graph.testing.openai_server.script import Refusal, Tokens, count, error_body

__all__ = ["Api", "ServedRequest", "cap_of", "choices_of", "conversation", "input_tokens", "wrong"]

Api: TypeAlias = Literal["chat", "responses"]
_ITEMS: Mapping[Api, str] = {"chat": "messages", "responses": "input"}
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_COUNTS = (*_CAPS, "n")


@dataclass(slots=True, kw_only=True)
class ServedRequest:
    """One request of the log, in the order of arrival."""

    api: Api
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in small letters."""
    status: int | None = None
    """As it was answered; None while it is not."""
    tokens: Tokens | None = None
    """What was billed; None: nothing."""
    cost_usd: Decimal = Decimal(0)
    """By the server's own prices; 0 without."""


def conversation(api: Api, body: Mapping[str, Any]) -> Any:
    """Return the messages, or the input, of a request."""
    return body.get(_ITEMS[api])


def cap_of(body: Mapping[str, Any]) -> int | None:
    """Return the output cap, under whichever of its names."""
    return next((body[key] for key in _CAPS if body.get(key)), None)


def choices_of(api: Api, body: Mapping[str, Any]) -> int:
    """Return how many replies are asked for at once."""
    return (body.get("n") or 1) if api == "chat" else 1


def input_tokens(api: Api, body: Mapping[str, Any]) -> int:
    """Return the words of what is sent, tool definitions included, and one for each message."""
    said = conversation(api, body) or []
    return count(json.dumps([said, body.get("instructions"), body.get("tools")], ensure_ascii=False)) + len(said)


def wrong(api: Api, body: Mapping[str, Any], thoughts: Mapping[str, str] | None = None) -> Refusal | None:
    """Return how OpenAI would refuse this request; None where it would not.

    `thoughts`: the reasoning that led to an item of an earlier response, by its id.
    """
    return _wrong_fields(api, body) or _wrong_conversation(_ITEMS[api], conversation(api, body), thoughts or {})


def _refused(message: str, param: str | None, code: str | None = None) -> Refusal:
    return Refusal(400, error_body(400, message, code=code, param=param))


def _wrong_fields(api: Api, body: Mapping[str, Any]) -> Refusal | None:
    items = _ITEMS[api]
    if not isinstance(body.get("model"), str) or not body["model"]:
        return _refused("You must provide a model parameter, a text.", "model")
    if items not in body and not (api == "responses" and body.get("previous_response_id")):
        return _refused(f"Missing required parameter: {items!r}.", items, "missing_required_parameter")
    for name in _COUNTS:
        if body.get(name) is not None and (type(body[name]) is not int or body[name] < 1):
            return _refused(f"Invalid {name!r}: a whole number, one or more, is due, not {body[name]!r}.", name, "invalid_value")
    for name, kind, due in (("stream", bool, "a boolean"), ("stream_options", Mapping, "an object"), ("include", list, "an array")):
        if body.get(name) is not None and not isinstance(body[name], kind):
            return _refused(f"Invalid type for {name!r}: {due} is due, not {body[name]!r}.", name, "invalid_type")
    return None


def _wrong_conversation(name: str, items: Any, thoughts: Mapping[str, str]) -> Refusal | None:
    if name == "input" and (items is None or isinstance(items, str)):
        return None
    if not isinstance(items, list):
        return _refused(f"Invalid type for {name!r}: an array of objects is due, not {items!r}.", name, "invalid_type")
    if not items:
        return _refused(f"Invalid {name!r}: empty array; one with at least one message is due.", name, "empty_array")
    for at, item in enumerate(items):
        if problem := _problem_of(item):
            return _refused(f"Invalid {name}[{at}]: {problem}", f"{name}[{at}]", "invalid_value")
    text = _unpaired(items) or _thoughtless(items, thoughts)
    return None if text is None else _refused(text, name)


def _problem_of(item: Any) -> str | None:
    """Return what is wrong with one message or item, of the parts that pairing reads."""
    if not isinstance(item, Mapping):
        return f"an object is due, not {item!r}."
    if "role" not in item and not isinstance(item.get("type"), str):
        return "it has no role."
    if "role" in item and item["role"] not in _ROLES:
        return f"{item['role']!r} is no role."
    calls = item.get("tool_calls")
    if not isinstance(calls, list | None) or not all(isinstance(call, Mapping) and isinstance(call.get("id"), str) for call in calls or ()):
        return "its tool_calls are no array of objects with an id."
    if item.get("type") in ("function_call", "function_call_output") and not isinstance(item.get("call_id"), str):
        return "it has no call_id."
    if item.get("role") == "tool" and not isinstance(item.get("tool_call_id"), str):
        return "it has no tool_call_id."
    return None


def _unpaired(items: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what is wrong with tool calls and their results."""
    open_calls: list[str] = []
    for item in items:
        answered = item["tool_call_id"] if item.get("role") == "tool" else None
        answered = item["call_id"] if item.get("type") == "function_call_output" else answered
        if answered is not None:
            if answered not in open_calls:
                return f"The tool result {answered!r} answers no tool call before it."
            open_calls.remove(answered)
            continue
        if open_calls and item.get("type") not in ("function_call", "reasoning"):
            break
        open_calls += _asked(item)
    return f"The tool calls {', '.join(map(repr, open_calls))} have no results right behind them." if open_calls else None


def _thoughtless(items: Sequence[Mapping[str, Any]], thoughts: Mapping[str, str]) -> str | None:
    """Return what is wrong with reasoning items: one goes with what it led to, and the other way round."""
    seen: set[str] = set()
    for item, following in zip(items, [*items[1:], None], strict=True):
        name = str(item.get("id"))
        if item.get("type") == "reasoning":
            seen.add(name)
            leads = following is not None and (
                following.get("type") in ("reasoning", "function_call") or following.get("role") == "assistant"
            )
            if not leads:
                return f"Item {name!r} of type 'reasoning' was provided without its required following item."
        elif thoughts.get(name, name) not in (name, *seen):
            return f"Item {name!r} of type {item.get('type')!r} was provided without its required 'reasoning' item: {thoughts[name]!r}."
    return None


def _asked(item: Mapping[str, Any]) -> Sequence[str]:
    if item.get("type") == "function_call":
        return [item["call_id"]]
    return [call["id"] for call in item.get("tool_calls") or ()]
