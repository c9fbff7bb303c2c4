"""A LangChain tool, prepared once for many calls.

`BaseTool.ainvoke` looks up signatures and type hints again at every call, which takes longer than everything else that
a step does. A tool made by `@tool`, and an MCP tool, is therefore called by what was looked up once: the same
validation, the same injected arguments, the same callbacks with the same values (a contract test holds both ways
equal). A tool that overrides anything, or that asks for its own treatment of errors, is called through `ainvoke` as it
is.

Arguments that do not fit are told apart from a tool that fails: they are checked before the tool runs, so that nothing
has happened. A pydantic error that the tool itself raises is an error like any other.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.messages import ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.runnables import RunnableConfig, ensure_config, patch_config
from langchain_core.runnables.config import set_config_context
from langchain_core.runnables.utils import coro_with_context
from langchain_core.tools import BaseTool, StructuredTool, Tool, ToolException
from langchain_core.tools.base import TOOL_MESSAGE_BLOCK_TYPES
from langgraph.types import Command
from pydantic import BaseModel, RootModel, ValidationError

from agent_graph.decisions.structured import in_words
from agent_graph.errors import ToolNotExecuted
from agent_graph_adapters.langchain.blocking import in_thread
from agent_graph_adapters.langchain.injected import NotThere, hints, injected

__all__ = ["Outcome", "PreparedTool"]

_BASES: Final = (BaseTool, StructuredTool, Tool)
_COLOR: Final = "green"
"""What LangChain hands to console handlers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call that ended."""

    content: Any
    """The result as the tool returned it, or the text of the failure."""
    artifact: Any = None
    """What the tool returned beside it, not for the model."""
    failed: bool = False


class PreparedTool:
    """Calls one LangChain tool. ConfigError if it wants an argument injected that nobody here can give."""

    def __init__(self, tool: BaseTool) -> None:
        self.tool = tool
        self._injected = injected(tool)
        schema = tool.args_schema
        self._schema = schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None
        self._defaults = frozenset() if self._schema is None else _defaults(self._schema)
        self._function = _plain_function(tool)
        self._awaits = isinstance(tool, StructuredTool) and tool.coroutine is not None
        self._config_name = None if self._function is None else _config_name(self._function)

    async def run(self, args: Mapping[str, Any], call_id: str) -> Outcome:
        """Run the tool. Wrong arguments and a ToolException are failed outcomes; every other exception is the tool's own."""
        try:
            given = {**args, **{name: give(call_id) for name, give in self._injected.items()}}
        except NotThere as error:
            return Outcome(f"{ToolNotExecuted.__name__}: {error}", failed=True)
        try:
            checked = given if self.tool.handle_validation_error else self._check(given)
        except ValidationError as error:
            return Outcome(f"InvalidArguments: {in_words(error)}", failed=True)
        try:
            if self._function is None:
                return await self._as_it_is(given, call_id)
            return await self._prepared(partial(self._call, self._function, checked), given, call_id)
        except ToolException as error:
            return Outcome(str(error) or type(error).__name__, failed=True)

    def _check(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that the function gets: validated, coerced, defaults filled in."""
        if self._schema is None:
            return given
        if not self._schema.model_fields:
            return {}
        valid = self._schema.model_validate(given)
        names = valid.model_fields_set | self._defaults
        return {name: getattr(valid, name) for name in names} | {name: given[name] for name in self._injected}

    async def _as_it_is(self, given: dict[str, Any], call_id: str) -> Outcome:
        call = {"type": "tool_call", "id": call_id, "name": self.tool.name, "args": given}
        if _blocks(self.tool):
            return self._outcome(await in_thread(partial(self.tool.invoke, call), name=self.tool.name), None, call_id)
        return self._outcome(await self.tool.ainvoke(call), None, call_id)

    async def _prepared(self, call: _Call, given: dict[str, Any], call_id: str) -> Outcome:
        tool, config = self.tool, ensure_config()
        manager = AsyncCallbackManager.configure(
            config.get("callbacks"),
            tool.callbacks,
            tool.verbose,
            config.get("tags"),
            tool.tags,
            config.get("metadata"),
            tool.metadata,
        )
        if manager.handlers:
            return await self._watched(manager, config, call, given, call_id)
        return self._outcome(*self._parts(await call(config)), call_id)

    async def _watched(
        self, manager: AsyncCallbackManager, config: RunnableConfig, call: _Call, given: dict[str, Any], call_id: str
    ) -> Outcome:
        """Call, and tell the handlers what `BaseTool.arun` tells them."""
        tool = self.tool
        shown = {name: value for name, value in given.items() if name not in self._injected}
        run = await manager.on_tool_start(
            {"name": tool.name, "description": tool.description},
            str(shown),
            color=_COLOR,
            name=config.get("run_name"),
            run_id=config.pop("run_id", None),
            inputs=shown,
            tool_call_id=call_id,
        )
        try:
            with set_config_context(patch_config(config, callbacks=run.get_child())) as context:
                content, artifact = self._parts(await coro_with_context(call(config), context))
        except Exception as error:
            await run.on_tool_error(error, tool_call_id=call_id)
            raise
        await run.on_tool_end(_told(tool, content, artifact, call_id), color=_COLOR, name=tool.name)
        return self._outcome(content, artifact, call_id)

    async def _call(self, function: Callable[..., Any], args: dict[str, Any], config: RunnableConfig) -> Any:
        if self._config_name is not None:
            args = {**args, self._config_name: config}
        if self._awaits:
            return await function(**args)
        return await in_thread(partial(function, **args), name=self.tool.name)

    def _parts(self, response: Any) -> tuple[Any, Any]:
        if self.tool.response_format == "content":
            return response, None
        if isinstance(response, tuple) and len(response) == 2:
            return response[0], response[1]
        raise ValueError(f"{self.tool.name} has response_format='content_and_artifact': a tuple of these two was due.")

    def _outcome(self, content: Any, artifact: Any, call_id: str) -> Outcome:
        if not _is_instruction(content):
            return Outcome(content, artifact)
        message = _answer(content, call_id)
        if message is None:
            return Outcome(f"{self.tool.name} returned {_CANNOT_CARRY_OUT}", failed=True)
        return Outcome(message.content, message.artifact, failed=message.status == "error")


_Call: TypeAlias = Callable[[RunnableConfig], Coroutine[Any, Any, Any]]

_CANNOT_CARRY_OUT: Final = (
    "a Command or a list that asks for more than a tool message: the loop has no other state to update and no node to go to. What else"
    " the tool did has happened. Return the result, or Command(update={'messages': [ToolMessage(...)]}) with this call's own message."
)


def _is_instruction(content: Any) -> bool:
    parts = content if isinstance(content, list) and content else [content]
    return all(isinstance(part, ToolOutputMixin) for part in parts)


def _answer(content: Any, call_id: str) -> ToolMessage | None:
    """Return the one tool message that an instruction to the graph comes down to; None where it is more than that."""
    if isinstance(content, ToolMessage):
        return content
    if isinstance(content, list):
        return _answer(content[0], call_id) if len(content) == 1 else None
    if not isinstance(content, Command) or content.goto or content.resume is not None or content.graph is not None:
        return None
    update = content.update
    messages = update.get("messages") if isinstance(update, dict) and set(update) == {"messages"} else None
    messages = messages if isinstance(messages, list) else [messages]
    one = messages[0] if len(messages) == 1 else None
    return one if isinstance(one, ToolMessage) and one.tool_call_id == call_id else None


def _told(tool: BaseTool, content: Any, artifact: Any, call_id: str) -> Any:
    """Return what LangChain's handlers get to see of a result: a tool message, unless it is one or a Command already."""
    if _is_instruction(content):
        return content
    return ToolMessage(_as_text_or_blocks(content), artifact=artifact, tool_call_id=call_id, name=tool.name, status="success")


def _as_text_or_blocks(content: Any) -> str | list[Any]:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(_is_block(part) for part in content):
        return list(content)
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(content)


def _is_block(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in TOOL_MESSAGE_BLOCK_TYPES)


# --- looked up once ---------------------------------------------------------------------------------------------------


def _plain_function(tool: BaseTool) -> Callable[..., Any] | None:
    """Return the function of a tool that has nothing of its own between a call and it, else None."""
    if type(tool) is not StructuredTool or tool.handle_tool_error or tool.handle_validation_error:
        return None
    schema = tool.args_schema
    if not isinstance(schema, dict) and (not issubclass(schema, BaseModel) or issubclass(schema, RootModel)):
        return None
    function = tool.coroutine or tool.func
    if function is None or "callbacks" in inspect.signature(function).parameters:
        return None
    return function


def _blocks(tool: BaseTool) -> bool:
    """Return whether the tool has no asynchronous way of its own."""
    kind = type(tool)
    inherited = any(kind.ainvoke is base.ainvoke for base in _BASES) and any(kind._arun is base._arun for base in _BASES)
    return inherited and getattr(tool, "coroutine", None) is None


def _defaults(schema: type[BaseModel]) -> frozenset[str]:
    """Return the fields that the function gets also when they were not given; args and kwargs stand for `*args`, `**kwargs`."""
    fields = schema.model_fields.items()
    return frozenset(name for name, field in fields if not field.is_required() and name not in ("args", "kwargs"))


def _config_name(function: Callable[..., Any]) -> str | None:
    return next((name for name, hint in hints(function).items() if hint is RunnableConfig), None)
