"""Tools as the user describes them, and the arguments that a model gives them.

People bring their tools in the layout of the API that they came from: OpenAI's, Anthropic's, MCP's, or a plain map of parameters.
All are read into one `ToolSpec`; the user's own dicts go to the model untouched. What cannot be understood is a ConfigError at
construction, above all a mark of idempotency that was misspelt: overlooked, it would let a payment be made twice.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from agent_graph.decisions.plain import dumps, plain
from agent_graph.decisions.schemas import object_schema
from agent_graph.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["ToolSpec", "canonical_json", "check_args", "read_tools"]

_SCHEMA_KEYS: Final = ("parameters", "input_schema", "args_schema", "inputSchema")
_MARKS: Final = ("idempotent", "non_idempotent")
_RIGHT: Final = (*_MARKS, "idempotentHint")
"""Keys that look like a mark and are one, or MCP's own word, which LangChain's adapters put beside other metadata."""
_FAULTS_TOLD: Final = 5
_FAULT_CHARS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool, read from any of the layouts in docs/backends.md."""

    name: str
    description: str
    """Empty where the user gave none."""
    parameters: dict[str, Any]
    """JSON Schema of an object."""
    idempotent: bool | None
    """Whether running it twice with the same key is the same as once; None where the user did not say."""
    timeout_s: float | None
    """Seconds for one attempt; None: only the turn's own limit."""
    sensitive: bool = False
    """Whether a person has to approve a call once untrusted text is in the conversation."""
    untrusted: bool = False
    """Whether what it returns is untrusted text, whatever it reads like."""
    raw: Mapping[str, Any]
    """The very entry that the user gave."""
    _validator: list[Validator] = field(default_factory=list, init=False, repr=False, compare=False)


def read_tools(tools: Sequence[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """Return the tools of a constructor's `tools` argument, in order.

    Raises:
        ConfigError: an entry is no mapping, has no name or one that is taken, a bad schema, a bad timeout or a misspelt mark.
    """
    if isinstance(tools, Mapping | str) or not isinstance(tools, Sequence):
        raise ConfigError(f"tools: a list of mappings is due, not {type(tools).__name__}.")
    specs: dict[str, ToolSpec] = {}
    for number, entry in enumerate(tools):
        spec = _read_tool(entry, f"tools[{number}]")
        if spec.name in specs:
            raise ConfigError(f"tools[{number}]: two tools are named {spec.name!r}. Each needs a name of its own.")
        specs[spec.name] = spec
    return tuple(specs.values())


def check_args(spec: ToolSpec, args: object) -> str | None:
    """Return None if `args` fit the tool's parameters, else a sentence that tells the model what is wrong and where.

    A schema that cannot be applied (a `$ref` that leads in circles or nowhere) lets everything through: the tool will judge.
    """
    if not isinstance(args, dict):
        return f"The arguments must be one JSON object, not {_kind(args)}."
    try:
        faults = list(islice(_validator(spec).iter_errors(args), _FAULTS_TOLD))
        told = [_told(fault) for fault in faults]
    except Exception:  # noqa: BLE001  # schemas come from users and servers; there is no end to how they can be broken
        return None
    return f"The arguments do not fit {spec.name}: {'; '.join(told)}." if told else None


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: made storable first, keys sorted, no spaces, no escapes beyond the necessary."""
    return dumps(plain(value), sort_keys=True)


# -- reading an entry ------------------------------------------------------------------------------------------------------


def _read_tool(entry: object, where: str) -> ToolSpec:
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"{where}: a mapping with name, description and parameters is due, not {type(entry).__name__}. "
            "LangChain tools and functions are taken by create_production_agent."
        )
    layers = tuple(_layers(entry))
    name = _first(layers, "name")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: a name is due, a text that is not empty; the entry's keys are {sorted(map(str, entry))}.")
    where = f"{where} ({name!r})"
    description = _first(layers, "description")
    return ToolSpec(
        name=name,
        description="" if description is None else str(description),
        parameters=object_schema(_first(layers, *_SCHEMA_KEYS), where),
        idempotent=_idempotent(layers, where),
        timeout_s=_timeout(_first(layers, "timeout_s"), where),
        sensitive=bool(_flag(_first(layers, "sensitive"), f"{where}.sensitive")),
        untrusted=bool(_flag(_first(layers, "untrusted"), f"{where}.untrusted")),
        raw=entry,
    )


def _layers(entry: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield where a key may stand: the entry itself, OpenAI's `function`, and the side tables of other formats."""
    yield entry
    inner = entry.get("function")
    sources = (entry, inner) if isinstance(inner, Mapping) else (entry,)
    if isinstance(inner, Mapping):
        yield inner
    for source in sources:
        for key in ("metadata", "extras"):
            if isinstance(source.get(key), Mapping):
                yield source[key]


def _first(layers: Sequence[Mapping[Any, Any]], *keys: str) -> Any:
    return next((layer[key] for layer in layers for key in keys if layer.get(key) is not None), None)


def _idempotent(layers: Sequence[Mapping[Any, Any]], where: str) -> bool | None:
    _refuse_misspelt(layers, where)
    positive = _flag(_first(layers, "idempotent"), f"{where}.idempotent")
    negative = _flag(_first(layers, "non_idempotent"), f"{where}.non_idempotent")
    if positive is not None and positive == negative:
        raise ConfigError(f"{where}: idempotent and non_idempotent are both {positive}. Give one of them.")
    if positive is None and negative is not None:
        return not negative
    return _hint(layers) if positive is None else positive


def _hint(layers: Sequence[Mapping[Any, Any]]) -> bool | None:
    """MCP's annotations: a tool that only reads, or one that says of itself whether it may be repeated."""
    hints = _first(layers, "annotations")
    if not isinstance(hints, Mapping):
        return None
    if hints.get("readOnlyHint") is True:
        return True
    said = hints.get("idempotentHint")
    return said if isinstance(said, bool) else None


def _refuse_misspelt(layers: Sequence[Mapping[Any, Any]], where: str) -> None:
    for key in (key for layer in layers for key in layer if isinstance(key, str) and key not in _RIGHT):
        near = difflib.get_close_matches(key.lower().replace("-", "_"), _MARKS, n=1, cutoff=0.8)
        if near:
            raise ConfigError(f"{where}: unknown key {key!r}. Did you mean {near[0]!r}?")


def _flag(value: object, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(f"{where}: True or False is due, not {value!r}.")


def _timeout(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{where}.timeout_s: a number of seconds above 0 is due, not {value!r}. Leave it out for no limit.")
    return float(value)


# -- judging arguments -----------------------------------------------------------------------------------------------------


def _validator(spec: ToolSpec) -> Validator:
    if not spec._validator:
        from agent_graph.decisions.schemas import validator_of

        spec._validator.append(validator_of(spec.parameters))
    return spec._validator[0]


def _told(fault: ValidationError) -> str:
    from jsonschema.exceptions import best_match

    fault = best_match(iter((fault,))) or fault  # into the branch of an anyOf that came closest
    place = ".".join(str(part) for part in fault.absolute_path)
    text = fault.message if len(fault.message) <= _FAULT_CHARS else f"{fault.message[:_FAULT_CHARS]} ..."
    return f"{place}: {text}" if place else text


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
