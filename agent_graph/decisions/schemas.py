"""JSON Schemas of tools: read from what users write, and made into validators that never reach for the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agent_graph.decisions.plain import plain
from agent_graph.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["object_schema", "schema_of", "validator_of"]

_TYPES: Final[Mapping[object, str]] = {
    **{name: name for name in ("string", "integer", "number", "boolean", "array", "object", "null")},
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
_SAYS_SCHEMA: Final[Mapping[str, type | tuple[type, ...]]] = {
    "type": (str, list),
    "required": list,
    "properties": Mapping,
    "additionalProperties": (bool, Mapping),
    "$ref": str,
    "$schema": str,
    "$defs": Mapping,
    "anyOf": list,
    "oneOf": list,
    "allOf": list,
}


def object_schema(given: object, where: str) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments.

    `given` is a JSON Schema, a class that can tell its own (pydantic's), a plain map of parameters to their schemas, types or
    descriptions, or None for any object.

    Raises:
        ConfigError: it is none of these, no valid JSON Schema, or one that no object fits.
    """
    schema = _as_schema(given, where)
    kinds = schema.setdefault("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        raise ConfigError(f"{where}: the arguments of a tool are an object, but its schema is of type {kinds!r}.")
    _check(schema, f"{where}: its parameters are")
    return schema


def schema_of(given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return a JSON Schema of any value, in plain form. Raises ConfigError where it is none."""
    schema = _plain_dict(given)
    _check(schema, f"{where}: this is")
    return schema


def validator_of(schema: dict[str, Any]) -> Validator:
    """Return a validator by the schema's own draft (2020-12 where it names none); a `$ref` to elsewhere is never fetched."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=EMPTY_REGISTRY)


def _check(schema: dict[str, Any], what: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for

    kind = validator_for(schema, default=Draft202012Validator)
    # Formats are not checked: patterns are, as a rule, written for JavaScript's engine, and need not please Python's.
    fault = best_match(kind(kind.META_SCHEMA).iter_errors(schema))
    if fault is not None:
        place = ".".join(map(str, fault.absolute_path)) or "its top"
        raise ConfigError(f"{what} no JSON Schema: at {place}: {fault.message[:300]}.")


def _as_schema(given: object, where: str) -> dict[str, Any]:
    told = getattr(given, "model_json_schema", None) if isinstance(given, type) else None
    if told is not None:
        given = told()
    if given is None or given is True:
        return {"type": "object"}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: parameters: a JSON Schema is due (a mapping), not {type(given).__name__}.")
    if any(isinstance(given.get(key), kind) for key, kind in _SAYS_SCHEMA.items()):
        return _plain_dict(given)
    return _from_properties(given)


def _from_properties(given: Mapping[Any, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, said in given.items():
        entry = _property(said)
        if isinstance(entry.get("required"), bool) and entry.pop("required"):  # draft 3's habit: a mark on the property itself
            required.append(str(name))
        properties[str(name)] = entry
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _property(said: Any) -> dict[str, Any]:
    if isinstance(said, Mapping):
        return _plain_dict(said)
    if isinstance(said, str | type) and said in _TYPES:
        return {"type": _TYPES[said]}
    return {"description": said} if isinstance(said, str) else {}


def _plain_dict(given: Mapping[Any, Any]) -> dict[str, Any]:
    made = plain(given)
    return made if isinstance(made, dict) else {}
