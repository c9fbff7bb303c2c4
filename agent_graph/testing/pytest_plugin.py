"""The pytest plugin: each test gets its own storage.

Loaded by pytest wherever agent_graph is installed. Without it, tests that make an agent and name no storage would all write into
`./.agent_graph/runs.db`, and a run_id used in two tests would be one conversation. It sets $AGENT_GRAPH_STORAGE for the time of a
test to a file that does not exist yet, in pytest's own temporary folder; nothing is created until an agent runs. Off:

```ini
[pytest]
agent_graph_storage = false
```

It imports nothing but pytest: it is loaded in every test session, also those that never import agent_graph.
"""

from __future__ import annotations

import itertools
from pathlib import Path

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
