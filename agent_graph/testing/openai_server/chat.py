"""Replies as chat completions, whole or as the chunks of a stream: pure functions from values to JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_graph.testing.openai_server.reply import CREATED, Reply, halves
from agent_graph.testing.openai_server.requests import choices_of
from agent_graph.testing.openai_server.script import FAILED, words

__all__ = ["failed", "stream", "stream_error", "whole"]


def whole(reply: Reply) -> dict[str, Any]:
    """Return the body of a chat completion."""
    answer = reply.answer
    text = None if answer.refusal is not None else answer.text or None
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": answer.refusal, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [_call(call) for call in reply.calls]
    choice = {"message": message, "logprobs": _logprobs(reply, answer.text), "finish_reason": answer.finish_reason}
    usage = {"usage": _usage(reply)} if answer.usage_told else {}
    return {**_frame(reply, "chat.completion"), "choices": [{"index": index, **choice} for index in _indexes(reply)], **usage}


def failed(reply: Reply) -> dict[str, Any]:
    """Return a body that says that the model behind a gateway failed, with status 200."""
    return {**_frame(reply, "chat.completion"), "choices": [], **stream_error(reply)}


def stream_error(reply: Reply) -> dict[str, Any]:
    """Return the event that says inside a stream that it failed."""
    code = reply.answer.error_code
    return {"error": {"message": FAILED, "type": code, "param": None, "code": code}}


def stream(reply: Reply) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a chat completion; usage comes last, and only if `stream_options.include_usage` asks for it."""
    asked = bool((reply.body.get("stream_options") or {}).get("include_usage"))
    frame = {**_frame(reply, "chat.completion.chunk"), **({"usage": None} if asked else {})}
    for index in _indexes(reply):
        for delta, text in _deltas(reply):
            choice = {"index": index, "delta": delta, "logprobs": _logprobs(reply, text), "finish_reason": None}
            yield {**frame, "choices": [choice]}
        end = {"index": index, "delta": {}, "logprobs": None, "finish_reason": reply.answer.finish_reason}
        yield {**frame, "choices": [end]}
    if asked and reply.answer.usage_told:
        yield {**frame, "choices": [], "usage": _usage(reply)}


def _deltas(reply: Reply) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what each chunk adds, and the text of the model in it."""
    refused = reply.answer.refusal is not None
    yield {"role": "assistant", "content": None if reply.calls and not reply.answer.text else "", "refusal": None}, ""
    for piece in reply.pieces:
        yield ({"refusal": piece}, "") if refused else ({"content": piece}, piece)
    for index, (call_id, name, arguments) in enumerate(reply.calls):
        yield {"tool_calls": [{"index": index, **_call((call_id, name, ""))}]}, ""
        for half in halves(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": half}}]}, ""


def _indexes(reply: Reply) -> range:
    return range(choices_of("chat", reply.body))


def _frame(reply: Reply, kind: str) -> dict[str, Any]:
    tier = {"service_tier": reply.answer.service_tier} if reply.answer.service_tier else {}
    return {"id": f"chatcmpl-{reply.number}", "object": kind, "created": CREATED, "model": reply.model, **tier}


def _call(call: tuple[str, str, str]) -> dict[str, Any]:
    return {"id": call[0], "type": "function", "function": {"name": call[1], "arguments": call[2]}}


def _logprobs(reply: Reply, text: str) -> dict[str, Any] | None:
    """Return the words of `text` as tokens of which the model was certain; None where nobody asked."""
    if not reply.body.get("logprobs"):
        return None
    tokens = [{"token": word, "logprob": 0.0, "bytes": list(word.encode(errors="replace"))} for word in words(text)]
    alone = bool(reply.body.get("top_logprobs"))
    return {"content": [{**token, "top_logprobs": [token] if alone else []} for token in tokens], "refusal": None}


def _usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    read = {"cached_tokens": tokens.cache_read, "audio_tokens": tokens.audio_input}
    written = {"cache_write_tokens": tokens.cache_write} if tokens.cache_write else {}
    predicted = {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {**read, **written},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": tokens.audio_output, **predicted},
        **reply.answer.usage_extra,
    }
