"""What a tool gave back, made fit to be stored and to be read by a model.

How it works
    A result is first walked whole (`plain.Walk`), which stops early on what is too large. Only then is it cut: texts in the
    middle, lists and objects at the end, each with a mark that says how much is missing. A child gets at most half of the room
    that is left, so that one huge entry does not push out its small neighbours. Time and memory follow `max_chars`, not the value.

What must stay true
    1. Nothing raises; the JSON is strict and always parses; its size is bounded.
    2. What fits is not touched: a plain value within `max_chars` comes back as it was, with `changed` None.
    3. What was left out can be seen in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent_graph.decisions.plain import Json, TooLarge, Walk, dumps

__all__ = ["Storable", "make_storable"]

LEAST_CHARS: Final = 200
"""A smaller `max_chars` is taken as this: the marks need their room."""
_MARK_CHARS: Final = 64  # the longest mark, in its quotes and brackets
_ENOUGH_CHARS: Final = 256  # with less room than this, a list or object ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Storable:
    """A value in the form in which it is stored and told to the model."""

    json: str
    """Strict JSON. At most `max_chars` characters; of a text, whose escapes come on top, at most six times that."""
    text: str
    """What the model reads: a text as it is, anything else as its JSON; at most `max_chars` characters."""
    changed: str | None
    """What was cut or had to be made storable, in plain words; None if nothing was."""


def make_storable(value: object, *, max_chars: int = 100_000) -> Storable:
    """Return `value` as strict JSON, and as text for the model of at most `max_chars` characters (at least 200). Never raises."""
    room = max(max_chars, LEAST_CHARS)
    walk = _Fit()
    try:
        kept, written = walk.text(value, room) if isinstance(value, str) else walk.fit(value, room)
    except Exception as error:  # noqa: BLE001  # the last line of "never raises": a value that cannot even be asked its class
        kept = walk.mark("unreadable", type(error).__name__)
        written = dumps(kept)
    text = kept if isinstance(kept, str) else written
    changed = [f"cut to {room:,} characters" if note == "cut" else note for note in walk.notes]
    return Storable(json=written, text=text, changed="; ".join(changed) or None)


class _Fit(Walk):
    """A walk that cuts what does not fit."""

    def text(self, value: str, room: int) -> tuple[str, str]:
        """Return a text cut to `room` characters, not counting the escapes that its JSON needs, and its JSON."""
        text = str.__str__(value)
        kept = self.clean(text if len(text) <= room else self._without_middle(text, room - _MARK_CHARS))
        return kept, dumps(kept)

    def fit(self, value: Any, room: int, depth: int = 0) -> tuple[Json, str]:
        """Return the plain form of `value`, cut so that its JSON takes at most `room` characters, and that JSON.

        `room` holds at least a mark.
        """
        self.left = room
        try:
            kept = self.whole(value, depth)
            written = dumps(kept)
            if len(written) <= room:
                return kept, written
        except TooLarge:
            pass
        self.left = room
        try:
            kept = self._cut(value, room, depth)
        except Exception as error:  # noqa: BLE001  # the value's own methods ran: anything may have come
            kept = self.mark("unreadable", type(error).__name__)
        return kept, dumps(kept)

    def _cut(self, value: Any, room: int, depth: int) -> Json:
        simple = str.__str__(value) if isinstance(value, str) else self.layer(value)
        if isinstance(simple, str):
            return self._cut_text(simple, room, value)
        if not isinstance(simple, list | Mapping):
            return simple
        if not self.enter(value, depth):
            return self.mark("left out", "a cycle, or nested too deep")
        try:
            cut = self._cut_items if isinstance(simple, list) else self._cut_entries
            return cut(simple, _size(value, simple), room - _MARK_CHARS, depth + 1)
        finally:
            self.leave(value)

    def _cut_text(self, text: str, room: int, source: object) -> str:
        shorten = self._beginning if isinstance(source, bytes | bytearray | memoryview) else self._without_middle
        keep = min(len(text), room - _MARK_CHARS)
        while True:
            kept = self.clean(shorten(text, max(keep, 0)))
            length = len(dumps(kept))
            if length <= room or keep <= 0:
                return kept
            keep = keep * room // length - 1  # escapes: "\u0000" takes six characters

    def _beginning(self, text: str, keep: int) -> str:
        return text[:keep] + self.mark("cut", "only the beginning of these bytes is kept")

    def _without_middle(self, text: str, keep: int) -> str:
        tail = keep // 3
        mark = self.mark("cut", f"{len(text) - keep:,} of {len(text):,} characters left out")
        return f"{text[: keep - tail]}{mark}{text[len(text) - tail :]}"

    def _cut_items(self, items: Any, size: int, room: int, depth: int) -> Json:
        found: list[Json] = []
        for item in items:
            if room < _ENOUGH_CHARS:
                found.append(self.mark("cut", f"{size - len(found):,} of {size:,} items left out"))
                break
            kept, written = self.fit(item, room // 2, depth)
            found.append(kept)
            room -= len(written) + 1
        return found

    def _cut_entries(self, entries: Any, size: int, room: int, depth: int) -> Json:
        found: dict[str, Json] = {}
        for key, item in entries.items():
            if room < _ENOUGH_CHARS:
                left_out = self.mark("cut", f"{size - len(found):,} of {size:,} entries left out")
                found[self.key("[cut]", found)] = left_out
                break
            name = self._key(key, room // 4, found)
            room -= len(dumps(name)) + 2
            found[name], written = self.fit(item, room // 2, depth)
            room -= len(written)
        return found

    def _key(self, key: object, room: int, taken: Mapping[str, Json]) -> str:
        if isinstance(key, str) and len(key) > room:
            key = self._cut_text(str.__str__(key), room, key)
        name = self.key(key, taken)
        return name if len(dumps(name)) <= room else self.key(self._cut_text(name, room, name), taken)


def _size(value: Any, simple: list[Any] | Mapping[Any, Any]) -> int:
    return len(value) if hasattr(type(value), "__len__") else len(simple)
