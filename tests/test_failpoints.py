"""Failpoints do nothing until a test arms them, and every name is used once."""

from __future__ import annotations

import re
import timeit
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_graph_adapters
from agent_graph import failpoints
from agent_graph.failpoints import failpoint

PACKAGE = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


def test_an_armed_failpoint_calls_the_hook_with_its_name_until_it_is_disarmed() -> None:
    passed: list[str] = []
    failpoint("a")
    failpoints.arm(passed.append)
    failpoint("b")
    failpoints.disarm()
    failpoint("c")
    assert passed == ["b"]


def test_an_unarmed_failpoint_is_nearly_free() -> None:
    assert min(timeit.repeat(lambda: failpoint("a"), number=10_000, repeat=5)) < 0.02, "seconds for 10,000"


def test_each_name_stands_at_one_place_and_says_where() -> None:
    folders = (PACKAGE, Path(agent_graph_adapters.__file__).parent)
    files = [path for folder in folders for path in folder.rglob("*.py")]
    sources = [path for path in files if "testing" not in path.parts and path.name != "failpoints.py"]
    names = Counter(name for path in sources for name in re.findall(r'failpoint\("([^"]*)"\)', path.read_text(encoding="utf-8")))
    assert sorted(names) == sorted(failpoints.NAMES)
    assert {name for name, count in names.items() if count > 1} == set()
    assert [name for name in names if not re.fullmatch(r"[a-z]+\.[a-z_]+", name)] == []
