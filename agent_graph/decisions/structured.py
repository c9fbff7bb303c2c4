"""The answer as an object: what it is to be, how it is asked for, how it is read.

The model answers with JSON text, which every model can; the text is checked like any other output (`guardrails/structured.py`), and
what does not fit goes back to the model with the reason. So a structured answer needs no tool, also where a budget leaves none,
and no feature that only some providers have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Final, is_typeddict

from typing_extensions import is_typeddict as is_backported_typeddict

from agent_graph.decisions.schemas import schema_of, validator_of
from agent_graph.decisions.tools import canonical_json
from agent_graph.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["AnswerFormat", "Misfit", "answer_format", "in_words"]

_FENCE: Final = re.compile(r"\A```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)
_FAULTS_TOLD: Final = 5
_STRATEGIES: Final = frozenset({"ToolStrategy", "ProviderStrategy", "AutoStrategy"})
"""How `create_agent` is told by which way a model is to give an object. Here there is one way; what counts is the schema in it."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a text is not the object that was asked for, in words that let the model repair it."""

    reason: str


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """What a turn's answer is to be."""

    schema: Mapping[str, Any]
    """JSON Schema."""
    build: Callable[[Any], Any]
    """Returns the object of plain JSON, or a Misfit."""

    @property
    def prompt(self) -> str:
        """What the model is told: the same text for the same schema, byte for byte."""
        return (
            "When you answer, answer with one JSON value and nothing else: no other text, no code fence. "
            f"It must fit this JSON Schema: {canonical_json(self.schema)}"
        )

    def read(self, text: str | None) -> Any:
        """Return the object that `text` is, or a Misfit."""
        stripped = (text or "").strip()
        fenced = _FENCE.match(stripped)
        try:
            value = json.loads(fenced.group(1) if fenced else stripped)
        except (ValueError, RecursionError) as error:
            return Misfit(f"it is not JSON: {error}")
        return self.build(value)


def answer_format(given: Any) -> AnswerFormat | None:
    """Return the format that `response_format=` asks for: a pydantic model, a dataclass, a TypedDict or a JSON Schema; None for None.

    Raises:
        ConfigError: it is none of these, or no valid schema.
    """
    if type(given).__name__ in _STRATEGIES:
        given = given.schema
    if given is None:
        return None
    if isinstance(given, Mapping):
        return _of_schema(given)
    if isinstance(given, type) and (_is_pydantic(given) or is_dataclass(given) or is_typeddict(given) or is_backported_typeddict(given)):
        return _of_class(given)
    what = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
    raise ConfigError(f"response_format: a pydantic model, a dataclass, a TypedDict or a JSON Schema is due, not {what}.")


def in_words(error: ValidationError) -> str:
    """Return what pydantic found wrong, one place after the other, without the values."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in problems)


def _of_schema(given: Mapping[Any, Any]) -> AnswerFormat:
    schema = schema_of(given, "response_format")
    validator = validator_of(schema)

    def build(value: Any) -> Any:
        faults = [
            f"{'.'.join(map(str, fault.absolute_path)) or 'the value'}: {fault.message[:300]}" for fault in validator.iter_errors(value)
        ]
        return Misfit("; ".join(faults[:_FAULTS_TOLD])) if faults else value

    return AnswerFormat(schema, build)


def _of_class(given: type) -> AnswerFormat:
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(given)
        schema = adapter.json_schema()
    except (PydanticUserError, NameError) as error:  # such as typing.TypedDict before Python 3.12
        raise ConfigError(f"response_format: {given.__name__} has no JSON Schema: {str(error).splitlines()[0]}") from error

    def build(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            return Misfit(in_words(error))

    return AnswerFormat(schema, build)


def _is_pydantic(given: type) -> bool:
    return callable(getattr(given, "model_json_schema", None))
