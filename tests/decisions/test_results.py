"""Results: whatever a tool returned becomes strict JSON of a bounded size, with what was left out to be seen in its place."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.results import LEAST_CHARS, make_storable

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(categories=None)) | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(st.characters(categories=None)) | st.integers() | st.none(), inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=30,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Angry:
    """Answers every question with an error."""

    def __str__(self) -> str:
        raise ValueError("no")


class NamelessType(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # a type whose name cannot be read
        raise KeyError("no name")


class Nameless(metaclass=NamelessType):
    """A value whose class has no readable name."""


@pytest.mark.parametrize(
    ("value", "written", "text"),
    [
        pytest.param("It is 21 °C.", '"It is 21 °C."', "It is 21 °C.", id="a text is read as it is"),
        pytest.param({"b": 1, "a": [True, None]}, '{"b":1,"a":[true,null]}', '{"b":1,"a":[true,null]}', id="order is kept"),
        pytest.param(None, "null", "null", id="None"),
        pytest.param((1, 2), "[1,2]", "[1,2]", id="a tuple is a list"),
    ],
)
def test_ordinary_results_are_not_changed(value: Any, written: str, text: str) -> None:
    stored = make_storable(value)
    assert (stored.json, stored.text, stored.changed) == (written, text, None)


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        pytest.param(math.nan, "NaN or infinity written as text", id="nan"),
        pytest.param({"n": 2**80}, "an integer beyond 64 bits written as text", id="80 bits"),
        pytest.param(b"abc", "bytes read as UTF-8", id="bytes of text"),
        pytest.param([b"\xff"], "bytes written as base64", id="bytes"),
        pytest.param({"x", "y"}, "a set written as a sorted list", id="set"),
        pytest.param("\ud800", "lone surrogates replaced", id="surrogate"),
        pytest.param(lambda: 1, "function written as text", id="lambda"),
        pytest.param({1: 1}, "keys written as text", id="keys"),
        pytest.param([Angry()], "unreadable", id="unreadable"),
        pytest.param(Nameless(), "unreadable", id="nameless"),
        pytest.param("x" * 300, "cut to 200 characters", id="cut"),
        pytest.param([math.inf, b"a"], "NaN or infinity written as text; bytes read as UTF-8", id="two things"),
    ],
)
def test_changed_says_what_was_done(value: Any, changed: str) -> None:
    assert make_storable(value, max_chars=200).changed == changed


def test_a_text_is_cut_in_the_middle_with_a_visible_mark() -> None:
    stored = make_storable("A" * 5_000 + "Z" * 5_000, max_chars=1_000)
    assert stored.text.startswith("AAAA")
    assert stored.text.endswith("ZZZZ")
    assert "[cut: 9,064 of 10,000 characters left out]" in stored.text
    assert len(stored.text) <= 1_000
    assert json.loads(stored.json) == stored.text


def test_a_text_is_measured_without_its_escapes() -> None:
    text = "line\n" * 200
    stored = make_storable(text, max_chars=1_000)
    assert (stored.text, stored.changed) == (text, None)
    assert json.loads(stored.json) == text


def test_one_huge_entry_does_not_push_out_its_neighbours() -> None:
    page = {"status": 200, "body": "x" * 1_000_000, "links": ["a", "b"], "next": "/2"}
    kept = json.loads(make_storable(page, max_chars=2_000).json)
    assert {key: kept[key] for key in ("status", "links", "next")} == {"status": 200, "links": ["a", "b"], "next": "/2"}
    assert "characters left out]" in kept["body"]


def test_a_long_list_ends_with_what_is_missing() -> None:
    stored = make_storable(list(range(10_000)), max_chars=1_000)
    kept = json.loads(stored.json)
    assert len(stored.json) <= 1_000
    *numbers, mark = kept
    assert numbers == list(range(len(numbers)))
    assert mark == f"[cut: {10_000 - len(numbers):,} of 10,000 items left out]"
    assert len(numbers) > 100


def test_a_long_object_ends_with_what_is_missing() -> None:
    stored = make_storable({f"key{n}": n for n in range(1_000)} | {"[cut]": 1}, max_chars=1_000)
    kept = json.loads(stored.json)
    assert len(stored.json) <= 1_000
    mark = kept.pop("[cut]")
    assert mark == f"[cut: {1_001 - len(kept):,} of 1,001 entries left out]"
    assert all(kept[f"key{n}"] == n for n in range(len(kept)))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"body": "x" * 100_000_000}, id="100 MB of text in an object"),
        pytest.param("é" * 50_000_000, id="100 MB of text"),
        pytest.param(b"a" * 100_000_000, id="100 MB of bytes"),
        pytest.param(bytes(range(256)) * 400_000, id="100 MB of binary"),
        pytest.param([0] * 10_000_000, id="ten million numbers"),
        pytest.param(range(10**15), id="a range without end"),
        pytest.param({"x" * 50_000_000: 1}, id="a key of 50 MB"),
    ],
)
def test_memory_follows_the_limit_and_not_the_value(value: Any) -> None:
    tracemalloc.start()
    try:
        stored = make_storable(value, max_chars=10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert len(stored.text) <= 10_000
    assert stored.changed is not None
    json.loads(stored.json)


def test_a_limit_too_small_for_a_mark_is_raised() -> None:
    assert len(make_storable("x" * 1_000, max_chars=0).text) <= LEAST_CHARS


@settings(deadline=None)
@given(ANY, st.integers(0, 2_000))
def test_any_result_is_bounded_strict_json(value: Any, max_chars: int) -> None:
    stored = make_storable(value, max_chars=max_chars)
    room = max(max_chars, LEAST_CHARS)
    assert len(stored.text) <= room
    assert len(stored.json) <= (6 * room + 2 if isinstance(value, str) else room)
    stored.json.encode()
    kept = json.loads(stored.json, parse_constant=pytest.fail)
    assert stored.text in (kept, stored.json)


@settings(deadline=None, max_examples=50)
@given(st.lists(ANY, max_size=5), st.integers(200, 400))
def test_cut_results_stay_within_their_room(value: Any, max_chars: int) -> None:
    stored = make_storable([value, "\0" * 500, {"k": value, "\n" * 300: value}] * 3, max_chars=max_chars)
    assert len(stored.json) <= max_chars
    assert stored.changed is not None
    json.loads(stored.json, parse_constant=pytest.fail)


def test_a_text_of_a_class_of_its_own_takes_no_more_room() -> None:
    class Text(str):
        __slots__ = ()

    stored = make_storable([Text("x" * 190)], max_chars=200)
    assert (stored.json, stored.changed) == (f'["{"x" * 190}"]', None)


@settings(deadline=None, max_examples=50)
@given(JSON_VALUES)
def test_what_just_fits_comes_back_unchanged(value: Any) -> None:
    padded = {"padding": "x" * LEAST_CHARS, "value": value, "empty": [{}, []]}
    written = json.dumps(padded, ensure_ascii=False, separators=(",", ":"))
    stored = make_storable(padded, max_chars=len(written))
    assert (stored.json, stored.changed) == (written, None)
    assert make_storable(padded, max_chars=len(written) - 1).changed is not None


BYTES = {
    "text": (b"a" * 1_000, "aaaa"),
    "text of two bytes a character": ("é".encode() * 1_000, "éééé"),
    "the same, shifted by one": (b"a" + "é".encode() * 1_000, "aéééé"),
    "binary": (bytes(range(256)) * 10, "AAECAwQF"),
}


@pytest.mark.parametrize(("value", "beginning"), BYTES.values(), ids=BYTES.keys())
def test_the_beginning_of_long_bytes_is_kept(value: bytes, beginning: str) -> None:
    text = make_storable(value, max_chars=300).text
    assert text.startswith(beginning)
    assert text.endswith("[cut: only the beginning of these bytes is kept]")
    assert 250 < len(text) <= 300
    assert "\ufffd" not in text


def test_an_object_that_stands_twice_in_what_is_cut_is_no_cycle() -> None:
    part = {"text": "a" * 2_000}
    stored = make_storable([part, part, "b" * 5_000], max_chars=4_000)
    assert stored.json.count('{"text":"aaa') == 2
    assert "a cycle" not in stored.json
