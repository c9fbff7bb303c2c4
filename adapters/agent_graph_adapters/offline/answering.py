"""Putting tool results into sentences: one rule per shape of a result, no knowledge of any tool."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_graph_adapters.offline.words import stems

__all__ = ["Outcome", "say", "summarise"]

MAX_CHARS = 600
"""Of one result's sentence; longer ones are cut with a mark."""
_PLACES = frozenset({"city", "location", "place", "country", "town", "region"})
_SUMMARIES = ("summary", "answer", "text", "result", "value")
_NOTES = ("note", "source")
_UNITS = {
    "_c": " °C",
    "_f": " °F",
    "_percent": " %",
    "_pct": " %",
    "_kmh": " km/h",
    "_usd": " USD",
    "_eur": " EUR",
    "_km": " km",
    "_kg": " kg",
    "_ms": " ms",
    "_s": " s",
    "_m": " m",
}
_VERBS = frozenset({"get", "fetch", "find", "search", "lookup", "look", "compute", "read", "show", "list"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tool call that came back."""

    tool: str
    args: Mapping[str, Any]
    result: str
    failed: bool


def say(outcome: Outcome) -> str:
    """Return one or more sentences that tell what came back."""
    if outcome.failed:
        return f"{_call(outcome)} failed: {_ended(_cut(outcome.result.strip() or 'no reason was given'))}"
    value = _parsed(outcome.result)
    if isinstance(value, Mapping) and value:
        return _cut(_of_mapping(outcome, value))
    if isinstance(value, list) and value:
        return _cut(f"{_call(outcome)} returned {len(value)}: {_items(value)}.")
    return _of_scalar(outcome, value)


def summarise(text: str) -> str:
    """Return the openings of a text's lines, together at most an eighth of it (200 to 2,000 characters)."""
    room = min(max(len(text) // 8, 200), 2_000)
    kept: list[str] = []
    for line in filter(None, map(str.strip, re.sub(r"</?\w+>", "", text).splitlines())):
        if room <= 0:
            break
        kept.append(_cut(line, min(120, room)))
        room -= len(kept[-1])
    return "\n".join(kept)


def _of_mapping(outcome: Outcome, value: Mapping[str, Any]) -> str:
    notes = [str(value[key]) for key in _NOTES if isinstance(value.get(key), str)]
    tail = f" ({'; '.join(notes)})" if notes else ""
    summary = next((value[key] for key in _SUMMARIES if isinstance(value.get(key), str | int | float)), None)
    if summary is not None:
        return f"The {_noun(outcome)} is {str(summary).rstrip('.')}{tail}."
    told = {_plain(arg) for arg in outcome.args.values()}
    parts = [_pair(key, part) for key, part in value.items() if key not in _NOTES and part is not None and _plain(part) not in told]
    return f"The {_noun(outcome)}: {', '.join(parts) or 'nothing else'}{tail}."


def _of_scalar(outcome: Outcome, value: Any) -> str:
    text = "" if value in (None, [], {}) else _plain(value).strip()
    if not text:
        return f"{_call(outcome)} returned nothing."
    if len(outcome.args) == 1 and re.search(r"\d\s*[-+*/%]", arg := _plain(next(iter(outcome.args.values())))) and len(text) < MAX_CHARS:
        return f"{arg} = {text}."
    if text[-1] in ".!?" or "\n" in text or len(text.split()) > 12:
        return _cut(text)
    return _cut(f"The {_noun(outcome)} is {text}.")


def _noun(outcome: Outcome) -> str:
    """Return what the call was about: "weather in Paris", "stock price for ACME"."""
    words = [word for word in re.sub(r"(?<=[a-z\d])(?=[A-Z])|[_\-]", " ", outcome.tool).lower().split() if word not in _VERBS]
    name = " ".join(words) or outcome.tool
    if not outcome.args:
        return f"result of {outcome.tool}"
    first, value = next(iter(outcome.args.items()))
    sign = "in" if _PLACES & set(stems(first)) else "for"
    rest = "".join(f", {key} {_plain(part)}" for key, part in list(outcome.args.items())[1:])
    return _cut(f"{name} {sign} {_plain(value)}{rest}", 200)


def _call(outcome: Outcome) -> str:
    args = ", ".join(f"{key}: {_plain(value)}" for key, value in outcome.args.items())
    return f"{outcome.tool}({_cut(args, 200)})"


def _pair(key: str, value: Any) -> str:
    ending = next((ending for ending in _UNITS if key.endswith(ending)), "")
    name = key.removesuffix(ending).replace("_", " ")
    return f"{name} {_plain(value)}{_UNITS.get(ending, '')}"


def _items(values: Sequence[Any], limit: int = 10) -> str:
    shown = "; ".join(_plain(value) for value in values[:limit])
    return shown + (f"; and {len(values) - limit} more" if len(values) > limit else "")


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and value:
        return ", ".join(_pair(str(key), part) for key, part in value.items())
    if isinstance(value, list) and value:
        return ", ".join(map(_plain, value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _parsed(text: str) -> Any:
    """Return a result as the JSON value that it is, or as the text that it is."""
    if len(text) > 100_000 or text[:1] not in '{["-0123456789tfn':
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _cut(text: str, limit: int = MAX_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit].rstrip()}… ({len(text) - limit:,} more characters)"


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."
