"""The plain form of a value: None, bool, int, float, str, list and dict with text keys, and nothing else.

Tools return, and models ask with, whatever they like: NaN, an 80-bit integer, a lambda, a list that holds itself. The plain form
is what strict JSON, MessagePack and SQLite all take, so that one odd value cannot kill a run at the moment when it is written.

What must stay true
    1. Nothing raises, whatever a value's own methods do: a part that cannot be read becomes a mark that says so.
    2. No NaN, no infinity, no lone surrogate, no integer beyond 64 bits, at most MAX_DEPTH levels; and the plain form of a
       plain form is itself.
    3. The same value has the same form in another process: sets are sorted, memory addresses are left out.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set, ValuesView
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import Any, Final, TypeAlias

from agent_graph.errors import describe

__all__ = ["MAX_DEPTH", "Json", "TooLarge", "Walk", "dumps", "plain"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Layer: TypeAlias = "bool | int | float | str | list[Any] | Mapping[Any, Any] | None"

MAX_DEPTH: Final = 100
"""Levels of nesting that are kept: well below what readers of JSON and MessagePack take, and Python's own stack."""
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_BITS_IN_TEXT: Final = 14_000  # Python refuses to write integers of more than 4,300 digits
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_IN_ORDER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SORTED: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
_USUAL_TEXT: Final = frozenset(
    {"Decimal", "Fraction", "UUID", "date", "datetime", "time", "timedelta"}
    | {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"}
)
_AS_THEY_ARE: Final = frozenset({bool, list, dict})
_CONTAINERS: Final = (list, dict, Mapping)
_OCTETS: Final = (bytes, bytearray, memoryview)
_COLLECTIONS: Final = (tuple, Sequence, Set, ValuesView)
_SIMPLER: Final = (str, int, float, list, tuple, dict, type(None))


def plain(value: object) -> Json:
    """Return the plain form of `value`, all of it. Never raises."""
    return Walk().whole(value)


def dumps(value: Json, *, sort_keys: bool = False) -> str:
    """Return the compact JSON text of a plain value."""
    return (_SORTED if sort_keys else _IN_ORDER).encode(value)


class TooLarge(Exception):
    """The plain form is longer than the room for it."""


class Walk:
    """One value on its way to its plain form: the room that is left, the containers it is inside of, and what had to be changed."""

    def __init__(self) -> None:
        self.left: float = math.inf
        """Characters that the JSON may still take; `whole` counts a lower bound, so that it stops early on what is too large."""
        self.notes: dict[str, None] = {}
        """What had to be changed, in plain words, in the order in which it was met."""
        self._inside: set[int] = set()

    def whole(self, value: Any, depth: int = 0) -> Json:
        """Return the plain form of `value`. Raises TooLarge once its JSON must be longer than `left`, and nothing else."""
        kind = type(value)
        if kind is str:
            self._spend(len(value) + 2)  # first: a text of 100 MB is not even looked at
            return value if value.isascii() else self.clean(value)
        if value is None or kind is bool or (kind is int and _INT_MIN <= value <= _INT_MAX) or (kind is float and math.isfinite(value)):
            self.left -= 1
            return value  # type: ignore[no-any-return]  # a simple value, by the line above
        try:
            if kind is dict or kind is list:
                return self._within(value, value, depth)
            return self._whole(value, depth)
        except TooLarge:
            raise
        except Exception as error:  # noqa: BLE001  # the value's own methods ran: anything may have come
            return self.mark("unreadable", type(error).__name__)

    def _whole(self, value: Any, depth: int) -> Json:
        if isinstance(value, str):
            self._spend(len(value) + 2)
            return self.clean(str.__str__(value))
        simple = self.layer(value)
        if not isinstance(simple, _CONTAINERS):
            self._spend(len(simple) if isinstance(simple, str) else 1)
            return simple
        return self._within(value, simple, depth)

    def _within(self, value: Any, simple: list[Any] | Mapping[Any, Any], depth: int) -> Json:
        """Return the plain form of a container, for which `simple` stands."""
        if not self.enter(value, depth):
            return self.mark("left out", f"a cycle, or nested deeper than {MAX_DEPTH} levels")
        try:
            return self._items(simple, depth + 1) if isinstance(simple, list) else self._entries(simple, depth + 1)
        finally:
            self.leave(value)

    def layer(self, value: Any) -> Layer:
        """Return `value` itself if it is simple, else the list, mapping or simple value that stands for it, one level deep."""
        if value is None or type(value) in _AS_THEY_ARE:
            return value  # type: ignore[no-any-return]  # one of Layer's members, by the line above
        if isinstance(value, str):
            return self.clean(str.__str__(value))
        if isinstance(value, int):
            return self._integer(int.__int__(value))
        if isinstance(value, float):
            return self._real(float.__float__(value))
        if isinstance(value, Enum):
            return self.layer(value.value)
        if isinstance(value, _OCTETS):
            return self._octets(value)
        if isinstance(value, Mapping):
            return value
        if isinstance(value, _COLLECTIONS):
            return self._collection(value)
        return self._object(value)

    def mark(self, note: str, detail: str) -> str:
        """Return the text that stands in the place of something left out, and remember why."""
        self.notes[note] = None
        return f"[{note}: {detail}]"

    def clean(self, text: str) -> str:
        """Return `text` with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            self.notes["lone surrogates replaced"] = None
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def key(self, key: object, taken: Mapping[str, Json]) -> str:
        """Return the name under which an entry is kept: text, and not one of those already `taken`."""
        name = self.clean(str.__str__(key)) if isinstance(key, str) else self._key_text(key)
        unique, number = name, len(taken)
        while unique in taken:
            number += 1
            unique = f"{name} ({number})"
        return unique

    def enter(self, value: object, depth: int) -> bool:
        """Step into a container; False where that would be a cycle or too deep."""
        if depth >= MAX_DEPTH or id(value) in self._inside:
            return False
        self._inside.add(id(value))
        return True

    def leave(self, value: object) -> None:
        """Step out of a container again."""
        self._inside.discard(id(value))

    def _spend(self, chars: int) -> None:
        self.left -= chars
        if self.left < 0:
            raise TooLarge

    def _items(self, items: Iterable[Any], depth: int) -> list[Json]:
        found: list[Json] = []
        self._spend(1)
        for item in items:
            self._spend(1)
            found.append(self.whole(item, depth))
        return found

    def _entries(self, entries: Mapping[Any, Any], depth: int) -> dict[str, Json]:
        found: dict[str, Json] = {}
        self._spend(1)
        for key, item in entries.items():
            self._spend(len(key) + 4 if isinstance(key, str) else 4)
            name = key if type(key) is str and key.isascii() and key not in found else self.key(key, found)
            found[name] = self.whole(item, depth)
        return found

    def _key_text(self, key: object) -> str:
        simple = self.layer(key.value if isinstance(key, Enum) else key)
        if isinstance(simple, str):
            return simple
        self.notes["keys written as text"] = None
        return json.dumps(simple) if simple is None or isinstance(simple, bool | int | float) else self.clean(str(key))

    def _integer(self, value: int) -> int | str:
        if _INT_MIN <= value <= _INT_MAX:
            return value
        self.notes["an integer beyond 64 bits written as text"] = None
        return str(value) if value.bit_length() <= _BITS_IN_TEXT else f"[an integer of {value.bit_length():,} bits]"

    def _real(self, value: float) -> float | str:
        if math.isfinite(value):
            return value
        self.notes["NaN or infinity written as text"] = None
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _octets(self, value: bytes | bytearray | memoryview) -> str:
        data = bytes(memoryview(value).cast("B")[: self._room(4)])
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data" or len(data) == memoryview(value).nbytes:
                self.notes["bytes written as base64"] = None
                return base64.b64encode(data).decode()
            text = data[: error.start].decode()  # the room ended within a character
        self.notes["bytes read as UTF-8"] = None
        return text

    def _room(self, per_char: int) -> int | None:
        """How much of a value has to be looked at to know that there is no room for it; None: all of it."""
        return None if self.left == math.inf else max(0, int(self.left) + 1) * per_char

    def _collection(self, value: Sequence[Any] | Set[Any] | ValuesView[Any]) -> list[Any] | Mapping[str, Any]:
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return dict(zip(value._fields, value, strict=True))  # type: ignore[attr-defined]  # a named tuple, by its shape
        if not isinstance(value, Set):
            return list(islice(value, self._room(1)))
        self.notes["a set written as a sorted list"] = None
        return sorted((plain(item) for item in islice(value, self._room(1))), key=_sort_key)

    def _object(self, value: Any) -> Layer:
        held = self._held(value)
        if isinstance(held, _SIMPLER):
            return self.layer(held)
        text = self.clean(_text(value))
        if type(value).__name__ not in _USUAL_TEXT:
            self.notes[f"{type(value).__name__} written as text"] = None
        return text

    def _held(self, value: Any) -> Any:
        """Return what an object says that it holds (asked on its class: some objects say yes to any name), else the object."""
        kind = type(value)
        if is_dataclass(kind):
            return {field.name: getattr(value, field.name) for field in fields(kind)}
        if hasattr(kind, "__attrs_attrs__"):
            return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
        if hasattr(kind, "model_dump"):  # pydantic
            return value.model_dump()
        if hasattr(kind, "tolist") and getattr(value, "size", 0) <= self.left:  # numpy and its kin; a larger one abbreviates itself
            return value.tolist()
        return value


def _sort_key(item: Json) -> str:
    return dumps(item, sort_keys=True)


def _text(value: Any) -> str:
    if isinstance(value, BaseException):
        return describe(value)
    if hasattr(type(value), "isoformat"):
        return str(value.isoformat())
    text = str(value)
    return _ADDRESS.sub("", text) if text.startswith("<") else text
