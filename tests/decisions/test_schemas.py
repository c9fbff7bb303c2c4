"""Schemas of tools: what users write instead of JSON Schema, and what it is taken for."""

from __future__ import annotations

import socket
from typing import Any

import pydantic
import pytest

from agent_graph.decisions.schemas import object_schema, validator_of
from agent_graph.errors import ConfigError


class Query(pydantic.BaseModel):
    city: str


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


READ = {
    "none is any object": (None, {"type": "object"}),
    "true is any object": (True, {"type": "object"}),
    "nothing is any object": ({}, of()),
    "properties without a type": ({"properties": {"a": {}}}, of(a={})),
    "an object with only required": ({"required": ["a"]}, {"required": ["a"], "type": "object"}),
    "object or null": ({"type": ["object", "null"]}, {"type": ["object", "null"]}),
    "a union": ({"anyOf": [{"required": ["a"]}]}, {"anyOf": [{"required": ["a"]}], "type": "object"}),
    "a map of schemas": ({"a": {"type": "string"}}, of(a={"type": "string"})),
    "a map of types": ({"a": "string", "b": "integer"}, of(a={"type": "string"}, b={"type": "integer"})),
    "a map of Python's types by name": ({"a": "str", "b": "dict"}, of(a={"type": "string"}, b={"type": "object"})),
    "a map of Python's types": ({"a": str, "b": float}, of(a={"type": "string"}, b={"type": "number"})),
    "a map of descriptions": ({"a": "The city"}, of(a={"description": "The city"})),
    "a map with marks": (
        {"a": {"type": "string", "required": True}, "b": {"type": "string", "required": False}},
        {**of(a={"type": "string"}, b={"type": "string"}), "required": ["a"]},
    ),
    "a property's own list of required": (
        {"a": {"type": "object", "required": ["x"]}},
        of(a={"type": "object", "required": ["x"]}),
    ),
    "properties named like keywords": (
        {"type": {"type": "string"}, "properties": "string", "required": "boolean"},
        of(type={"type": "string"}, properties={"type": "string"}, required={"type": "boolean"}),
    ),
    "of a kind unknown": ({"a": 5}, of(a={})),
}


@pytest.mark.parametrize(("given", "schema"), READ.values(), ids=READ.keys())
def test_what_users_write(given: Any, schema: dict[str, Any]) -> None:
    assert object_schema(given, "f") == schema


def test_a_pydantic_class_tells_its_own_schema() -> None:
    schema = object_schema(Query, "f")
    assert schema["properties"]["city"]["type"] == "string"
    assert schema["required"] == ["city"]


def test_the_users_schema_is_not_changed() -> None:
    given: dict[str, Any] = {"properties": {"a": {"type": "string"}}}
    object_schema(given, "f")["properties"]["a"]["type"] = "integer"
    assert given == {"properties": {"a": {"type": "string"}}}


def test_a_fault_names_its_place() -> None:
    with pytest.raises(ConfigError, match=r"f: its parameters are no JSON Schema: at properties\.a\.required: True is not of type 'array'"):
        object_schema({"type": "object", "properties": {"a": {"required": True}}}, "f")


def test_the_schemas_own_draft_is_used() -> None:
    draft_4 = {"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}
    validator = validator_of(object_schema(draft_4, "f"))
    assert not validator.is_valid({"a": 1})
    assert validator.is_valid({"a": 2})


def test_a_reference_to_elsewhere_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema"
        validator = validator_of(object_schema({"properties": {"a": {"$ref": url}}}, "f"))
        with pytest.raises(Exception, match="Unresolvable"):
            validator.is_valid({"a": 1})
        with pytest.raises(BlockingIOError):
            server.accept()
