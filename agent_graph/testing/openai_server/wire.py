"""Replies in OpenAI's two dialects, whole or as the events of a stream: pure functions from values to JSON.

Sources (read November 2026): the response and event classes of the `openai` package (3.54), which are generated from OpenAI's own
description of its API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_graph.testing.openai_server.script import Answer, Tokens, arguments_of, words

__all__ = ["Reply", "chat", "chat_stream", "problem", "responses", "responses_stream", "sse"]

CREATED = 1_795_000_000
"""The same in every reply, so that a test may compare them."""
MOST_PIECES = 40
"""Pieces in which a text is streamed, at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, about to be written."""

    number: int
    """From 1: it makes the ids."""
    model: str
    answer: Answer
    """As the output cap left it."""
    tokens: Tokens

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of each tool call."""
        return [
            (str(call.get("id") or f"call_{self.number}_{index}"), str(call["name"]), arguments_of(call))
            for index, call in enumerate(self.answer.tool_calls)
        ]

    @property
    def pieces(self) -> list[str]:
        """The text, by words or by groups of words."""
        said = words(self.answer.text)
        size = -(-len(said) // MOST_PIECES) or 1
        return ["".join(said[start : start + size]) for start in range(0, len(said), size)]


# -- chat completions ----------------------------------------------------------------------------------------------------------


def chat(reply: Reply) -> dict[str, Any]:
    """Return the body of a chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.answer.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [_chat_call(call) for call in reply.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.answer.finish_reason}
    usage = {"usage": _chat_usage(reply)} if reply.answer.usage_told else {}
    return {**_chat_frame(reply, "chat.completion"), "choices": [choice], **usage}


def chat_stream(reply: Reply, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a chat completion; usage comes last, and only if `stream_options.include_usage` asks for it."""
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    frame = _chat_frame(reply, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in reply.pieces)]
    for index, (call_id, name, arguments) in enumerate(reply.calls):
        deltas.append({"tool_calls": [{"index": index, **_chat_call((call_id, name, ""))}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": half}}]} for half in _halves(arguments)]
    for delta in deltas:
        yield {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    yield {**frame, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reply.answer.finish_reason}]}
    if asked and reply.answer.usage_told:
        yield {**frame, "choices": [], "usage": _chat_usage(reply)}


def _chat_frame(reply: Reply, kind: str) -> dict[str, Any]:
    tier = {"service_tier": reply.answer.service_tier} if reply.answer.service_tier else {}
    return {"id": f"chatcmpl-{reply.number}", "object": kind, "created": CREATED, "model": reply.model, **tier}


def _chat_call(call: tuple[str, str, str]) -> dict[str, Any]:
    return {"id": call[0], "type": "function", "function": {"name": call[1], "arguments": call[2]}}


def _chat_usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    read = {"cached_tokens": tokens.cache_read, "audio_tokens": tokens.audio_input}
    written = {"cache_write_tokens": tokens.cache_write} if tokens.cache_write else {}
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {**read, **written},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": tokens.audio_output},
        **reply.answer.usage_extra,
    }


def _halves(text: str) -> list[str]:
    return [half for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]


# -- responses -----------------------------------------------------------------------------------------------------------------


def responses(reply: Reply) -> dict[str, Any]:
    """Return the body of a response."""
    is_cut = reply.answer.finish_reason == "length"
    return {
        **_response_frame(reply, "incomplete" if is_cut else "completed"),
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": [_item(reply, index, done=True) for index in range(_items(reply))],
        "usage": _responses_usage(reply) if reply.answer.usage_told else None,
    }


def responses_stream(reply: Reply) -> Iterator[dict[str, Any]]:
    """Yield the events of a response."""
    for number, event in enumerate(_events(reply)):
        yield {**event, "sequence_number": number}


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    whole = responses(reply)
    yield {"type": "response.created", "response": _response_frame(reply, "in_progress")}
    for index in range(_items(reply)):
        yield {"type": "response.output_item.added", "output_index": index, "item": _item(reply, index, done=False)}
        done = _item(reply, index, done=True)
        yield from _text_events(reply, index, done) if done["type"] == "message" else _call_events(index, done)
        yield {"type": "response.output_item.done", "output_index": index, "item": done}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _text_events(reply: Reply, index: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": _text_part("")}
    for piece in reply.pieces:
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": reply.answer.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _text_part(reply.answer.text)}


def _call_events(index: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    for half in _halves(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": half}
    yield {"type": "response.function_call_arguments.done", **place, "name": item["name"], "arguments": item["arguments"]}


def _response_frame(reply: Reply, status: str) -> dict[str, Any]:
    tier = {"service_tier": reply.answer.service_tier} if reply.answer.service_tier else {}
    nothing = dict.fromkeys(("error", "incomplete_details", "instructions", "usage", "temperature", "top_p"))
    frame = {"id": f"resp_{reply.number}", "object": "response", "created_at": CREATED, "status": status, "model": reply.model}
    return {**frame, **nothing, **tier, "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {}}


def _items(reply: Reply) -> int:
    return bool(reply.answer.text) + len(reply.calls)


def _item(reply: Reply, index: int, *, done: bool) -> dict[str, Any]:
    status = "completed" if done else "in_progress"
    if reply.answer.text and index == 0:
        content = [_text_part(reply.answer.text)] if done else []
        return {"type": "message", "id": f"msg_{reply.number}", "status": status, "role": "assistant", "content": content}
    call_id, name, arguments = reply.calls[index - bool(reply.answer.text)]
    named = {"type": "function_call", "id": f"fc_{reply.number}_{index}", "call_id": call_id, "name": name}
    return {**named, "arguments": arguments if done else "", "status": status}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _responses_usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    written = {"cache_write_tokens": tokens.cache_write} if tokens.cache_write else {}
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, **written},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
        **reply.answer.usage_extra,
    }


def sse(event: Mapping[str, Any]) -> bytes:
    """Return an event of a stream as it goes over the wire."""
    named = f"event: {event['type']}\n" if "type" in event else ""
    return f"{named}data: {json.dumps(event)}\n\n".encode()


# -- what OpenAI would refuse --------------------------------------------------------------------------------------------------


def problem(body: Mapping[str, Any]) -> str | None:
    """Return why OpenAI would answer this request with 400: no messages, a tool call without its result, a result without its call."""
    items = body.get("messages", body.get("input"))
    if not body.get("model") or not items:
        return "the request needs a model and a conversation."
    if isinstance(items, str):
        return None
    open_calls: list[str] = []
    for item in items:
        answered = item.get("tool_call_id") if item.get("role") == "tool" else None
        answered = item.get("call_id") if item.get("type") == "function_call_output" else answered
        if answered is not None:
            if answered not in open_calls:
                return f"the tool result {answered!r} answers no tool call before it."
            open_calls.remove(answered)
            continue
        asked = _asked(item)
        if open_calls and not (asked and item.get("type") == "function_call"):
            break
        open_calls += asked
    return f"the tool calls {', '.join(map(repr, open_calls))} have no results right behind them." if open_calls else None


def _asked(item: Mapping[str, Any]) -> Sequence[str]:
    if item.get("type") == "function_call":
        return [item["call_id"]]
    return [call["id"] for call in item.get("tool_calls") or ()]
