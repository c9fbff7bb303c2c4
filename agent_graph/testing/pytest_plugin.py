"""The pytest plugin: each test gets its own storage, and may ask for `crash_fuzz`.

Loaded by pytest wherever agent_graph is installed. Without it, tests that make an agent and name no storage would all write into
`./.agent_graph/runs.db`, and a run_id used in two tests would be one conversation. It sets $AGENT_GRAPH_STORAGE for the time of a
test to a file that does not exist yet, in pytest's own temporary folder; nothing is created until an agent runs. Off:

```ini
[pytest]
agent_graph_storage = false
```

The fixture `crash_fuzz` is `agent_graph.testing.crash_fuzz`, which keeps the files of failing runs in the test's `tmp_path`.

It imports nothing but pytest: it is loaded in every test session, also those that never import agent_graph.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__: list[str] = []

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option that turns the plugin off."""
    parser.addini("agent_graph_storage", "give each test its own $AGENT_GRAPH_STORAGE (default: true)", type="bool", default=True)


@pytest.fixture(scope="session")
def _agent_graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent_graph")


@pytest.fixture(autouse=True)
def _agent_graph_storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getini("agent_graph_storage"):
        folder: Path = request.getfixturevalue("_agent_graph_folder")
        monkeypatch.setenv("AGENT_GRAPH_STORAGE", str(folder / f"runs-{next(_numbers)}.db"))


@pytest.fixture
def crash_fuzz(tmp_path: Path) -> Callable[..., Any]:
    """Kill the processes of an agent at its work, and judge: `agent_graph.testing.crash_fuzz`. See docs/crash-testing.md."""
    from agent_graph.testing import crash_fuzz as fuzz

    return functools.partial(fuzz, keep=tmp_path / "crash")
