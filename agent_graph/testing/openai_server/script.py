"""What the server says: the entries of its script, and what they come to for one request.

An entry is a text, a `Message` (`call(...)`, `calls(...)`), an `Answer`, a refusal (`refuse(429)`), `hang`, `after(5, entry)`, or a
function of the request's body that returns one of these. Everything here is a value; `server.py` does what it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

from agent_graph.errors import ConfigError, did_you_mean
from agent_graph.testing.scripted import After, hang
from agent_graph.types import Message

__all__ = [
    "Answer",
    "Break",
    "Entry",
    "Plan",
    "Refusal",
    "Tokens",
    "arguments_of",
    "bill",
    "broken",
    "count",
    "cut",
    "entries",
    "error_body",
    "plan",
    "refuse",
    "words",
]

Break: TypeAlias = Literal["truncate", "disconnect", "garbage", "stall", "error", "failed"]
"""How a reply breaks off: it ends as if it were whole; the connection goes; what comes is no JSON; nothing comes any more, and the
connection stays; the server says that it failed (in one piece: status 500); the reply itself says so, with status 200."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the server counts for one call. Parts lie inside their whole, as in OpenAI's usage."""

    input: int
    output: int
    cache_read: int = 0
    """Of the input."""
    cache_write: int = 0
    """Of the input."""
    reasoning: int = 0
    """Of the output."""
    audio_input: int = 0
    """Of the input."""
    audio_output: int = 0
    """Of the output."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 0:
                raise ConfigError(f"Tokens: {name} is {value!r}; a whole number, zero or more, is due.")
        for parts, whole in ((("cache_read", "cache_write", "audio_input"), "input"), (("reasoning", "audio_output"), "output")):
            if sum(getattr(self, part) for part in parts) > getattr(self, whole):
                raise ConfigError(
                    f"Tokens: {' and '.join(parts)} are more than {whole}, of which they are parts: {self!r}. "
                    "What a reply reports and nobody can have used is written as Answer(usage_extra={...})."
                )


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the model."""

    text: str = ""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """A list, each `{"name": ..., "args": {...}}`, optionally with an "id"; args as text are sent as they are, JSON or not."""
    tokens: Tokens | None = None
    """What is reported and billed; None: counted by `count`."""
    model: str | None = None
    """The model that the reply names; None: the one that was asked for."""
    finish_reason: str | None = None
    """None: "tool_calls" with tool calls, "length" where the output cap cut the reply, else "stop"."""
    refusal: str | None = None
    """What the model says instead of a text where it declines; None: it does not."""
    service_tier: str | None = None
    """Said in the reply; None: not said."""
    usage_told: bool = True
    """Whether the reply says what it used; it is billed all the same."""
    cap_honoured: bool = True
    """Whether the reply is cut at the request's max_tokens, max_completion_tokens or max_output_tokens."""
    chunk_delay_s: float = 0.0
    """Seconds before each piece of a stream."""
    usage_extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the reported usage, or others instead: `{"cost": 0.0012}` as OpenRouter does."""
    breaks: Break | None = None
    """How it breaks off; None: it does not."""
    breaks_after: int = 1
    """The pieces of a stream that are sent before that; of a reply in one piece, half is sent."""
    error_code: str = "server_error"
    """What it says then, where it breaks off by "error" or "failed"."""

    def __post_init__(self) -> None:
        """Refuse here what would fail in a thread of the server."""
        if not isinstance(self.text, str):
            raise ConfigError(f"Answer: the text is {self.text!r}; a str is due.")
        for name in ("refusal", "model", "finish_reason", "service_tier", "error_code"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"Answer: {name} is {getattr(self, name)!r}; a str is due.")
        if self.tokens is not None and not isinstance(self.tokens, Tokens):
            raise ConfigError(f"Answer: tokens is {self.tokens!r}; Tokens(input, output) is due.")
        if self.breaks is not None and self.breaks not in get_args(Break):
            hint = did_you_mean(self.breaks, get_args(Break))
            raise ConfigError(f"{self.breaks!r} is no way to break off.{hint} There are: {', '.join(get_args(Break))}.")
        if not isinstance(self.tool_calls, list | tuple):
            raise ConfigError(f"Answer: tool_calls is {self.tool_calls!r}; a list is due.")
        for call in self.tool_calls:
            if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
                raise ConfigError(f'Answer: {call!r} is no tool call; {{"name": "...", "args": {{...}}}} is due.')
            _insist_on_json(f"the arguments of {call['name']!r}", call.get("args"))
        _insist_on_json("usage_extra", self.usage_extra)
        given: object = self.chunk_delay_s
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < float("inf"):
            raise ConfigError(f"Answer: chunk_delay_s is {given!r}; seconds, zero or more, are due.")
        if type(self.breaks_after) is not int or self.breaks_after < 0:
            raise ConfigError(f"Answer: it cannot break off after {self.breaks_after!r} pieces; a whole number, zero or more, is due.")


def _insist_on_json(what: str, value: object) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Answer: {what} cannot be sent as JSON: {error}. Decimals and dates are sent as numbers and texts.") from None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status instead of a reply. It is not billed."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.status) is not int or not 300 <= self.status <= 599:
            raise ConfigError(f"a refusal's status is {self.status!r}; a whole number from 300 to 599 is due.")
        for name, value in self.headers.items():
            line = f"{name}: {value}"
            if not line.isascii() or not line.isprintable():
                raise ConfigError(f"a refusal's header is {line!r}; printable ASCII is due.")


FAILED = "the model failed"
"""The message of an error inside a reply."""

Entry: TypeAlias = "str | Message | Answer | Refusal | After | Callable[..., Any]"


def refuse(
    status: int, message: str = "refused by the script", *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Refusal:
    """Return an entry that answers with an HTTP status in OpenAI's form: `refuse(429, headers={"Retry-After": "2"})`.

    `code`: None for the one that OpenAI gives with this status, if it has one.
    """
    code = code or {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return Refusal(status, error_body(status, message, code=code), headers or {})


def error_body(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return what OpenAI sends with an error status."""
    kinds = {"insufficient_quota": "insufficient_quota", "rate_limit_exceeded": "requests"}
    kind = kinds.get(code or "") or ("server_error" if status in range(500, 600) else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def broken(
    how: Break, entry: str | Message | Answer = "one two three four five six", *, after: int = 1, code: str = "server_error"
) -> Answer:
    """Return an entry whose reply breaks off, when streamed after `after` pieces. It is billed in full, but for a status 500.

    `code`: what it says where it breaks off by "error" or "failed".
    """
    return replace(_answer(entry), breaks=how, breaks_after=after, error_code=code)


def entries(replies: object) -> list[Any]:
    """Return the entries of a script: those of a list, or the function that stands for all of them.

    Raises:
        ConfigError: one is none. The server would say so to the client, in the middle of a test.
    """
    if callable(replies) and not isinstance(replies, type):
        return [replies]
    if isinstance(replies, str | Mapping) or not isinstance(replies, Iterable):
        raise ConfigError(f"replies: a list of entries, or one function of the request's body, is due, not {replies!r}.")
    given = list(replies)
    for number, entry in enumerate(given):
        try:
            _check(entry)
        except (TypeError, ConfigError) as error:
            raise ConfigError(f"replies[{number}]: {error}") from None
    return given


def _check(entry: object) -> None:
    if isinstance(entry, After):
        _check(entry.reply)
    elif not isinstance(entry, Refusal) and (not callable(entry) or isinstance(entry, type)):
        _answer(entry)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request gets."""

    delay_s: float
    """Seconds of silence first; infinite for `hang`."""
    said: Answer | Refusal


def plan(entry: object, body: Mapping[str, Any]) -> Plan:
    """Return what `entry` means for a request with `body`. Raises TypeError for what is no entry."""
    if entry is hang:
        return Plan(float("inf"), Answer())
    if isinstance(entry, After):
        later = plan(entry.reply, body)
        return replace(later, delay_s=later.delay_s + entry.seconds)
    if isinstance(entry, Refusal):
        return Plan(0.0, entry)
    if callable(entry) and not isinstance(entry, type):
        return plan(entry(dict(body)), body)
    answer = _answer(entry)
    failed = answer.breaks == "error" and not body.get("stream")  # before there was a status, there was no reply to bill
    return Plan(0.0, refuse(500, FAILED, code=answer.error_code) if failed else answer)


def _answer(entry: object) -> Answer:
    if isinstance(entry, Answer):
        return entry
    if isinstance(entry, str):
        return Answer(entry)
    if isinstance(entry, Message):
        return Answer(entry.content, entry.metadata.get("tool_calls", ()))
    raise TypeError(f"{entry!r} is no entry of an OpenAIServer's script; a text, a Message, an Answer, a refusal or a function is.")


def count(text: str) -> int:
    """Return the server's count of `text`: words, each with the blanks behind it. No tokenizer, but the same each time."""
    return len(words(text))


def cut(answer: Answer, cap: int | None, input_tokens: int, choices: int = 1) -> tuple[Answer, Tokens]:
    """Return `answer` as a request with this output cap gets it, and its tokens; those that are counted, for each of `choices`."""
    arguments = [arguments_of(call) for call in answer.tool_calls]
    said = sum(map(count, [answer.text, answer.refusal or "", *arguments]))
    counted = Tokens(input_tokens, max(said, 1) * choices)
    tokens = answer.tokens or counted
    most = None if cap is None else cap * choices
    if most is None or tokens.output <= most or not answer.cap_honoured:
        return replace(answer, finish_reason=answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")), tokens
    reasoning = min(tokens.reasoning, most)
    tokens = replace(tokens, output=most, reasoning=reasoning, audio_output=min(tokens.audio_output, most - reasoning))
    calls = [{**call, "args": text[: len(text) // 2]} for call, text in zip(answer.tool_calls, arguments, strict=True)]
    return replace(answer, text="".join(words(answer.text)[:cap]), tool_calls=calls, finish_reason="length"), tokens


def words(text: str) -> list[str]:
    """Return `text` cut into words, each with the blanks behind it."""
    return re.findall(r"\S+\s*|\s+", text)


def arguments_of(call: Mapping[str, Any]) -> str:
    """Return the arguments of a tool call as they are sent."""
    args = call.get("args", {})
    return args if isinstance(args, str) else json.dumps(args, ensure_ascii=False)


def bill(tokens: Tokens, price: Mapping[str, Any]) -> Decimal:
    """Return the USD of `tokens` at USD per million tokens of "input", "output" and, where they differ, of the parts."""
    parts = {"cache_read": tokens.cache_read, "cache_write": tokens.cache_write, "audio_input": tokens.audio_input}
    counted = {**parts, "input": tokens.input - sum(parts.values())}
    counted |= {"audio_output": tokens.audio_output, "output": tokens.output - tokens.audio_output}
    whole = {"cache_read": "input", "cache_write": "input", "audio_input": "input", "audio_output": "output"}
    cost = sum((Decimal(str(price.get(key, price[whole.get(key, key)]))) * number for key, number in counted.items()), Decimal(0))
    return cost / 1_000_000 + Decimal(str(price.get("per_request", 0)))
