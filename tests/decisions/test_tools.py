"""Tools: every layout that people bring, and what the model is told about arguments that do not fit."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.tools import ToolSpec, canonical_json, check_args, read_tools
from agent_graph.errors import ConfigError

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

LAYOUTS = {
    "the layout we write": {"name": "f", "description": "d", "parameters": CITY},
    "Anthropic": {"name": "f", "description": "d", "input_schema": CITY},
    "LangChain": {"name": "f", "description": "d", "args_schema": CITY},
    "MCP": {"name": "f", "description": "d", "inputSchema": CITY, "annotations": {"title": "F"}},
    "OpenAI Chat": {"type": "function", "function": {"name": "f", "description": "d", "parameters": CITY}},
    "OpenAI Responses": {"type": "function", "name": "f", "description": "d", "parameters": CITY, "strict": True},
    "OpenAI without its type": {"function": {"name": "f", "description": "d", "parameters": CITY}},
}


def one(entry: Any) -> ToolSpec:
    (spec,) = read_tools([entry])
    return spec


@pytest.mark.parametrize("entry", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_reads_the_same(entry: dict[str, Any]) -> None:
    spec = one(entry)
    assert (spec.name, spec.description, spec.parameters) == ("f", "d", CITY)
    assert (spec.idempotent, spec.timeout_s, spec.sensitive) == (None, None, False)
    assert spec.raw is entry


MARKS = {
    "not said": ({}, None),
    "idempotent": ({"idempotent": True}, True),
    "not idempotent": ({"idempotent": False}, False),
    "the word turned round": ({"non_idempotent": True}, False),
    "turned round twice": ({"non_idempotent": False}, True),
    "None is not said": ({"idempotent": None}, None),
    "inside OpenAI's function": ({"function": {"name": "f", "idempotent": False}}, False),
    "beside OpenAI's function": ({"function": {"name": "f"}, "idempotent": False}, False),
    "in metadata": ({"metadata": {"idempotent": False}}, False),
    "in extras": ({"extras": {"idempotent": False}}, False),
    "MCP: only reads": ({"annotations": {"readOnlyHint": True}}, True),
    "MCP: may be repeated": ({"annotations": {"idempotentHint": True}}, True),
    "MCP: may not": ({"annotations": {"readOnlyHint": False, "idempotentHint": False}}, False),
    "the user's word before MCP's": ({"idempotent": False, "annotations": {"readOnlyHint": True}}, False),
}


@pytest.mark.parametrize(("marks", "expected"), MARKS.values(), ids=MARKS.keys())
def test_idempotency_marks(marks: dict[str, Any], expected: bool | None) -> None:
    assert one({"name": "f", **marks}).idempotent is expected


def test_timeout_and_sensitive() -> None:
    spec = one({"name": "f", "timeout_s": 2, "sensitive": True})
    assert (spec.timeout_s, spec.sensitive) == (2.0, True)


REFUSED = {
    "not a list": ({"name": "f"}, "tools: a list of mappings is due, not dict."),
    "not a mapping": (["f"], "tools[0]: a mapping with name, description and parameters is due, not str."),
    "a function": ([len], "create_production_agent"),
    "no name": ([{"description": "d"}], "tools[0]: a name is due"),
    "an empty name": ([{"name": " "}], "tools[0]: a name is due"),
    "a name that is no text": ([{"name": 5}], "tools[0]: a name is due"),
    "two of one name": ([{"name": "f"}, {"function": {"name": "f"}}], "tools[1]: two tools are named 'f'"),
    "a schema of nothing": ([{"name": "f", "parameters": 5}], "a JSON Schema is due (a mapping), not int"),
    "a schema of text": ([{"name": "f", "parameters": {"type": "string"}}], "the arguments of a tool are an object"),
    "a schema of text or null": ([{"name": "f", "parameters": {"type": ["string", "null"]}}], "the arguments of a tool are an object"),
    "no JSON Schema": ([{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "text"}}}}], "properties.a.type"),
    "a misspelt mark": ([{"name": "f", "idempotant": False}], "unknown key 'idempotant'. Did you mean 'idempotent'?"),
    "a mark in another spelling": ([{"name": "f", "nonIdempotent": True}], "unknown key 'nonIdempotent'"),
    "a misspelt mark inside": ([{"function": {"name": "f", "is_idempotent": False}}], "Did you mean"),
    "a mark that is no bool": ([{"name": "f", "idempotent": "no"}], "True or False is due, not 'no'"),
    "both marks": ([{"name": "f", "idempotent": True, "non_idempotent": True}], "are both True"),
    "timeout 0": ([{"name": "f", "timeout_s": 0}], "timeout_s: a number of seconds above 0 is due, not 0"),
    "timeout below 0": ([{"name": "f", "timeout_s": -1}], "not -1"),
    "timeout nan": ([{"name": "f", "timeout_s": math.nan}], "not nan"),
    "timeout inf": ([{"name": "f", "timeout_s": math.inf}], "not inf"),
    "timeout true": ([{"name": "f", "timeout_s": True}], "not True"),
    "timeout text": ([{"name": "f", "timeout_s": "5"}], "not '5'"),
}


@pytest.mark.parametrize(("tools", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_understood_is_refused_with_its_place(tools: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_tools(tools)
    assert says in str(refused.value)


SPEC = one(
    {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "nights": {"type": "integer", "minimum": 1},
                "guests": {"type": "array", "items": {"type": "object", "properties": {"age": {"type": "number"}}}},
                "date": {"anyOf": [{"type": "object", "required": ["day"]}, {"type": "null"}]},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }
)

ARGS = {
    "right": ({"city": "Paris", "nights": 2}, None),
    "no object": (["Paris"], "The arguments must be one JSON object, not list."),
    "nothing": (None, "The arguments must be one JSON object, not nothing."),
    "missing": ({}, "The arguments do not fit book: 'city' is a required property."),
    "wrong type": ({"city": 5}, "The arguments do not fit book: city: 5 is not of type 'string'."),
    "true is no number": ({"city": "P", "nights": True}, "nights: True is not of type 'integer'"),
    "too small": ({"city": "P", "nights": 0}, "nights: 0 is less than the minimum of 1"),
    "deep": ({"city": "P", "guests": [{"age": 1}, {"age": "old"}]}, "guests.1.age: 'old' is not of type 'number'"),
    "unknown": ({"city": "P", "town": "P"}, "'town' was unexpected"),
    "the nearest branch of an anyOf": ({"city": "P", "date": {}}, "date: 'day' is a required property"),
    "two faults": ({"nights": "2"}, "nights: '2' is not of type 'integer'; 'city' is a required property"),
}


@pytest.mark.parametrize(("args", "told"), ARGS.values(), ids=ARGS.keys())
def test_arguments_are_judged_in_words_for_the_model(args: Any, told: str | None) -> None:
    said = check_args(SPEC, args)
    assert said is None if told is None else said is not None and told in said


def test_a_huge_wrong_value_is_not_repeated_to_the_model() -> None:
    said = check_args(SPEC, {"city": ["x" * 1_000_000]})
    assert said is not None
    assert len(said) < 500


WEIRD = {
    "a loop": {"$ref": "#"},
    "a loop by two": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a reference to nowhere": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    "a reference to the network": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}},
    "an unknown draft": {"$schema": "urn:nothing", "type": "object"},
    "a broken pattern": {"type": "object", "properties": {"a": {"pattern": "("}}},
    "a pattern in another language": {"type": "object", "properties": {"a": {"pattern": "^\\p{L}+$"}}},
}


@pytest.mark.parametrize("schema", WEIRD.values(), ids=WEIRD.keys())
def test_a_schema_that_cannot_be_applied_never_raises_at_a_call(schema: dict[str, Any]) -> None:
    assert check_args(one({"name": "f", "parameters": schema}), {"a": "x"}) is None


def test_a_recursive_schema_judges_finite_arguments() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "value": {"type": "integer"}}}
    spec = one({"name": "f", "parameters": tree})
    assert check_args(spec, {"left": {"left": {"value": 1}}}) is None
    assert check_args(spec, {"left": {"left": {"value": "1"}}}) is not None


CANONICAL = {
    "sorted": ({"b": 1, "a": {"d": 1, "c": 2}}, '{"a":{"c":2,"d":1},"b":1}'),
    "nothing escaped without need": ("é\n", '"é\\n"'),
    "nan": (math.nan, '"NaN"'),
    "kinds stay apart": ([1, 1.0, True, "1"], '[1,1.0,true,"1"]'),
}


@pytest.mark.parametrize(("value", "text"), CANONICAL.values(), ids=CANONICAL.keys())
def test_canonical_json(value: Any, text: str) -> None:
    assert canonical_json(value) == text


JSON_ARGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(categories=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON_ARGS)
def test_canonical_json_survives_being_stored_and_read_again(value: Any) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON_ARGS, max_size=4))
def test_judging_never_raises_and_never_changes_the_arguments(args: dict[str, Any]) -> None:
    before = canonical_json(args)
    said = check_args(SPEC, args)
    assert said is None or said.startswith("The arguments do not fit book: ")
    assert canonical_json(args) == before
