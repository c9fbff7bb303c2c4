"""agent_graph.testing is lazy: its names are there, sorted, and imported when first asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import agent_graph.testing as door

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", door.__all__)
def test_every_name_is_there_with_a_docstring(name: str) -> None:
    assert getattr(door, name).__doc__


def test_the_lists_agree() -> None:
    tree = ast.parse(Path(door.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in ast.walk(tree) if isinstance(node, ast.If))
    imported = {alias.name for node in ast.walk(checked) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(door.__all__) == set(door._HOME)
    assert dir(door) == sorted(door.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Mock'"):
        _ = door.Mock  # type: ignore[attr-defined]  # that it is missing is what is tested


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, agent_graph.testing; print(sorted(m for m in sys.modules if m.startswith(('agent_graph.', 'langch', 'hypoth'))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['agent_graph.testing']"
