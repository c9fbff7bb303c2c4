"""What an import costs: the door is light, heavy packages are loaded by the first use that needs them."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiosqlite",
    "genai_prices",
    "httpx",
    "jsonschema",
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langgraph",
    "langsmith",
    "openai",
    "pydantic",
    "rich",
    "sqlite3",
    "tiktoken",
}
"""What `import agent_graph` must not load: together more than a second, against a few milliseconds without."""


def loaded_by(statement: str) -> set[str]:
    """The top-level names in sys.modules after `statement` in a fresh interpreter."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    # -I: neither the current folder nor PYTHONPATH helps, so this is the installed package as a user sees it.
    done = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("import agent_graph", id="the door"),
        pytest.param("from agent_graph import LLMBackend, Message, ToolCall", id="to implement a port"),
        pytest.param("from agent_graph import AgentConfig, ConfigError, RunFinished", id="values, errors, events"),
        pytest.param("import agent_graph_adapters", id="the adapters' package"),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


def test_the_check_sees_a_heavy_import() -> None:
    assert "sqlite3" in loaded_by("import agent_graph, sqlite3")
