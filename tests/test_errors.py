"""The texts that several places share: what is near, and what is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from agent_graph.errors import ConfigError, MissingPackage, blame, describe, did_you_mean, optional

ASKS = {
    "from agent_graph_adapters.langchain import BudgetMiddleware": "Middleware for create_agent needs langchain: {extra}[langchain]'",
    "from agent_graph_adapters.langchain.middleware.retry import RetryMiddleware": "Middleware for create_agent needs langchain",
    "import agent_graph as a; a.create_production_agent('anthropic:x')": "The model 'anthropic:x' needs langchain: {extra}[langchain]'",
    "import agent_graph as a; a.create_production_agent('offline', middleware=[3])": "middleware= needs langchain: {extra}[langchain]'",
    "import asyncio, agent_graph_adapters.mcp as m; asyncio.run(m.load_tools({}))": "load_tools needs {mcp}: {extra}[mcp]'",
    "from agent_graph.testing import LLMContract": "agent_graph.testing.LLMContract needs pytest: pip install pytest",
    "import agent_graph.testing.strategies": "agent_graph.testing.strategies needs hypothesis: pip install hypothesis",
}
PROGRAM = """
import importlib.abc, json, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("langchain", "langchain_mcp_adapters", "mcp", "pytest", "hypothesis"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
said = {}
for statement in json.loads(sys.argv[1]):
    try:
        exec(statement)
    except ImportError as error:
        said[statement] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def test_each_place_says_what_to_install(tmp_path: object) -> None:
    """`No module named 'langchain'` was all that a newcomer was told."""
    asked = [sys.executable, "-c", PROGRAM, json.dumps(list(ASKS))]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for statement, due in ASKS.items():
        text = due.format(extra="pip install 'agent-graph-runtime", mcp="langchain_mcp_adapters")
        assert said[statement].startswith(f"MissingPackage: {text}"), statement


def test_an_import_that_fails_for_another_reason_is_not_explained_away() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), optional("This"):
        import no_such_module  # noqa: F401  # type: ignore[import-not-found]  # that is the point
    assert issubclass(MissingPackage, ConfigError)
    assert issubclass(MissingPackage, ImportError)


@pytest.mark.parametrize(
    ("typed", "most", "says"),
    [("max_stps", 1, " Did you mean 'max_steps'?"), ("max_t", 2, " Did you mean 'max_steps' or 'max_tokens'?"), ("zzz", 3, ""), (5, 1, "")],
)
def test_what_is_near(typed: object, most: int, says: str) -> None:
    assert did_you_mean(typed, ["max_steps", "max_tokens", "timeout_s"], most=most) == says


class Mute(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_an_error_that_cannot_say_itself_is_described_and_blamed_all_the_same() -> None:
    """The reservation of the call that had raised it was never closed."""
    assert describe(Mute()) == "Mute: (its text cannot be read)"
    error = Frozen(5)
    blame(error, "memory.load")
    assert describe(error).startswith("Frozen: ")
