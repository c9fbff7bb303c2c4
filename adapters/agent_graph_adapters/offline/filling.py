"""Filling a tool's arguments from a request: by shape and by the words around a value, never by guessing.

For each parameter the first that is there: its name with a value ("city=Paris"), one of its enum's or examples' values,
a value of the kind it wants. A value fills one parameter only. Optional parameters are filled only where the request
plainly speaks of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from agent_graph_adapters.offline.reading import Kind, Request, Value, Vocabulary
from agent_graph_adapters.offline.schemas import Parameter, Tool
from agent_graph_adapters.offline.words import STOPWORDS, same_word, stem, stems

__all__ = ["Filled", "fill"]

_MISSING = object()
_MAX_CALLS = 32
_ORIGIN = frozenset({"from", "origin", "source", "start", "departure", "base"})
_TARGET = frozenset({"to", "destination", "target", "end", "arrival", "into", "recipient"})
_SAYING = re.compile(r"\b(?:saying|that says|with the (?:text|message|words))\b:?\s*|:\s+", re.IGNORECASE)
_KINDS: dict[str, tuple[Kind, ...]] = {
    "expression": ("expression",),
    "date": ("date",),
    "day": ("date", "day"),
    "email": ("email",),
    "url": ("url",),
    "name": ("quoted", "email", "name", "phrase", "leading", "bare"),
}


@dataclass(slots=True)
class Filled:
    """What a request gives for a tool."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    """Required parameters that nothing was found for; then there are no calls."""
    free: bool = False
    """Whether free text was taken, so that what follows may belong to it."""


def fill(tool: Tool, request: Request, vocabulary: Vocabulary) -> Filled:
    """Return the calls of `tool` that `request` asks for: several where it holds several values for one parameter."""
    if (given := _given_object(tool, request)) is not None:
        return Filled([given])
    filled = Filled()
    filler = _Filler(request, vocabulary)
    while len(filled.calls) < _MAX_CALLS:
        before = list(filler.taken)
        args = filler.properties(tool.parameters)
        if filler.missing:
            filled.missing = () if filled.calls else tuple(filler.missing)
            break
        if filled.calls and not filler.continues(before):
            break
        filled.calls.append(args)
        filled.free = filler.free
        if not filler.consumed(before) or filler.free:
            break
    return filled


def _given_object(tool: Tool, request: Request) -> dict[str, Any] | None:
    """Return a JSON object in the request that can only be this tool's arguments."""
    names = {parameter.name for parameter in tool.parameters}
    due = {parameter.name for parameter in tool.parameters if parameter.required}
    for value in request.values("object"):
        if isinstance(value.value, dict) and due <= value.value.keys() <= names:
            return value.value
    return None


class _Filler:
    def __init__(self, request: Request, vocabulary: Vocabulary) -> None:
        self.request = request
        self.vocabulary = vocabulary
        self.taken: list[Value] = []
        self.missing: list[str] = []
        self.free = False

    def properties(self, parameters: Collection[Parameter]) -> dict[str, Any]:
        """Return what is found for `parameters`; the names of required ones without a value go to `missing`."""
        self.missing = []
        lone = not any(parameter.required for parameter in parameters)
        args: dict[str, Any] = {}
        for at, parameter in enumerate(sorted(parameters, key=_eagerness)):
            # Where nothing is marked as required, the first parameter is what the tool is about.
            found = self._one(parameter, due=parameter.required or (lone and at == 0))
            if found is not _MISSING:
                args[parameter.name] = found
            elif parameter.required:
                self.missing.append(parameter.name)
        return {parameter.name: args[parameter.name] for parameter in parameters if parameter.name in args}

    def consumed(self, before: list[Value]) -> bool:
        return len(self.taken) > len(before)

    def continues(self, before: list[Value]) -> bool:
        """Whether the values taken since go on an enumeration: of the same kinds, with only small words in between."""
        new = self.taken[len(before) :]
        if not new or not before or [value.kind for value in new] != [value.kind for value in before[-len(new) :]]:
            return False
        low, high = sorted([before[-1], new[0]], key=lambda value: value.start)
        gap = Request(self.request.text[low.end : high.start], 0)
        return all(word.plain in STOPWORDS for word in gap.words)

    def _one(self, parameter: Parameter, *, due: bool) -> Any:
        if (named := self._assigned(parameter)) is not _MISSING:
            return named
        if parameter.choices:
            return self._choice(parameter.choices)
        match parameter.type:
            case "boolean":
                return self._mentioned(parameter)
            case "number" | "integer":
                return self._number(parameter, due=due)
            case "array":
                return self._several(parameter, due=due)
            case "object":
                return self._object(parameter)
            case "null":
                return _MISSING
            case _:
                return self._text(parameter, due=due)

    # -- strings
    # --------------------------------------------------------------------------------------------------------

    def _text(self, parameter: Parameter, *, due: bool) -> Any:
        for example in parameter.examples:
            if _has_words(self.request.text, example):
                return example
        if parameter.wants == "text":
            return self._free_text() if due else _MISSING
        if parameter.wants != "name":
            return self._take(*_KINDS[parameter.wants])
        for sign, words in (("from", _ORIGIN), ("to", _TARGET)):
            if words & set(parameter.stems) and (value := self._after(sign)) is not _MISSING:
                return value
        return self._take(*_KINDS["name"]) if due else _MISSING

    def _free_text(self) -> Any:
        if (quoted := self._take("quoted")) is not _MISSING:
            return quoted
        text = self.request.text
        if found := _SAYING.search(text):
            text = text[found.end() :]
        else:
            words = self.request.words
            opening = (at for at, word in enumerate(words) if not self._opens(word.text))
            first = next(opening, len(words))
            text = text[words[first].start :] if first < len(words) else ""
        self.free = bool(text.strip())
        return text.strip() or _MISSING

    def _opens(self, word: str) -> bool:
        return word.casefold() in STOPWORDS or stem(word) in self.vocabulary.names

    def _after(self, sign: str) -> Any:
        """Return the value that follows the word `sign`."""
        for value in self._free(*_KINDS["name"]):
            before = [word.plain for word in Request(self.request.text[: value.start], 0).words]
            if before and before[-1] == sign:
                self.taken.append(value)
                return value.value
        return _MISSING

    def _assigned(self, parameter: Parameter) -> Any:
        """Return the value written beside the parameter's own name: `city=Paris`, `city: "New York"`."""
        spoken = re.escape(parameter.name).replace("_", "[ _]")
        found = re.search(rf"(?<!\w){spoken}\s?[=:]\s?(?:\"([^\"]*)\"|'([^']*)'|([^\s,;]+))", self.request.text, re.IGNORECASE)
        if not found:
            return _MISSING
        self.taken += [
            value for value in self._free("quoted", "number", *_KINDS["name"]) if value.start < found.end() > found.start() < value.end
        ]
        return _typed(next(group for group in found.groups() if group is not None).rstrip("?!."), parameter.type)

    # -- the other types
    # -------------------------------------------------------------------------------------------------

    def _choice(self, choices: Collection[Any]) -> Any:
        matching = [choice for choice in choices if isinstance(choice, str) and _has_words(self.request.text, choice)]
        return max(matching, key=len) if matching else (next(iter(choices)) if len(choices) == 1 else self._take_equal(choices))

    def _take_equal(self, choices: Collection[Any]) -> Any:
        return next((value.value for value in self._free("number") if value.value in choices), _MISSING)

    def _mentioned(self, parameter: Parameter) -> Any:
        words = self.request.words
        for at, word in enumerate(words):
            if stem(word.text) in parameter.stems:
                before = {earlier.plain for earlier in words[max(0, at - 2) : at]}
                return not before & {"no", "not", "without", "don't", "never"}
        return _MISSING

    def _number(self, parameter: Parameter, *, due: bool) -> Any:
        numbers = [value for value in self._free("number") if parameter.type == "number" or float(value.value).is_integer()]
        near = [value for value in numbers if self._beside(value, parameter)]
        for value in near or (numbers if due else []):
            self.taken.append(value)
            return int(value.value) if parameter.type == "integer" else value.value
        return _MISSING

    def _beside(self, value: Value, parameter: Parameter) -> bool:
        """Whether a number stands beside the parameter's name: "5 days", "limit 10", "a limit of 10"."""
        before = [word.text for word in Request(self.request.text[: value.start], 0).words][-2:]
        after = [word.text for word in Request(self.request.text[value.end :], 0).words][:1]
        return any(same_word(stem(word), part) for word in before + after for part in parameter.stems)

    def _several(self, parameter: Parameter, *, due: bool) -> Any:
        if parameter.items is None or not due:
            return _MISSING
        found: list[Any] = []
        while len(found) < _MAX_CALLS and (item := self._one(parameter.items, due=True)) is not _MISSING and item not in found:
            found.append(item)
            if self.free:
                break
        return found or _MISSING

    def _object(self, parameter: Parameter) -> Any:
        inner = _Filler(self.request, self.vocabulary)
        inner.taken = self.taken
        found = inner.properties(parameter.properties)
        return found if found and not inner.missing else _MISSING

    # -- taking
    # ----------------------------------------------------------------------------------------------------------------

    def _free(self, *kinds: Kind) -> list[Value]:
        values = self.request.values(*kinds, vocabulary=self.vocabulary)
        return [value for value in values if not any(value.start < taken.end and taken.start < value.end for taken in self.taken)]

    def _take(self, *kinds: Kind) -> Any:
        for value in self._free(*kinds):
            self.taken.append(value)
            return value.value
        return _MISSING


def _eagerness(parameter: Parameter) -> int:
    """Particular parameters choose before those that take any name, and these before those that take any text."""
    if parameter.type in {"string", "any"} and not parameter.choices:
        return {"text": 3, "name": 2}.get(parameter.wants, 0)
    return 1


def _has_words(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text`, one after the other."""
    wanted, there = stems(phrase), stems(text)
    return bool(wanted) and any(there[at : at + len(wanted)] == wanted for at in range(len(there) - len(wanted) + 1))


def _typed(text: str, kind: str) -> Any:
    """Return `text` as a value of the JSON type `kind`, where it is one."""
    try:
        match kind:
            case "integer":
                return int(text)
            case "number":
                return float(text) if "." in text else int(text)
            case "boolean":
                return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[text.lower()]
            case "array" | "object":
                return _MISSING
            case _:
                return text
    except (ValueError, KeyError):
        return _MISSING
