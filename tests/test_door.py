"""The door: its names are sorted, resolvable, documented and seen by type checkers, and it opens at once."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import agent_graph

ROOT = Path(__file__).parents[1]


def test_the_names_are_sorted_and_single() -> None:
    assert agent_graph.__all__ == sorted(set(agent_graph.__all__))


@pytest.mark.parametrize("name", agent_graph.__all__)
def test_a_name_is_importable_and_documented(name: str) -> None:
    value = getattr(agent_graph, name)
    assert getattr(agent_graph, name) is value
    if name != "Event":  # an alias of a union, which can carry no docstring
        own = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
        assert own, f"{name} has no docstring of its own"
        assert not own.startswith(f"{name}("), f"{name} has only the docstring that dataclass makes"


@pytest.mark.parametrize("name", agent_graph.__all__)
def test_a_name_lives_where_the_door_says(name: str) -> None:
    value = getattr(agent_graph, name)
    home = agent_graph._HOME_OF[name]
    assert getattr(value, "__module__", home).startswith((home, "typing", "types"))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(agent_graph.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(agent_graph._HOME_OF.items())
    assert {name for name, _ in seen} == set(agent_graph.__all__)


def test_dir_lists_every_name() -> None:
    assert set(agent_graph.__all__) <= set(dir(agent_graph))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ProductionAgnet'"):
        _ = agent_graph.ProductionAgnet  # type: ignore[attr-defined]  # that it is not there is the point


def test_the_version_is_the_one_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert agent_graph.__version__ == project["version"]


def test_importing_takes_less_than_150_ms() -> None:
    code = "import time; t = time.process_time(); import agent_graph; print(time.process_time() - t)"
    seconds = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(5)
    ]  # of the processor: it may be taken away meanwhile
    assert min(map(float, seconds)) < 0.150
