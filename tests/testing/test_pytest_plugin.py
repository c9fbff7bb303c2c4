"""The plugin gives each test a storage of its own, costs nothing, and can be turned off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TESTS = """
import os, sys

def test_first():
    path = os.environ["AGENT_GRAPH_STORAGE"]
    assert os.path.isdir(os.path.dirname(path)) and not os.path.exists(path)
    open(path, "w").write("mine")

def test_second():
    assert not os.path.exists(os.environ["AGENT_GRAPH_STORAGE"])

def test_nothing_heavy_was_imported():
    heavy = {"langgraph", "langchain_core", "pydantic", "hypothesis", "agent_graph.types"}
    assert not heavy & set(sys.modules)
"""


def run(folder: Path, tests: str, *, ini: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "agent_graph.testing.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_each_test_gets_a_storage_of_its_own_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS, AGENT_GRAPH_STORAGE="/developer.db")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_it_can_be_turned_off(tmp_path: Path) -> None:
    off = 'import os\ndef test_off():\n    assert os.environ["AGENT_GRAPH_STORAGE"] == "/developer.db"\n'
    done = run(tmp_path, off, ini="agent_graph_storage = false", AGENT_GRAPH_STORAGE="/developer.db")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
