"""How results are put into sentences."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph_adapters.offline.answering import Outcome, say


@pytest.mark.parametrize(
    ("tool", "args", "result", "said"),
    [
        ("calculator", {"expression": "17 * 23"}, "391", "17 * 23 = 391."),
        ("get_weather", {"city": "Rome"}, {"summary": "mild", "note": "a"}, "The weather in Rome is mild (a)."),
        (
            "weather", {"city": "Rome"}, {"city": "Rome", "temperature_c": 16, "wind_kmh": 9.5, "rain": None},
            "The weather in Rome: temperature 16 °C, wind 9.5 km/h.",
        ),
        ("getStockPrice", {"symbol": "ACME"}, "12.5", "The stock price for ACME is 12.5."),
        ("f", {"a": 1, "b": 2}, "3", "The f for 1, b 2 is 3."),
        ("search", {"query": "cats"}, ["one", "two"], "search(query: cats) returned 2: one; two."),
        ("search", {"query": "cats"}, [], "search(query: cats) returned nothing."),
        ("ping", {}, "", "ping() returned nothing."),
        ("ping", {}, "null", "ping() returned nothing."),
        ("ping", {}, " \n", "ping() returned nothing."),
        ("ping", {}, "pong", "The result of ping is pong."),
        ("ping", {}, "Everything is fine.", "Everything is fine."),
        ("ping", {}, True, "The result of ping is true."),
        ("ping", {}, '{"broken', 'The result of ping is {"broken.'),
        (
            "users", {"id": 1}, {"name": "Ann", "tags": ["a", "b"], "home": {"city": "Rome"}},
            "The users for 1: name Ann, tags a, b, home city Rome.",
        ),
    ],
)  # fmt: skip
def test_sentences(tool: str, args: dict[str, Any], result: Any, said: str) -> None:
    text = result if isinstance(result, str) else json.dumps(result)
    assert say(Outcome(tool, args, text, failed=False)) == said


@pytest.mark.parametrize(("reason", "said"), [("no luck", "no luck."), ("Why?", "Why?"), ("", "no reason was given.")])
def test_failures(reason: str, said: str) -> None:
    assert say(Outcome("ping", {"a": 1}, reason, failed=True)) == f"ping(a: 1) failed: {said}"


@pytest.mark.parametrize("result", ["x" * 5_000_000, "word " * 1_000_000, json.dumps(["y" * 50] * 90_000), "[" * 90_000])
def test_huge_results_are_cut_with_a_mark(result: str) -> None:
    said = say(Outcome("read", {"path": "a"}, result, failed=False))
    assert len(said) < 800
    assert "more" in said


@given(
    st.text(max_size=50),
    st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9), max_size=3),
    st.booleans(),
)
def test_always_a_sentence(result: str, args: dict[str, Any], failed: bool) -> None:
    assert say(Outcome("tool", args, result, failed)).strip()
