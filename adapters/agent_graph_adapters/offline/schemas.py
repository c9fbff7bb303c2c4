"""What a tool takes, from its JSON Schema: each parameter's type, whether it is due, what kind of text it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_graph_adapters.offline.words import stems

__all__ = ["Parameter", "Tool", "read_tool"]

_DEPTH = 8
_EXPRESSION = frozenset({"expression", "expr", "formula", "equation", "calculation", "arithmetic"})
_FREE_WORDS = """
    query question text message content input prompt topic search q body note task request sentence comment instruction
    term keyword subject title description phrase command idea data
"""
_FREE = frozenset(_FREE_WORDS.split())
_DAY = frozenset({"date", "day", "when"})
_EMAIL = frozenset({"email", "mail"})
_URL = frozenset({"url", "uri", "link", "website", "webpage"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool, or one property of an object in it."""

    name: str
    type: str
    """"string", "number", "integer", "boolean", "array", "object" or "any"."""
    required: bool
    wants: str
    """Of a string: "expression", "date", "day" (or "tomorrow"), "email", "url", "text" (any words) or "name"."""
    choices: tuple[Any, ...]
    """The values of its enum; empty where any will do."""
    examples: tuple[str, ...]
    items: Parameter | None
    """Of an array: what its items are."""
    properties: tuple[Parameter, ...]
    """Of an object."""

    @property
    def stems(self) -> tuple[str, ...]:
        return stems(self.name)


@dataclass(frozen=True, slots=True)
class Tool:
    """A bound tool."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]


def read_tool(entry: Mapping[str, Any]) -> Tool:
    """Return the tool described by `entry`, in OpenAI's layout with or without its `function` envelope."""
    inner = entry.get("function")
    function: Mapping[str, Any] = inner if isinstance(inner, Mapping) else entry
    schema = function.get("parameters")
    schema = schema if isinstance(schema, Mapping) else {}
    return Tool(str(function.get("name") or ""), str(function.get("description") or ""), _properties(schema, schema, _DEPTH))


def _properties(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> tuple[Parameter, ...]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or depth == 0:
        return ()
    required = schema.get("required")
    due = set(map(str, required)) if isinstance(required, Sequence) and not isinstance(required, str) else set[str]()
    return tuple(_parameter(str(name), part, root, str(name) in due, depth - 1) for name, part in properties.items())


def _parameter(name: str, schema: object, root: Mapping[str, Any], required: bool, depth: int) -> Parameter:
    plain = _plain(schema, root)
    kind = _type(plain)
    choices = plain.get("enum")
    items = plain.get("items")
    return Parameter(
        name=name,
        type=kind,
        required=required,
        wants=_wants(name, plain) if kind in {"string", "any"} else "",
        choices=tuple(choices) if isinstance(choices, list) else ((plain["const"],) if "const" in plain else ()),
        examples=tuple(example for example in _list(plain.get("examples")) if isinstance(example, str)),
        items=_parameter(name, items or {}, root, True, depth - 1) if kind == "array" and depth > 0 else None,
        properties=_properties(plain, root, depth),
    )


def _plain(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `schema` with references followed and the first alternative that is not null taken."""
    for _ in range(_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            schema = _followed(reference, root)
            continue
        several = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), None)
        if several is None:
            return schema
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf", "allOf", "default"}}
        first = next((part for part in several if isinstance(part, Mapping) and part.get("type") != "null"), {})
        schema = {**first, **rest}
    return {}


def _followed(reference: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "any"


def _wants(name: str, schema: Mapping[str, Any]) -> str:
    words = set(stems(name)) | {name.lower()}
    form = schema.get("format")
    described = set(stems(str(schema.get("description") or "")))
    if words & _EXPRESSION or described & {"arithmetic", "formula"}:
        return "expression"
    if form in {"date", "date-time"}:
        return "date"
    if words & _DAY:
        return "day"
    if form == "email" or words & _EMAIL:
        return "email"
    if form in {"uri", "url"} or words & _URL:
        return "url"
    return "text" if words & _FREE else "name"


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
