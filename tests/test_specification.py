"""Every member of the specification's starter code, compared with ours.

`data/starter_code.py` is the specification's code block, verbatim. Allowed beyond it are dataclass fields after the specification's,
with defaults, and keyword-only parameters with defaults; nothing else.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import runpy
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

STARTER_CODE = Path(__file__).parent / "data" / "starter_code.py"
OURS = importlib.import_module("agent_graph")


def _class_names() -> list[str]:
    tree = ast.parse(STARTER_CODE.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


THEIRS = runpy.run_path(str(STARTER_CODE))
CLASSES = _class_names()
ENUMS = [name for name in CLASSES if issubclass(THEIRS[name], enum.Enum)]
DATACLASSES = [name for name in CLASSES if dataclasses.is_dataclass(THEIRS[name])]
INTERFACES = [name for name in CLASSES if inspect.isabstract(THEIRS[name])]
METHODS = [
    (name, method)
    for name in CLASSES
    for method, value in vars(THEIRS[name]).items()
    if isinstance(value, FunctionType) and name not in ENUMS + DATACLASSES
]


def test_the_starter_code_is_read_whole() -> None:
    assert CLASSES == [
        "MessageRole", "Message", "ToolCall", "AgentRun",
        "LLMBackend", "ToolBackend", "MemoryBackend", "ObservabilityBackend", "ProductionAgent",
    ]  # fmt: skip
    assert ENUMS == ["MessageRole"]
    assert DATACLASSES == ["Message", "ToolCall", "AgentRun"]
    assert INTERFACES == ["LLMBackend", "ToolBackend", "MemoryBackend", "ObservabilityBackend"]
    assert len(METHODS) == 7 + 6


@pytest.mark.parametrize("name", CLASSES)
def test_the_door_has_every_class_under_its_name_with_its_bases(name: str) -> None:
    theirs, ours = THEIRS[name], getattr(OURS, name)
    assert ours.__name__ == name
    assert name in OURS.__all__
    assert [base.__name__ for base in ours.__bases__] == [base.__name__ for base in theirs.__bases__]


@pytest.mark.parametrize("name", ENUMS)
def test_enums_have_the_same_members_and_values_in_the_same_order(name: str) -> None:
    assert [(member.name, member.value) for member in getattr(OURS, name)] == [(member.name, member.value) for member in THEIRS[name]]


def _field(field: dataclasses.Field[Any]) -> tuple[str, str, object, object]:
    return field.name, str(field.type).removeprefix("<class '").removesuffix("'>").split(".")[-1], field.default, field.default_factory


@pytest.mark.parametrize("name", DATACLASSES)
def test_dataclasses_begin_with_the_same_fields_types_and_defaults(name: str) -> None:
    theirs = [_field(field) for field in dataclasses.fields(THEIRS[name])]
    ours = [_field(field) for field in dataclasses.fields(getattr(OURS, name))]
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("name", DATACLASSES)
def test_dataclasses_have_only_defaulted_fields_beyond(name: str) -> None:
    missing = dataclasses.MISSING
    extra = dataclasses.fields(getattr(OURS, name))[len(dataclasses.fields(THEIRS[name])) :]
    assert [field.name for field in extra if field.default is missing and field.default_factory is missing] == []


@pytest.mark.parametrize("name", DATACLASSES)
def test_dataclasses_stay_plain_and_mutable(name: str) -> None:
    theirs, ours = THEIRS[name].__dataclass_params__, getattr(OURS, name).__dataclass_params__
    assert (ours.frozen, ours.eq, ours.order, ours.init) == (theirs.frozen, theirs.eq, theirs.order, theirs.init)


@pytest.mark.parametrize("name", INTERFACES)
def test_interfaces_have_the_same_abstract_methods_and_no_more(name: str) -> None:
    assert getattr(OURS, name).__abstractmethods__ == THEIRS[name].__abstractmethods__


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[f"{name}.{method}" for name, method in METHODS])
def test_methods_take_the_same_parameters_in_the_same_way(name: str, method: str) -> None:
    theirs, ours = getattr(THEIRS[name], method), getattr(getattr(OURS, name), method)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    expected = list(inspect.signature(theirs).parameters.values())
    given = list(inspect.signature(ours).parameters.values())
    assert [(p.name, p.kind, p.default) for p in given[: len(expected)]] == [(p.name, p.kind, p.default) for p in expected]
    for extra in given[len(expected) :]:
        assert extra.kind in (extra.KEYWORD_ONLY, extra.VAR_KEYWORD), f"{extra.name} may be given by position"
        assert extra.kind is extra.VAR_KEYWORD or extra.default is not extra.empty, f"{extra.name} has no default"


def _members(node: ast.ClassDef) -> list[str]:
    """Return what the body of a class names: members of an enum, fields, methods."""
    named = []
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            named.append(statement.name)
        elif isinstance(statement, ast.AnnAssign | ast.Assign):
            [target] = [statement.target] if isinstance(statement, ast.AnnAssign) else statement.targets
            named.append(target.id)  # type: ignore[attr-defined]  # a plain name in each of them
    return named


def test_nothing_of_the_starter_code_is_left_out() -> None:
    tree = ast.parse(STARTER_CODE.read_text(encoding="utf-8"))
    members = [(node.name, member) for node in tree.body if isinstance(node, ast.ClassDef) for member in _members(node)]
    assert len(members) == 4 + 3 + 6 + 10 + 13
    fields = {name: {field.name for field in dataclasses.fields(getattr(OURS, name))} for name in DATACLASSES}
    left_out = [
        (name, member) for name, member in members if member not in fields.get(name, set()) and not hasattr(getattr(OURS, name), member)
    ]
    assert left_out == []
