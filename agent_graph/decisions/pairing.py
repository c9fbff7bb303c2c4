"""Tool calls and their answers: whether a transcript is one that providers accept, and what to do if it is not.

OpenAI and Anthropic refuse a conversation in which a call has no answer, or an answer has no call, or something stands between the
two. Such conversations arise from crashes, cancelled turns, cut histories and other people's memories, so every list is repaired
before it goes to a model: an answer that stands in the wrong place is moved, one that belongs to nothing is dropped, one that is
missing is made up.

What must stay true
    1. After the repair every call is answered once, directly after its reply, and nothing else is a tool message.
    2. A valid list is not touched, so repairing twice changes nothing.
    3. No answer that belongs to a call is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Repairs", "View", "repaired", "repairs", "safe_cuts"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """What pairing needs to know of one message."""

    role: str
    """"system", "user", "assistant" or "tool"."""
    calls: tuple[str, ...] = ()
    """The ids of an assistant's tool calls, in order."""
    answers: str | None = None
    """The id of the call that a tool message answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """What makes a transcript valid. Falsy where nothing has to be done."""

    drop: tuple[int, ...] = ()
    """Indices of tool messages to take out of their place, ascending."""
    missing: tuple[tuple[int, str], ...] = ()
    """(index of the assistant message, call id) of calls that need an answer, in order; it goes after those already there."""
    moved: tuple[tuple[int, str, int], ...] = ()
    """Those of `missing` whose own answer stands elsewhere: (assistant, call id, index of the answer, which is one of `drop`)."""

    def __bool__(self) -> bool:
        return bool(self.drop or self.missing)


def repairs(views: Sequence[View]) -> Repairs:
    """Return what has to be done so that every call is answered directly after its reply, and nothing else is an answer."""
    return _read(views).repairs()


def repaired(items: Sequence[T], views: Sequence[View], make_answer: Callable[[int, str], T]) -> list[T]:
    """Return `items` (seen as `views`) made valid: the same objects, some moved, some dropped, some made.

    `make_answer(index of the assistant message, call id)` makes the answer to a call that has none.
    """
    found = repairs(views)
    if not found:
        return list(items)
    elsewhere: dict[tuple[int, str], list[int]] = {}
    for place, call_id, at in found.moved:
        elsewhere.setdefault((place, call_id), []).append(at)
    late: dict[int, list[T]] = {}
    for place, call_id in found.missing:
        answers = elsewhere.get((place, call_id))
        late.setdefault(place, []).append(items[answers.pop(0)] if answers else make_answer(place, call_id))
    dropped = set(found.drop)
    result: list[T] = []
    waiting: list[T] = []
    for at, item in enumerate(items):
        if views[at].role != "tool":
            result += waiting
            waiting = late.get(at, [])
        if at not in dropped:
            result.append(item)
    return result + waiting


def safe_cuts(views: Sequence[View]) -> list[int]:
    """Return the indices, 0 and the length included, before which a list may be cut without parting a call from its answer."""
    found = _read(views)
    answered = [*((place, at) for at, place in found.owners.items()), *((place, at) for place, _, at in found.moved)]
    within = {cut for place, at in answered for cut in range(place + 1, at + 1)}
    return [cut for cut in range(len(views) + 1) if cut not in within]


@dataclass(slots=True)
class _Pairs:
    """Who answers whom, as far as one pass over the list can tell."""

    owners: dict[int, int] = field(default_factory=dict)
    """Answers in their right place: index of the tool message -> index of its assistant message."""
    unanswered: dict[int, list[str]] = field(default_factory=dict)
    """Index of an assistant message -> ids of its calls that have no answer in the right place."""
    astray: list[int] = field(default_factory=list)
    """Tool messages that stand in no right place."""
    moved: list[tuple[int, str, int]] = field(default_factory=list)
    """Those of `astray` that have an owner before them."""

    def repairs(self) -> Repairs:
        missing = tuple((place, call_id) for place, calls in self.unanswered.items() for call_id in calls)
        return Repairs(drop=tuple(self.astray), missing=missing, moved=tuple(sorted(self.moved)))


def _read(views: Sequence[View]) -> _Pairs:
    found = _Pairs()
    reply = -1
    for at, view in enumerate(views):
        if view.role != "tool":
            reply = at
            if view.role == "assistant" and view.calls:
                found.unanswered[at] = list(view.calls)
        elif view.answers is not None and view.answers in found.unanswered.get(reply, ()):
            found.unanswered[reply].remove(view.answers)
            found.owners[at] = reply
        else:
            found.astray.append(at)
    _find_owners(views, found)
    return found


def _find_owners(views: Sequence[View], found: _Pairs) -> None:
    """Give each answer that went astray to the latest reply before it that still waits for it."""
    waiting = {place: list(calls) for place, calls in found.unanswered.items() if calls}
    for at in found.astray:
        call_id = views[at].answers
        place = next((place for place in reversed(waiting) if place < at and call_id in waiting[place]), None)
        if place is not None and call_id is not None:
            waiting[place].remove(call_id)
            found.moved.append((place, call_id, at))
