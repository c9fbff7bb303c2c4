"""Replies as responses, whole or as the events of a stream: pure functions from values to JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent_graph.testing.openai_server.reply import CREATED, Reply, halves
from agent_graph.testing.openai_server.script import FAILED

__all__ = ["failed", "stream", "stream_error", "stream_failed", "whole"]

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the finish reason of a chat completion."""
_DEFAULTS: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says of what was not asked."""


def whole(reply: Reply) -> dict[str, Any]:
    """Return the body of a response."""
    reason = _CUT.get(reply.answer.finish_reason or "")
    return {
        **_frame(reply, "incomplete" if reason else "completed"),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [_item(reply, index, done=True) for index in range(len(_kinds(reply)))],
        "usage": _usage(reply) if reply.answer.usage_told else None,
    }


def failed(reply: Reply) -> dict[str, Any]:
    """Return the body of a response that failed; its HTTP status is 200 all the same."""
    return {**_frame(reply, "failed"), "error": {"code": reply.answer.error_code, "message": FAILED}}


def stream(reply: Reply) -> Iterator[dict[str, Any]]:
    """Yield the events of a response."""
    for number, event in enumerate(_events(reply)):
        yield {**event, "sequence_number": number}


def stream_error(reply: Reply, number: int) -> dict[str, Any]:
    """Return the event that says inside a stream that it failed, as the event `number` of it."""
    return {"type": "error", "code": reply.answer.error_code, "message": FAILED, "param": None, "sequence_number": number}


def stream_failed(reply: Reply, number: int) -> dict[str, Any]:
    """Return the event that ends the stream of a response that failed."""
    return {"type": "response.failed", "response": failed(reply), "sequence_number": number}


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    body = whole(reply)
    yield {"type": "response.created", "response": _frame(reply, "in_progress")}
    yield {"type": "response.in_progress", "response": _frame(reply, "in_progress")}
    for index, done in enumerate(body["output"]):
        yield {"type": "response.output_item.added", "output_index": index, "item": _item(reply, index, done=False)}
        if done["type"] == "message":
            yield from _text_events(reply, index, done)
        elif done["type"] == "function_call":
            yield from _call_events(index, done)
        yield {"type": "response.output_item.done", "output_index": index, "item": done}
    yield {"type": f"response.{body['status']}", "response": body}


def _text_events(reply: Reply, index: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    refused = reply.answer.refusal is not None
    said: dict[str, Any] = {} if refused else {"logprobs": []}
    kind, key = ("response.refusal", "refusal") if refused else ("response.output_text", "text")
    yield {"type": "response.content_part.added", **place, "part": {**item["content"][0], key: ""}}
    for piece in reply.pieces:
        yield {"type": f"{kind}.delta", **place, "delta": piece, **said}
    yield {"type": f"{kind}.done", **place, key: item["content"][0][key], **said}
    yield {"type": "response.content_part.done", **place, "part": item["content"][0]}


def _call_events(index: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    for half in halves(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": half}
    yield {"type": "response.function_call_arguments.done", **place, "name": item["name"], "arguments": item["arguments"]}


def _frame(reply: Reply, status: str) -> dict[str, Any]:
    frame = {"id": f"resp_{reply.number}", "object": "response", "created_at": CREATED, "status": status, "model": reply.model}
    tier = {"service_tier": reply.answer.service_tier} if reply.answer.service_tier else {}
    asked = {key: default if (value := reply.body.get(key)) is None else value for key, default in _DEFAULTS.items()}
    return {**frame, **tier, **asked, "error": None, "incomplete_details": None, "output": [], "usage": None}


def _kinds(reply: Reply) -> list[tuple[str, int]]:
    """Return what the output consists of: a kind each, and for tool calls their number."""
    thought = [("reasoning", 0)] if reply.tokens.reasoning else []
    said = [("message", 0)] if reply.answer.text or reply.answer.refusal is not None else []
    return [*thought, *said, *(("function_call", index) for index in range(len(reply.calls)))]


def _item(reply: Reply, index: int, *, done: bool) -> dict[str, Any]:
    kind, number = _kinds(reply)[index]
    status = "completed" if done else "in_progress"
    match kind:
        case "reasoning":
            sealed = {"encrypted_content": f"sealed-{reply.number}"} if "reasoning.encrypted_content" in _included(reply) else {}
            return {"type": "reasoning", "id": f"rs_{reply.number}", "summary": [], **sealed}
        case "message":
            content = [_said(reply)] if done else []
            return {"type": "message", "id": f"msg_{reply.number}", "status": status, "role": "assistant", "content": content}
        case _:
            call_id, name, arguments = reply.calls[number]
            named = {"type": "function_call", "id": f"fc_{reply.number}_{number}", "call_id": call_id, "name": name}
            return {**named, "arguments": arguments if done else "", "status": status}


def _included(reply: Reply) -> list[Any]:
    return reply.body.get("include") or []


def _said(reply: Reply) -> dict[str, Any]:
    if reply.answer.refusal is not None:
        return {"type": "refusal", "refusal": reply.answer.refusal}
    return {"type": "output_text", "text": reply.answer.text, "annotations": [], "logprobs": []}


def _usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
        **reply.answer.usage_extra,
    }
