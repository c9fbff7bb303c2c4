"""Which of the bound tools a question asks for, and with which arguments.

Each request is scored against each tool: words of the tool's name count 3, of its description 1, of its enums and
examples 2, an arithmetic expression for a tool that wants one 4, all divided by the number of tools that share the
word. A tool is chosen when its name is spoken of, or when the words point at it and everything it requires is there. A
request that points at no tool but holds values ("and Rome?") goes with the tool before it, or after it; one that lacks
a value borrows it from its neighbours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_graph_adapters.offline.filling import Filled, fill
from agent_graph_adapters.offline.reading import (
    READ_CHARS,
    STOPWORDS,
    Request,
    Vocabulary,
    requests,
    same_word,
    stem,
    stems,
)
from agent_graph_adapters.offline.schemas import Parameter, Tool

__all__ = ["Call", "Plan", "plan"]

MAX_REQUESTS = 64
"""Of one question; the rest is told as not read."""
# Verbs that say nothing of what a tool does.
_EMPTY_VERBS = frozenset(
    {"get", "fetch", "run", "do", "tool", "call", "execute", "make", "compute", "return", "give", "use"}
)


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
    filled: Filled | None = None


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
    _lean(readings, index, earlier, forced)
    problems = _problems(readings, index) + _unread(question, asked)
    return Plan(
        _calls(readings), problems, beyond=any(reading.tool is None and reading.filled is None for reading in readings)
    )


class _Index:
    """The bound tools, and how telling each of their words is."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tools
        self.names = {tool.name: set(stems(tool.name)) - _EMPTY_VERBS for tool in tools}
        properties = {tool.name: {part for one in tool.parameters for part in one.stems} for tool in tools}
        ignored = {stem(word) for word in STOPWORDS} | _EMPTY_VERBS
        self.described = {
            tool.name: set(stems(_without_names(tool.description)))
            - ignored
            - self.names[tool.name]
            - properties[tool.name]
            for tool in tools
        }
        self.shared = Counter(word for tool in tools for word in self.names[tool.name] | self.described[tool.name])
        names = frozenset[str]().union(*self.names.values(), *properties.values()) | _EMPTY_VERBS
        self.vocabulary = Vocabulary(names, frozenset[str]().union(*self.described.values()))

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
        hits = (next((one for one in known if same_word(word, one)), None) for word in words)
        return sum(1 / self.shared[hit] for hit in hits if hit is not None)

    def named(self, tool: Tool, request: Request) -> bool:
        """Whether a word of the tool's name is spoken."""
        return any(same_word(stem(word.text), part) for word in request.words for part in self.names[tool.name])


def _without_names(description: str) -> str:
    """Leave out the capitalised words inside sentences: in descriptions they are mostly examples ("such as Paris")."""
    return re.sub(r"(?<![.!?:]\s)(?<!^)\b[A-Z]\S*", "", description)


def _speaks_of(parameter: Parameter, request: Request) -> bool:
    there = set(stems(request.text))
    values = [value for value in parameter.choices if isinstance(value, str)] + list(parameter.examples)
    return any(stems(value) and set(stems(value)) <= there for value in values)


def _choose(readings: list[_Reading], index: _Index, text: str) -> None:
    for reading in readings:
        _best(reading, index)
    for at, reading in enumerate(readings):
        if reading.tool is not None and reading.filled is not None and reading.filled.missing:
            _borrow(readings, at, index)
    for at, reading in enumerate(readings):
        if reading.tool is None:
            _join(readings, at, index, text)


def _best(reading: _Reading, index: _Index) -> None:
    """Take the best tool whose arguments are there; else the best that is named."""
    top = reading.ranked[0][0] if reading.ranked else 0.0
    for score, tool in reading.ranked:
        filled = fill(tool, reading.request, index.vocabulary)
        fits = not filled.missing and score >= 0.6 * top
        if fits and (index.named(tool, reading.request) or (score >= 1 and tool.parameters)):
            reading.tool, reading.filled = tool, filled
            return
    for _, tool in reading.ranked:
        if index.named(tool, reading.request):
            reading.tool, reading.filled = tool, fill(tool, reading.request, index.vocabulary)
            return


def _borrow(readings: list[_Reading], at: int, index: _Index) -> None:
    """Look for what is missing in the requests after this one, then in those before."""
    own = readings[at]
    assert own.tool is not None
    for other in [*readings[at + 1 :], *reversed(readings[:at])]:
        joined = Request(f"{own.request.text} {other.request.text}", own.request.start)
        filled = fill(own.tool, joined, index.vocabulary)
        if not filled.missing:
            own.filled = filled
            return


def _join(readings: list[_Reading], at: int, index: _Index, text: str) -> None:
    """Give a request that only holds values to the tool before it, else to the one after it."""
    own = readings[at]
    before = next((other for other in reversed(readings[:at]) if other.tool is not None), None)
    if before is not None and before.filled is not None and before.filled.free and before.tool is not None:
        before.request = Request(text[before.request.start : own.request.end], before.request.start)
        before.filled = fill(before.tool, before.request, index.vocabulary)
        own.filled = Filled()
        return
    after = next((other for other in readings[at + 1 :] if other.tool is not None), None)
    if not _only_values(own.request, index):
        return
    for other in (before, after):
        if other is not None and other.tool is not None:
            filled = fill(other.tool, own.request, index.vocabulary)
            if filled.calls and not filled.free:
                own.tool, own.filled = other.tool, filled
                return


def _only_values(request: Request, index: _Index) -> bool:
    """Whether a request says little beyond its values: "and Rome?", "what about 5 * 5"."""
    found = request.values(
        "quoted", "expression", "number", "date", "email", "url", "name", "leading", "bare", vocabulary=index.vocabulary
    )
    rest = [word for word in request.words if word.plain not in STOPWORDS]
    outside = [word for word in rest if not any(value.start <= word.start < value.end for value in found)]
    tells = any(word.plain in {"tell", "show", "why", "who", "how"} for word in request.words) and not _what_about(
        request
    )
    return bool(found) and len(outside) <= 1 and not tells


def _what_about(request: Request) -> bool:
    return request.text.casefold().startswith(("what about", "how about"))


def _lean(readings: list[_Reading], index: _Index, earlier: Sequence[Call], forced: str | None) -> None:
    """Let a question without a tool, or without a value, lean on the conversation's last call."""
    last = next((call for call in reversed(earlier) if call.tool in index.names), None)
    usual = next((tool for tool in index.tools if last is not None and tool.name == last.tool), None)
    if forced is not None and usual is None:
        usual = next(iter(index.tools), None)
    for reading in readings:
        if (
            reading.tool is None
            and reading.filled is None
            and usual is not None
            and (forced or _only_values(reading.request, index))
        ):
            filled = fill(usual, reading.request, index.vocabulary)
            if forced or filled.calls:
                reading.tool, reading.filled = usual, filled
        if (
            reading.tool is not None
            and reading.filled is not None
            and reading.filled.missing
            and _points_back(reading.request)
        ):
            known = {name: value for call in earlier for name, value in call.args.items()}
            if set(reading.filled.missing) <= known.keys():
                reading.filled = Filled([{name: known[name] for name in reading.filled.missing}])


def _points_back(request: Request) -> bool:
    return any(word.plain in {"there", "it", "that", "same", "its", "this"} for word in request.words)


def _calls(readings: Sequence[_Reading]) -> tuple[Call, ...]:
    calls: list[Call] = []
    for reading in readings:
        if reading.tool is not None and reading.filled is not None:
            new = [Call(reading.tool.name, args) for args in reading.filled.calls]
            calls += [call for at, call in enumerate(new) if call not in calls and call not in new[:at]]
    return tuple(calls)


def _problems(readings: Sequence[_Reading], index: _Index) -> tuple[str, ...]:
    problems: list[str] = []
    for reading in readings:
        if reading.tool is not None and reading.filled is not None and reading.filled.missing:
            needed = " and ".join(f"`{name}`" for name in reading.filled.missing)
            problems.append(f"`{reading.tool.name}` needs {needed}, which is not in “{_short(reading.request.text)}”.")
        elif reading.tool is None and reading.filled is None and _says_something(reading.request):
            problems.append(f"None of the bound tools ({_listed(index.tools)}) fits “{_short(reading.request.text)}”.")
    if not problems and not any(reading.filled for reading in readings):
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
