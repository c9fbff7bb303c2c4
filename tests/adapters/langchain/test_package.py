"""The package's own door: sorted, resolvable, documented, the same to type checkers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import agent_graph_adapters.langchain as package


def test_the_names_are_sorted_and_the_same_in_all_three_lists() -> None:
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(package._HOME_OF.items())
    assert package.__all__ == sorted(package._HOME_OF)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", package.__all__)
def test_a_name_is_importable_and_documented(name: str) -> None:
    assert getattr(package, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'as_runable'"):
        _ = package.as_runable  # type: ignore[attr-defined]  # that it is not there is the point
