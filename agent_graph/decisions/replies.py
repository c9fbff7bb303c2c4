"""What a model's reply says: its text, the tools it calls, what it used and cost.

Backends are written by other people, before us and without us, and paste the specification's classes instead of importing ours.
So replies are read by shape, never by `isinstance`, and every layout of docs/backends.md is understood; only one is written.

What must stay true
    1. A reply that has `content` and `metadata` is always readable: what is wrong with one call becomes that call's `problem`, in
       words that let the model repair it. Only what is no message at all is a ContractError.
    2. The calls of one reply have ids that are not empty and all different; an id that the model gave is kept.
    3. Text is never taken for a tool call, unless it is one JSON object and nothing else, and names a tool that exists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

from agent_graph.decisions.usage import Usage, read_usage
from agent_graph.errors import ContractError

__all__ = ["Call", "Reply", "Usage", "is_cut", "read_cost", "read_reply", "read_usage", "withheld"]

UNNAMED: Final = "unnamed_tool"
"""The name of a call that names no tool: APIs refuse a history with an empty one."""

_NAMES: Final = ("name", "tool_name", "tool")
_IDS: Final = ("id", "call_id", "tool_call_id")
_ARGS: Final = ("args", "arguments", "input")
_USAGES: Final = ("usage", "usage_metadata", "token_usage")
_BARE_USAGE: Final = ("input_tokens", "prompt_tokens", "output_tokens", "completion_tokens", "total_tokens", "tokens")
_MODELS: Final = ("model", "model_name", "model_id")
_COSTS: Final = ("cost_usd", "cost", "total_cost", "total_cost_usd")
_FINISHES: Final = ("finish_reason", "stop_reason", "done_reason")
_CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"})
MOST_USD: Final = 10**9
"""A reply that tells a larger cost tells none: no ledger of nano-dollars could hold many of them."""
_WITHHELD: Final = frozenset({"content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii"})
_FENCE: Final = re.compile(r"\A```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)
_REPAIR: Final = "Send the call again with its arguments as one JSON object."


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call of a reply."""

    id: str
    """Not empty, and different from the other calls of its reply."""
    name: str
    args: dict[str, Any] | None
    """None where they could not be read."""
    problem: str | None = None
    """What is wrong, in words for the model; None if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's reply, read."""

    text: str
    """For people; empty where the content was a tool call."""
    calls: tuple[Call, ...] = ()
    usage: Usage | None = None
    """None where the backend told nothing: unknown, not zero."""
    model: str | None = None
    """The model that answered, by its own word."""
    cost_usd: Decimal | None = None
    """What the backend says the call cost; None where it does not."""
    finish_reason: str | None = None
    """As the backend gave it; every spelling of "the output was cut" is "length"."""


def read_reply(message: Any, *, tool_names: Collection[str], step: int, json_content: bool) -> Reply:
    """Return what `message` says.

    Args:
        message: what `LLMBackend.complete` returned: anything with `content` and `metadata`.
        tool_names: the tools that a call in the content may name.
        step: the number of the step, for ids that the backend left out (`call_{step}_{index}`).
        json_content: read a tool call that is the content; for backends without tool calls of their own.

    Raises:
        ContractError: `message` is no message.
    """
    content, metadata = _parts(message)
    text, blocks = _content(content, message)
    entries = _entries(metadata) or blocks
    if not entries and json_content and (entry := _call_in(text, tool_names)) is not None:
        entries, text = [entry], ""
    usage = _usage(metadata)
    return Reply(
        text=text,
        calls=_unique(tuple(_call(entry) for entry in entries), step),
        usage=read_usage(usage),
        model=_text(metadata, _MODELS),
        cost_usd=read_cost(metadata, usage),
        finish_reason=_finish(metadata),
    )


# -- the message -----------------------------------------------------------------------------------------------------------


def _parts(message: Any) -> tuple[object, Mapping[str, Any]]:
    if isinstance(message, type) or not hasattr(message, "content"):
        _broken(message)
    metadata = getattr(message, "metadata", None)
    if metadata is None:
        return message.content, {}
    if not isinstance(metadata, Mapping):
        _broken(message, f" whose metadata is {type(metadata).__name__}")
    return message.content, metadata


def _content(content: object, message: object) -> tuple[str, list[Any]]:
    """Return the text, and the tool calls that stand among content blocks as Anthropic writes them."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list | tuple):
        _broken(message, f" whose content is {type(content).__name__}")
    texts = [block if isinstance(block, str) else _get(block, "text") for block in content]
    calls = [block for block in content if _get(block, "type") == "tool_use"]
    return "".join(text for text in texts if isinstance(text, str)), calls


def _broken(message: object, detail: str = "") -> NoReturn:
    raise ContractError(f"LLMBackend.complete returned {type(message).__name__}{detail}; a Message(role, content, metadata) was due.")


# -- tool calls ------------------------------------------------------------------------------------------------------------


def _entries(metadata: Mapping[str, Any]) -> list[Any]:
    """Return the entries for tool calls in `metadata`, whatever they are; one alone need not be in a list."""
    given = next((metadata[key] for key in ("tool_calls", "tool_call", "function_call") if metadata.get(key)), None)
    if given is None:
        return []
    if isinstance(given, str):
        try:
            given = _loads(given)
        except (ValueError, RecursionError):
            given = [None]  # a call was meant, and cannot be read
    return list(given) if isinstance(given, list | tuple) else [given]


def _call(entry: object) -> Call:
    """Return the call that `entry` describes; its id may still be empty."""
    function = _get(entry, "function")
    sources = (entry,) if function is None or isinstance(function, str) else (entry, function)
    name = function if isinstance(function, str) else _first(sources, _NAMES)
    identity = _first(sources[:1], _IDS)
    call_id = "" if identity is None else str(identity)
    if not isinstance(name, str) or not name.strip():
        return Call(id=call_id, name=UNNAMED, args=None, problem=f"This call names no tool. {_REPAIR}")
    args, problem = _args(_first(sources, _ARGS))
    return Call(id=call_id, name=name.strip(), args=args, problem=problem)


def _args(given: object) -> tuple[dict[str, Any] | None, str | None]:
    if isinstance(given, bytes | bytearray):
        given = bytes(given).decode(errors="replace")
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}, None
    if isinstance(given, str):
        try:
            given = _loads(given)
            given = _loads(given) if isinstance(given, str) else given  # some proxies encode twice
        except (ValueError, RecursionError) as error:
            return None, f"The arguments are not valid JSON: {_reason(error)}. {_REPAIR}"
    if not isinstance(given, Mapping):
        return None, f"The arguments are {_kind(given)}, not an object. {_REPAIR}"
    return {str(key): value for key, value in given.items()}, None


def _unique(calls: tuple[Call, ...], step: int) -> tuple[Call, ...]:
    given = {call.id for call in calls if call.id}
    seen: set[str] = set()
    unique: list[Call] = []
    for index, call in enumerate(calls):
        call_id = call.id
        if not call_id or call_id in seen:
            call_id = _fresh(f"call_{step}_{index}", given | seen)
        seen.add(call_id)
        unique.append(call if call_id == call.id else replace(call, id=call_id))
    return tuple(unique)


def _fresh(call_id: str, taken: Collection[str]) -> str:
    while call_id in taken:
        call_id += "_"
    return call_id


def _call_in(text: str, tool_names: Collection[str]) -> Mapping[str, Any] | None:
    """Return the tool call that `text` is, or None: an object, fenced or not, with nothing around it, that names a given tool."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    stripped = fenced.group(1).strip() if fenced else stripped
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    try:
        entry = _loads(stripped)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    call = entry["function"] if isinstance(entry.get("function"), dict) else entry
    marked = "tool" in call or any(key in call for key in _ARGS)  # {"name": "search"} alone may well be an answer
    name = _first((call,), ("tool", "tool_name", "name", "function"))
    return entry if marked and isinstance(name, str) and name in tool_names else None


# -- figures ---------------------------------------------------------------------------------------------------------------


def _usage(metadata: Mapping[str, Any]) -> object:
    usage = _first((metadata,), _USAGES)
    return metadata if usage is None and any(key in metadata for key in _BARE_USAGE) else usage


def read_cost(*sources: object) -> Decimal | None:
    """Return the USD that the first of `sources` tells which tells any: a finite number from zero to a billion. Never raises.

    OpenRouter tells it beside or inside the usage, Perplexity as a table with a total.
    """
    tables = [source for source in sources if isinstance(source, Mapping)]
    tables += [table for source in tables if isinstance(table := source.get("cost"), Mapping)]
    return next((cost for table in tables for key in _COSTS if (cost := _usd(table.get(key))) is not None), None)


def _usd(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= MOST_USD else None


def _finish(metadata: Mapping[str, Any]) -> str | None:
    reason = _text(metadata, _FINISHES)
    return "length" if reason is not None and is_cut(reason) else reason


def withheld(metadata: Mapping[str, Any]) -> str | None:
    """Return the finish reason by which a provider says that it withheld the rest, or all, for what it was about; None for another."""
    reason = _text(metadata, _FINISHES)
    return reason if reason is not None and reason.lower() in _WITHHELD else None


def is_cut(reason: str) -> bool:
    """Return whether a finish reason says that the output was cut, in any provider's spelling."""
    return reason.lower() in _CUT


def _text(metadata: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((value for key in keys if isinstance(value := metadata.get(key), str) and value), None)


# -- reading by shape ------------------------------------------------------------------------------------------------------


def _get(source: object, key: str) -> Any:
    return source.get(key) if isinstance(source, Mapping) else getattr(source, key, None)


def _first(sources: Sequence[object], keys: Sequence[str]) -> Any:
    return next((value for source in sources for key in keys if (value := _get(source, key)) is not None), None)


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _reason(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


def _kind(value: object) -> str:
    return {"list": "a list", "str": "a text", "bool": "true or false"}.get(type(value).__name__, type(value).__name__)
