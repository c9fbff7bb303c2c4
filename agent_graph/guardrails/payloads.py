"""Reaching the text inside a payload, whatever the stage: the input, a reply, the arguments or the result of a call."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent_graph.decisions.results import make_storable

__all__ = ["map_payload", "payload_texts"]

_MAX_DEPTH = 64
"""Levels of nesting that are walked as they are; what lies deeper (or in a cycle) is taken as its JSON text."""


def payload_texts(stage: str, payload: Any) -> Iterator[str]:
    """Yield the texts in `payload`; of arguments and results every string value, keys and numbers not."""
    if stage in ("input", "output"):
        yield payload
    elif stage == "reply":
        yield payload.content or ""
    elif stage == "tool_args":
        yield from _texts(payload.args, 0)
    else:
        yield from _texts([payload.result, payload.error], 0)


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif value is None or isinstance(value, int | float):
        return
    elif depth > _MAX_DEPTH:
        yield make_storable(value).text
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)
    else:
        yield from _texts(json.loads(make_storable(value).json), depth + 1)


def map_payload(stage: str, payload: Any, change: Callable[[str], str]) -> Any:
    """Return `payload` with `change` applied to every text in it: the very object if nothing changed, else a copy."""
    if stage in ("input", "output"):
        return change(payload)
    if stage == "reply":
        return _with(payload, content=change(payload.content or ""))
    if stage == "tool_args":
        return _with(payload, args=_map(payload.args, change, 0))
    error = payload.error if payload.error is None else change(str(payload.error))
    return _with(payload, result=_map(payload.result, change, 0), error=error)


def _with(payload: Any, **values: Any) -> Any:
    """Return a copy of `payload` with `values`; itself if it has them already. By shape: the class may be the user's own."""
    if all(_same(getattr(payload, name), value) for name, value in values.items()):
        return payload
    changed = copy.copy(payload)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed


def _same(old: Any, new: Any) -> bool:
    """Identity, since a result's `==` may be anything (an array's is an array); texts by value."""
    return old is new or (isinstance(old, str) and isinstance(new, str) and old == new)


def _map(value: Any, change: Callable[[str], str], depth: int) -> Any:
    """Return `value` with its texts changed; the very object if none was."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int):  # a card's or a telephone's number may come as a number
        return _unless_same(value, str(value), change(str(value)))
    if depth > _MAX_DEPTH:
        text = make_storable(value).text
        return _unless_same(value, text, change(text))
    if type(value) is dict:
        items = {_map(key, change, depth + 1): _map(item, change, depth + 1) for key, item in value.items()}
        return value if _same_items(value, items) else items
    if type(value) in (list, tuple):
        parts = [_map(item, change, depth + 1) for item in value]
        return value if all(map(_same, value, parts)) else type(value)(parts)
    return _map_foreign(value, change, depth)


def _same_items(old: dict[Any, Any], new: dict[Any, Any]) -> bool:
    return len(old) == len(new) and all(map(_same, old, new)) and all(map(_same, old.values(), new.values()))


def _unless_same(value: Any, text: str, changed: str) -> Any:
    return value if changed == text else changed


def _map_foreign(value: Any, change: Callable[[str], str], depth: int) -> Any:
    """Return an object of any other class as it is, or, if `change` finds something in its JSON form, that form, changed."""
    plain = dict(value) if isinstance(value, Mapping) else json.loads(make_storable(value).json)
    changed = _map(plain, change, depth + 1)
    return value if changed is plain or _same(plain, changed) else changed
