"""Which of the bound tools a question asks for, and with which arguments.

Each request is scored against each tool: words of the tool's name count 3, of its description 1, of its enums and
examples 2, an arithmetic expression for a tool that wants one 4, all divided by the number of tools that share the
word. A tool is chosen when its name is spoken of, or when the words point at it and everything it requires is there. A
request that points at no tool but holds values ("and Rome?") goes with the tool before it, or after it; one that lacks
a value borrows it from its neighbours.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_graph_adapters.offline.filling import Filled, fill
from agent_graph_adapters.offline.reading import READ_CHARS, Kind, Request, Vocabulary, requests
from agent_graph_adapters.offline.schemas import Parameter, Tool
from agent_graph_adapters.offline.words import STOPWORDS, same_word, stem, stems

__all__ = ["Call", "Plan", "plan"]

MAX_REQUESTS = 64
"""Of one question; the rest is told as not read."""
_VALUES: tuple[Kind, ...] = ("quoted", "expression", "number", "date", "email", "url", "name", "leading", "bare")
# Verbs that say nothing of what a tool does.
_EMPTY_VERBS = frozenset({"get", "fetch", "run", "do", "tool", "call", "execute", "make", "compute", "return", "give", "use"})
_IGNORED = {stem(word) for word in STOPWORDS} | _EMPTY_VERBS


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call to be made."""

    tool: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question leads to."""

    calls: tuple[Call, ...] = ()
    problems: tuple[str, ...] = ()
    """Sentences about what it does not lead to, and why."""
    beyond: bool = False
    """Whether something was asked that no tool fits."""


@dataclass(slots=True)
class _Reading:
    """A request on its way to a tool."""

    request: Request
    ranked: list[tuple[float, Tool]]
    """Tools that the words point at, best first."""
    tool: Tool | None = None
    filled: Filled = field(default_factory=Filled)
    part_of_another: bool = False
    """Whether its text went to the request before it."""

    @property
    def undecided(self) -> bool:
        return self.tool is None and not self.part_of_another

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the chosen tool requires and does not get."""
        return self.filled.missing if self.tool is not None else ()

    def take(self, tool: Tool, filled: Filled) -> None:
        self.tool, self.filled = tool, filled


def plan(question: str, tools: Sequence[Tool], *, forced: str | None = None, earlier: Sequence[Call] = ()) -> Plan:
    """Return the calls that `question` asks for, in its order, and what could not be done.

    `forced` names the only tool that may be called; `earlier` holds calls of the conversation so far, oldest first, for
    a question that leans on them ("and there?").
    """
    if not question.strip():
        return Plan(problems=("The question is empty.",))
    index = _Index([tool for tool in tools if forced in (None, tool.name)])
    text, asked = requests(question)
    if forced is not None:
        asked = (Request(text, 0),)
    readings = [_Reading(request, index.rank(request)) for request in asked[:MAX_REQUESTS]]
    _choose(readings, index, text)
    _lean(readings, index, earlier, forced is not None)
    problems = _problems(readings, index) + _unread(question, asked)
    return Plan(_calls(readings), problems, beyond=any(reading.undecided for reading in readings))


class _Index:
    """The bound tools, and how telling each of their words is."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tools
        self.names = {tool.name: set(stems(tool.name)) - _EMPTY_VERBS for tool in tools}
        self.described = {tool.name: self._described(tool) for tool in tools}
        self.shared = Counter(word for tool in tools for word in self.names[tool.name] | self.described[tool.name])
        names = frozenset[str]().union(*self.names.values(), *map(_of_parameters, tools)) | _EMPTY_VERBS
        self.vocabulary = Vocabulary(names, frozenset[str]().union(*self.described.values()))

    def _described(self, tool: Tool) -> set[str]:
        return set(stems(_without_names(tool.description))) - _IGNORED - self.names[tool.name] - _of_parameters(tool)

    def rank(self, request: Request) -> list[tuple[float, Tool]]:
        """Return the tools that `request` points at, best first."""
        scored = [(self._score(tool, request), tool) for tool in self.tools]
        return sorted([pair for pair in scored if pair[0] > 0], key=lambda pair: -pair[0])

    def _score(self, tool: Tool, request: Request) -> float:
        words = {stem(word.text) for word in request.words if word.plain not in STOPWORDS}
        score = 3 * self._weight(self.names[tool.name], words) + self._weight(self.described[tool.name], words)
        score += 2 * sum(_speaks_of(parameter, request) for parameter in tool.parameters)
        wants_expression = any(parameter.wants == "expression" for parameter in tool.parameters)
        return score + (4 if wants_expression and request.values("expression") else 0)

    def _weight(self, known: set[str], words: set[str]) -> float:
        # The largest share of each word: sets have no order that lasts over processes, and replies must be the same.
        shares = (max((1 / self.shared[one] for one in known if same_word(word, one)), default=0.0) for word in words)
        return math.fsum(shares)

    def named(self, tool: Tool, request: Request) -> bool:
        """Whether a word of the tool's name is spoken."""
        return any(same_word(stem(word.text), part) for word in request.words for part in self.names[tool.name])


def _of_parameters(tool: Tool) -> set[str]:
    return {part for parameter in tool.parameters for part in parameter.stems}


def _without_names(description: str) -> str:
    """Leave out the capitalised words inside sentences: in descriptions they are mostly examples ("such as Paris")."""
    return re.sub(r"(?<![.!?:]\s)(?<!^)\b[A-Z]\S*", "", description)


def _speaks_of(parameter: Parameter, request: Request) -> bool:
    there = set(stems(request.text))
    values = [value for value in parameter.choices if isinstance(value, str)] + list(parameter.examples)
    return any(stems(value) and set(stems(value)) <= there for value in values)


def _choose(readings: Sequence[_Reading], index: _Index, text: str) -> None:
    for reading in readings:
        _best(reading, index)
    for at, reading in enumerate(readings):
        if reading.tool is not None and reading.lacks:
            _borrow(reading, reading.tool, [*readings[at + 1 :], *reversed(readings[:at])], index)
    for at, reading in enumerate(readings):
        if reading.undecided:
            _join(readings, at, index, text)


def _best(reading: _Reading, index: _Index) -> None:
    """Take the best tool whose arguments are there; else the best that is named."""
    top = reading.ranked[0][0] if reading.ranked else 0.0
    for score, tool in reading.ranked:
        filled = fill(tool, reading.request, index.vocabulary)
        fits = not filled.missing and score >= 0.6 * top
        if fits and (index.named(tool, reading.request) or (score >= 1 and tool.parameters)):
            reading.take(tool, filled)
            return
    for _, tool in reading.ranked:
        if index.named(tool, reading.request):
            reading.take(tool, fill(tool, reading.request, index.vocabulary))
            return


def _borrow(reading: _Reading, tool: Tool, others: Sequence[_Reading], index: _Index) -> None:
    """Look for what is missing in other requests."""
    for other in others:
        joined = Request(f"{reading.request.text} {other.request.text}", reading.request.start)
        filled = fill(tool, joined, index.vocabulary)
        if not filled.missing:
            reading.filled = filled
            return


def _join(readings: Sequence[_Reading], at: int, index: _Index, text: str) -> None:
    """Give a request that only holds values to the tool before it, else to the one after it."""
    own = readings[at]
    before = next((other for other in reversed(readings[:at]) if other.tool is not None), None)
    after = next((other for other in readings[at + 1 :] if other.tool is not None), None)
    if before is not None and before.tool is not None and before.filled.free:
        before.request = Request(text[before.request.start : own.request.end], before.request.start)
        before.filled = fill(before.tool, before.request, index.vocabulary)
        own.part_of_another = True
    elif _only_values(own.request, index):
        for other in (before, after):
            if other is not None and own.undecided:
                _follow(own, other.tool, index)


def _follow(reading: _Reading, tool: Tool | None, index: _Index) -> None:
    """Give a request to `tool`, where its values fit it."""
    filled = fill(tool, reading.request, index.vocabulary) if tool is not None else Filled()
    if tool is not None and filled.calls and not filled.free:
        reading.take(tool, filled)


def _only_values(request: Request, index: _Index) -> bool:
    """Whether a request says little beyond its values: "and Rome?", "what about 5 * 5"."""
    found = request.values(*_VALUES, vocabulary=index.vocabulary)
    rest = [word for word in request.words if word.plain not in STOPWORDS]
    outside = [word for word in rest if not any(value.start <= word.start < value.end for value in found)]
    about = request.text.casefold().startswith(("what about", "how about"))
    tells = not about and any(word.plain in {"tell", "show", "why", "who", "how"} for word in request.words)
    return bool(found) and len(outside) <= 1 and not tells


def _lean(readings: Sequence[_Reading], index: _Index, earlier: Sequence[Call], forced: bool) -> None:
    """Let a question without a tool, or without a value, lean on the conversation's last call."""
    last = next((call.tool for call in reversed(earlier) if call.tool in index.names), None)
    usual = next((tool for tool in index.tools if forced or tool.name == last), None)
    known = {name: value for call in earlier for name, value in call.args.items()}
    for reading in readings:
        if reading.undecided and usual is not None and forced:
            reading.take(usual, fill(usual, reading.request, index.vocabulary))
        elif reading.undecided and _only_values(reading.request, index):
            _follow(reading, usual, index)
        if reading.lacks and _points_back(reading.request) and set(reading.lacks) <= known.keys():
            reading.filled = Filled([{name: known[name] for name in reading.lacks}])


def _points_back(request: Request) -> bool:
    return any(word.plain in {"there", "it", "that", "same", "its", "this"} for word in request.words)


def _calls(readings: Sequence[_Reading]) -> tuple[Call, ...]:
    calls: list[Call] = []
    for reading in readings:
        if reading.tool is not None:
            made = [Call(reading.tool.name, args) for args in reading.filled.calls]
            calls += [call for at, call in enumerate(made) if call not in calls and call not in made[:at]]
    return tuple(calls)


def _problems(readings: Sequence[_Reading], index: _Index) -> tuple[str, ...]:
    problems: list[str] = []
    for reading in readings:
        said = _short(reading.request.text)
        if reading.tool is not None and reading.lacks:
            needed = " and ".join(f"`{name}`" for name in reading.lacks)
            problems.append(f"`{reading.tool.name}` needs {needed}, which is not in “{said}”.")
        elif reading.undecided and _says_something(reading.request):
            problems.append(f"None of the bound tools ({_listed(index.tools)}) fits “{said}”.")
    if not problems and all(reading.undecided for reading in readings):
        problems.append("The question asks for nothing that a tool could do.")
    return tuple(dict.fromkeys(problems))


def _says_something(request: Request) -> bool:
    return any(word.plain not in STOPWORDS for word in request.words)


def _unread(question: str, asked: Sequence[Request]) -> tuple[str, ...]:
    notes: list[str] = []
    if len(question) > READ_CHARS:
        notes.append(f"Only the first {READ_CHARS:,} of {len(question):,} characters were read.")
    if len(asked) > MAX_REQUESTS:
        notes.append(f"Only the first {MAX_REQUESTS} of {len(asked)} requests were taken.")
    return tuple(notes)


def _listed(tools: Sequence[Tool]) -> str:
    names = [tool.name for tool in tools]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[:limit].rstrip() + "…"
