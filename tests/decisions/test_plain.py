"""Plain forms: what strict JSON, MessagePack and SQLite take, made of whatever a tool returned."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import subprocess
import sys
import types
import uuid
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.plain import MAX_DEPTH, dumps, plain


class Colour(enum.Enum):
    RED = "red"


class Kind(enum.StrEnum):
    NEW = "new"


class Size(enum.IntEnum):
    BIG = 3


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Model(pydantic.BaseModel):
    name: str
    at: dt.date
    secret: pydantic.SecretStr = pydantic.SecretStr("hush")


class Numbers:
    """Quacks like a numpy array."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.size = len(numbers)

    def tolist(self) -> list[int]:
        return self.numbers


class Angry:
    """Answers every question with an error."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class AngryDict(dict):  # type: ignore[type-arg]  # any dict
    def items(self) -> Any:
        raise KeyError("no")


class Yes:
    """Says yes to every name, as mocks and remote objects do."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self

    def __repr__(self) -> str:
        return "a Yes"


Named = collections.namedtuple("Named", "a b")

SIMPLE = {
    "none": (None, None),
    "bool": (True, True),
    "int": (5, 5),
    "int at the edge": (2**64 - 1, 2**64 - 1),
    "int beyond": (2**64, str(2**64)),
    "int below": (-(2**63) - 1, str(-(2**63) - 1)),
    "int of 6,000 digits": (10**6000, "[an integer of 19,932 bits]"),
    "float": (0.5, 0.5),
    "nan": (math.nan, "NaN"),
    "inf": (math.inf, "Infinity"),
    "minus inf": (-math.inf, "-Infinity"),
    "text": ("é", "é"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "surrogate pair": ("\ud83d\ude00", "😀"),
    "bytes of text": (b"caf\xc3\xa9", "café"),
    "bytes": (b"\xff\xfe", "//4="),
    "bytes that end within a character": (b"a\xc3", "YcM="),
    "bytearray": (bytearray(b"x"), "x"),
    "memoryview": (memoryview(b"x"), "x"),
    "enum": (Colour.RED, "red"),
    "int enum": (Size.BIG, 3),
    "text enum": (Kind.NEW, "new"),
    "tuple": ((1, 2), [1, 2]),
    "named tuple": (Named(1, 2), {"a": 1, "b": 2}),
    "set": ({"b", "a", "c"}, ["a", "b", "c"]),
    "frozenset of mixed": (frozenset({1, "a", None}), ["a", 1, None]),
    "dict view": ({"a": 1}.values(), [1]),
    "keys view": ({"b": 1, "a": 2}.keys(), ["a", "b"]),
    "deque": (collections.deque([1, 2]), [1, 2]),
    "range": (range(3), [0, 1, 2]),
    "mapping proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "dataclass": (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
    "pydantic": (Model(name="n", at=dt.date(2026, 1, 2)), {"name": "n", "at": "2026-01-02", "secret": "**********"}),
    "array": (Numbers(1, 2), [1, 2]),
    "datetime": (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "uuid": (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "exception": (ValueError("boom"), "ValueError: boom"),
    "lambda, no address": ((lambda: 1), "<function <lambda>>"),
    "object, no address": (object(), "<object object>"),
    "class": (Point, f"<class '{__name__}.Point'>"),
    "address in a text of its own": (pathlib.PurePosixPath("/x at 0xff"), "/x at 0xff"),
    "says yes to everything": (Yes(), "a Yes"),
    "raises": (Angry(), "[unreadable: ValueError]"),
    "raises within": ({"a": Angry(), "b": 1}, {"a": "[unreadable: ValueError]", "b": 1}),
    "dict that raises": (AngryDict(a=1), "[unreadable: KeyError]"),
}


@pytest.mark.parametrize(("value", "expected"), SIMPLE.values(), ids=SIMPLE.keys())
def test_plain_form(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


KEYS = {
    "text": ({"a": 1}, {"a": 1}),
    "as json writes them": ({None: 1, True: 2, 7: 3, 0.5: 4}, {"null": 1, "true": 2, "7": 3, "0.5": 4}),
    "tuple": ({(1, 2): 1}, {"(1, 2)": 1}),
    "enum": ({Colour.RED: 1}, {"red": 1}),
    "surrogate": ({"\ud800": 1}, {"\ufffd": 1}),
    "none is lost to a namesake": ({1: "int", "1": "text"}, {"1": "int", "1 (2)": "text"}),
}


@pytest.mark.parametrize(("value", "expected"), KEYS.values(), ids=KEYS.keys())
def test_keys_become_text_and_none_is_lost(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_a_cycle_ends_in_a_mark() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    point = Point(1)
    point.y = {"back": point}
    assert plain(cycle) == [1, f"[left out: a cycle, or nested deeper than {MAX_DEPTH} levels]"]
    assert plain(point)["y"]["back"].startswith("[left out: a cycle")  # type: ignore[call-overload, index]  # plain JSON, whose shape this case knows


def test_what_is_shared_without_a_cycle_stays() -> None:
    shared = [1]
    assert plain([shared, shared]) == [[1], [1]]


def test_nesting_ends_at_the_limit() -> None:
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    depth, inner = 0, plain(nested)
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]
    assert depth == MAX_DEPTH
    assert isinstance(inner, str)


def test_nested_sets_take_no_exponential_time() -> None:
    nested: frozenset[Any] = frozenset()
    for number in range(60):
        nested = frozenset([nested, number])
    assert plain(nested)


def test_the_form_of_a_set_is_the_same_in_another_process() -> None:
    code = "from agent_graph.decisions.plain import *; print(dumps(plain({frozenset(map(str, range(i))) for i in range(9)})))"
    texts = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=None))
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.uuids(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(categories=None)) | st.integers() | st.floats() | st.none() | st.booleans(), inner)
        | st.frozensets(st.integers() | st.text() | st.binary())
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(ANY)
def test_any_value_has_a_strict_form_that_is_its_own(value: Any) -> None:
    form = plain(value)
    text = dumps(form)
    text.encode()
    assert json.loads(text) == form
    assert plain(form) == form
    assert plain(json.loads(text)) == form
