"""LangChain tools as a `ToolBackend`, and a `ToolBackend` as LangChain tools.

What is said to whom:

- Wrong arguments, a ToolException and a tool message with status "error" are known failures: the call comes back with
  `error`, the model is told. Every other exception leaves the outcome unknown and propagates.
- `result` is what the tool returned, not its text; what it returned beside it for the application is
  `ArtifactCall.artifact`.
- A tool says that it may safely run twice by `@tool(extras={"idempotent": True})`, or that it must not by False. It is
  never guessed.
- A synchronous tool runs in a thread. The context goes with it, so `idempotency_key()` and callbacks work there too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, cast

from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools import tool as make_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field
from typing_extensions import override

from agent_graph.context import current_call, idempotency_key
from agent_graph.decisions.tools import ToolSpec, read_tools
from agent_graph.errors import ConfigError, ContractError
from agent_graph.messages.fields import is_text
from agent_graph.ports import ToolBackend
from agent_graph.types import ToolCall
from agent_graph_adapters.langchain.blocking import run_alone
from agent_graph_adapters.langchain.prepared import Outcome, PreparedTool

__all__ = ["ArtifactCall", "LangChainToolBackend", "as_tool_backend", "as_tools", "described"]

Around: TypeAlias = Callable[[BaseTool, ToolCall, Callable[[dict[str, Any]], Awaitable[Outcome]]], Awaitable[Outcome]]
"""Runs a tool, or does something else in its place: the tool, the call, and what runs the one with the arguments of the other."""
_ATTRIBUTES = ("idempotent", "non_idempotent", "timeout_s", "sensitive", "untrusted")
"""What a function or a tool class may say of itself as an attribute; `extras` and `metadata` may say it too."""


def as_tool_backend(
    tools: Sequence[BaseTool | Callable[..., Any] | dict[str, Any]], *, around: Around | None = None
) -> LangChainToolBackend:
    """Return a `ToolBackend` that runs these tools; its `specs` are what to give to `ProductionAgent` as `tools`.

    A callable needs a docstring and type hints. ConfigError: two tools of one name, a dict (it describes a tool that
    nobody here can run), a callable without a description, a mark that is no bool or number, an injected argument that
    cannot be given. `around`: runs each tool, by the function that it is given (`hooks.py`).
    """
    return LangChainToolBackend(tools, around=around)


def as_tools(tool_backend: ToolBackend, tools: Sequence[Mapping[str, Any]]) -> list[BaseTool]:
    """Return LangChain tools for the tools that `tools` describes and `tool_backend` runs.

    An `error` that the backend returns is told to the model. ConfigError for descriptions that cannot be read.
    """
    return [_backend_tool(tool_backend, spec) for spec in read_tools(tools)]


@dataclass
class ArtifactCall(ToolCall):
    """A call whose tool returned something beside its result."""

    artifact: Any = None
    """For the application, not for the model (LangChain's response_format="content_and_artifact")."""


class LangChainToolBackend(ToolBackend):
    """Runs LangChain tools."""

    def __init__(self, tools: Sequence[BaseTool | Callable[..., Any] | dict[str, Any]], *, around: Around | None = None) -> None:
        if not isinstance(cast("object", tools), list | tuple):
            raise ConfigError(f"tools: a list of LangChain tools or functions is due, not {tools!r}.")
        self._around = around
        self._tools: dict[str, PreparedTool] = {}
        self.specs: list[dict[str, Any]] = []
        """The tools' descriptions: name, description, parameters (JSON Schema) and what the tools say of themselves."""
        for given in tools:
            tool = _as_tool(given)
            if tool.name in self._tools:
                raise ConfigError(f"tools: two tools are named {tool.name!r}; a name must be one tool's own.")
            self._tools[tool.name] = PreparedTool(tool)
            self.specs.append(described(tool, given))

    async def execute(self, call: ToolCall) -> ToolCall:
        """Run `call`; see the module's text for what is an error and what an exception."""
        prepared = self._tools.get(call.tool_name)
        if prepared is None:
            return replace(call, error=f"ToolNotFound: there is no tool {call.tool_name!r}. Tools: {', '.join(self._tools)}.")
        token = current_call.set(call)
        try:
            if self._around is None:
                return _settled(call, await prepared.run(call.args, call.call_id))
            return _settled(call, await self._around(prepared.tool, call, lambda args: prepared.run(args, call.call_id)))
        finally:
            current_call.reset(token)


def _settled(call: ToolCall, outcome: Outcome) -> ToolCall:
    if outcome.failed:
        return replace(call, error=_in_words(outcome.content))
    if outcome.artifact is None:
        return replace(call, result=outcome.content)
    known = {field.name: getattr(call, field.name) for field in fields(ToolCall) if hasattr(call, field.name)}
    return ArtifactCall(**{**known, "result": outcome.content}, artifact=outcome.artifact)


def _in_words(content: Any) -> str:
    """Return what a failed tool said: its content may be blocks, as an MCP server's is."""
    blocks = content if isinstance(content, list) else [content]
    said = [block if isinstance(block, str) else block["text"] for block in blocks if is_text(block)]
    return "\n".join(said) or f"The tool failed and said nothing in words (content blocks of other kinds: {len(blocks)})."


def _as_tool(given: object) -> BaseTool:
    if isinstance(given, BaseTool):
        return given
    if isinstance(given, Mapping):
        raise ConfigError(
            f"tools: {given.get('name') or given.get('type')!r} is a dict: it describes a tool but cannot run it. Give a LangChain"
            " tool or a function. Tools that the provider runs are bound to the model: model.bind_tools([...])."
        )
    if not callable(given) or isinstance(given, type):
        raise ConfigError(f"tools: {given!r} is no tool; a LangChain tool or a function with a docstring was due.")
    try:
        # A plain docstring is no Google-style one and yet says all that is needed: only a wrong "Args:" is an error.
        made = make_tool(given, parse_docstring=True, error_on_invalid_docstring=False)
    except (ValueError, TypeError, NameError) as error:
        raise ConfigError(f"tools: {given!r} cannot be made a tool: {error}") from error
    return made


def described(tool: BaseTool, given: object) -> dict[str, Any]:
    """Return the description of `tool`, with what it says of itself; `given` is the function that it was made of, or the tool."""
    form = convert_to_openai_tool(tool)["function"]
    spec: dict[str, Any] = {"name": tool.name, "description": tool.description}
    spec["parameters"] = form.get("parameters", {"type": "object", "properties": {}})
    said = read_tools([{**spec, **_said(tool, given)}])[0]
    reconcile = (tool.extras or {}).get("reconcile")
    return {**spec, **_marks(said), **({"reconcile": reconcile} if callable(reconcile) else {})}


def _said(tool: BaseTool, given: object) -> dict[str, Any]:
    """Return where a tool may say something of itself, in the layout that `read_tools` understands."""
    metadata = tool.metadata or {}
    attributes = {mark: value for mark in _ATTRIBUTES if (value := getattr(given, mark, None)) is not None}
    return {
        "extras": tool.extras or {},
        "metadata": metadata,
        "annotations": metadata.get("annotations", metadata),
        **attributes,
    }


def _marks(spec: ToolSpec) -> dict[str, Any]:
    marks = {"idempotent": spec.idempotent, "timeout_s": spec.timeout_s}
    flags = {mark: True for mark in ("sensitive", "untrusted") if getattr(spec, mark)}
    return {mark: value for mark, value in marks.items() if value is not None} | flags


# --- the other way ----------------------------------------------------------------------------------------------------

_call_id: ContextVar[str] = ContextVar("agent_graph_langchain_call_id", default="")
"""The id of LangChain's tool call, which `BaseTool` does not hand on to `_arun`."""


class BackendTool(BaseTool):
    """One tool of a `ToolBackend`, as a LangChain tool."""

    backend: Any = Field(exclude=True, repr=False)
    """The `ToolBackend`, recognised by shape."""

    @override
    def run(self, tool_input: str | dict[str, Any], *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """As in LangChain."""
        token = _call_id.set(tool_call_id or "")
        try:
            return super().run(tool_input, *args, tool_call_id=tool_call_id, **kwargs)
        finally:
            _call_id.reset(token)

    @override
    async def arun(self, tool_input: str | dict[str, Any], *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """As in LangChain."""
        token = _call_id.set(tool_call_id or "")
        try:
            return await super().arun(tool_input, *args, tool_call_id=tool_call_id, **kwargs)
        finally:
            _call_id.reset(token)

    def _run(self, /, **args: Any) -> Any:
        return run_alone(self._arun(**args), instead="ainvoke")

    async def _arun(self, /, **args: Any) -> Any:
        call = ToolCall(tool_name=self.name, args=args, call_id=_call_id.get(), idempotency_key=idempotency_key())
        done = await self.backend.execute(call)
        if not (hasattr(done, "result") and hasattr(done, "error")):
            kind = type(done).__name__
            raise ContractError(f"{type(self.backend).__name__}.execute returned {kind}; the ToolCall with result or error set was due.")
        if done.error is not None:
            raise ToolException(done.error)
        return done.result


def _backend_tool(backend: ToolBackend, spec: ToolSpec) -> BackendTool:
    return BackendTool(
        name=spec.name,
        description=spec.description,
        args_schema=dict(spec.parameters),
        extras=_marks(spec) or None,
        handle_tool_error=True,
        backend=backend,
    )
