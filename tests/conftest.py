"""How the tests are run: Hypothesis profiles, and an environment without keys. Fixtures live beside the tests that use
them, or in `agent_graph.testing`; here are those that several files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# `quick` looks for new counter-examples at each run; `ci` repeats the same examples, so that a red run is the commit's
# doing. HYPOTHESIS_PROFILE=nightly searches long. No deadline: the machine may be busy, and time is not what is tested.
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick"))

# A developer's own keys and settings: a test that reached for one would cost money, trace to an account, or pass on one
# machine only. Removed here and not in a fixture, so that child processes and module-level code do not see them either.
OF_THE_DEVELOPER = ("AGENT_GRAPH_", "ANTHROPIC_", "AZURE_OPENAI_", "GOOGLE_", "LANGCHAIN_", "LANGSMITH_", "OPENAI_")
for name in [name for name in os.environ if name.startswith(OF_THE_DEVELOPER)]:
    del os.environ[name]

# Started in the background by a script (`make test &`, nohup) a process ignores Ctrl-C, and so would every child that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what makes the fault matrix's fast column the nightly one."""
    parser.addoption("--storm", action="store_true", help="the fault matrix in its nightly sizes, without time limits; hours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--storm"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Chooses how often a fault falls: `times(50, 1_000)` is 50, and 1,000 with --storm."""
    storm = request.config.getoption("--storm")
    return lambda fast, nightly: nightly if storm else fast


# No vocabulary that lies around on this machine: counts are the same everywhere (see agent_graph/runtime/vocabulary.py).
os.environ["TIKTOKEN_CACHE_DIR"] = ""


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, in a home of one's own, with nothing configured."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    for name in ("AGENT_GRAPH_STORAGE", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def no_file(tmp_path: Path) -> Iterator[None]:
    """Nothing may be written."""
    yield
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file()] == []
