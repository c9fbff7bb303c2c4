"""Other people's `AgentMiddleware` in our agent: `wrap_model_call` and `wrap_tool_call`, run inline, without a superstep.

`create_production_agent(..., middleware=[...])` takes LangChain's middleware as far as the agent can keep its promises with it. A model
call that a hook makes is a call like any other: admitted, reserved, retried, counted as a step. A tool call is journaled around the
hooks, so that what a hook does happens within the call. What cannot be honoured is refused: when the agent is built if the class tells,
else when a hook does it (the turn then fails with a ContractError that says so).

Honoured: `awrap_model_call` (other messages, another system prompt, another reply, further calls), `awrap_tool_call` (other
arguments, another result, no call at all), `tools`; `before_*` and `after_*` (`step_hooks.py`).

Refused when the agent is built: jumps but to the end, a `wrap_*` that is only synchronous, keys of the state, stream
transformers.

Refused when a hook does it: another model, other tools, `tool_choice`, `response_format`, `model_settings`, another tool, a `Command`.

Whose error it is: a hook's own carries its name (`middleware: Name.wrap_tool_call: KeyError: ...`); what came out of the model or the
tool and only passed through the hooks is marked before they see it, and stays what it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, get_type_hints

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolCallRequest

from agent_graph.decisions.results import make_storable
from agent_graph.errors import ConfigError, ContractError, ToolNotExecuted, blamed, optional
from agent_graph.runtime.turn import current_turn
from agent_graph.types import ToolCall
from agent_graph_adapters.langchain.injected import around, runtime_of
from agent_graph_adapters.langchain.prepared import Outcome
from agent_graph_adapters.langchain.step_hooks import StepHooks, has

__all__ = ["Hooks"]

_STATE = frozenset({"messages", "jump_to", "structured_response"})
_OURS = {
    "BudgetMiddleware": "max_cost_usd=..., max_tokens=..., max_steps=..., timeout_s=...",
    "ToolJournalMiddleware": "storage=..., on_doubt=...",
    "RetryMiddleware": "retry_attempts=..., fallbacks=[...]",
    "CompressionMiddleware": "compression_threshold=...",
    "GuardrailMiddleware": "guardrails=[...]",
}
Ask: TypeAlias = Callable[[list[BaseMessage]], Awaitable[AIMessage]]
Run: TypeAlias = Callable[[dict[str, Any]], Awaitable[Outcome]]


class Hooks:
    """The middleware of one agent, the first the outermost."""

    def __init__(self, middleware: Sequence[Any], tools: Sequence[Any]) -> None:
        with optional("middleware="):
            from langchain.agents.middleware import AgentMiddleware

        if not isinstance(middleware, list | tuple):
            raise ConfigError(f"middleware: a list of AgentMiddleware is due, not {middleware!r}.")
        for one in middleware:
            _refuse(one, AgentMiddleware)
        names = [one.name for one in middleware]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"middleware: two are named {name!r}; a name must be one's own.")
        self.tools = [*tools, *(tool for one in middleware for tool in getattr(one, "tools", None) or ())]
        """The agent's tools, and those that the middleware brings."""
        steps = StepHooks(middleware, AgentMiddleware)
        self.steps = steps or None
        """What stands before and after the model; None where there is nothing."""
        self._model = [one for one in middleware if has(one, "awrap_model_call", AgentMiddleware)]
        self._tool = [one for one in middleware if has(one, "awrap_tool_call", AgentMiddleware)]
        self.around_model: Callable[[Any, list[BaseMessage], Ask], Awaitable[AIMessage]] | None = (
            self._around_model if self._model else None
        )
        """Makes a model call through the hooks; None where there are none."""
        self.around_tool: Callable[[BaseTool, ToolCall, Run], Awaitable[Outcome]] | None = self._around_tool if self._tool else None
        """Runs a tool through the hooks; None where there are none."""

    # -- the model --------------------------------------------------------------------------------------------------------------

    async def _around_model(self, model: Any, asked: list[BaseMessage], ask: Ask) -> AIMessage:
        from langchain.agents.middleware import ModelRequest, ModelResponse

        system = asked[0] if asked and isinstance(asked[0], SystemMessage) else None
        rest: Any = asked if system is None else asked[1:]
        request = ModelRequest(
            model=model,
            messages=list(rest),
            system_message=system,
            tools=list(self.tools),
            state={"messages": list(rest)},
            runtime=around(),
        )

        async def innermost(given: ModelRequest[Any]) -> ModelResponse[Any]:
            messages: list[BaseMessage] = [*([] if given.system_message is None else [given.system_message]), *given.messages]
            same = len(messages) == len(asked) and all(one is other for one, other in zip(messages, asked, strict=True))
            with blamed(""):
                return ModelResponse(result=[await ask(asked if same else messages)])

        handler: Any = innermost
        for one in reversed(self._model):
            handler = _wrapped(one, handler)
        reply: AIMessage = (await handler(request)).result[0]
        return reply

    # -- tools ------------------------------------------------------------------------------------------------------------------

    async def _around_tool(self, tool: BaseTool, call: ToolCall, run: Run) -> Outcome:
        runtime = runtime_of(tool, call.call_id)
        request = ToolCallRequest(
            tool_call={"type": "tool_call", "name": call.tool_name, "args": call.args, "id": call.call_id},
            tool=tool,
            state=runtime.state,
            runtime=runtime,
        )
        hooked = _HookedCall(tool, call, run)
        handler: Any = hooked.run
        for one in reversed(self._tool):
            handler = _wrapped_tool(one, hooked, handler)
        return hooked.outcome_of(await handler(request))


class _HookedCall:
    """A tool call as the hooks around it see it: they may run the tool, often or never, with other arguments."""

    def __init__(self, tool: BaseTool, call: ToolCall, run: Run) -> None:
        turn = current_turn.get()
        self._tool, self._call, self._run = tool, call, run
        self._once = turn is None or not turn.agent.is_idempotent(call.tool_name)
        self._told: list[tuple[ToolMessage, Outcome]] = []
        self._doubt: Exception | None = None
        self._odd: tuple[Any, str] | None = None

    async def run(self, request: ToolCallRequest) -> ToolMessage:
        """Run the tool. One that is not idempotent runs once, however often a hook asks: a retry would be a second payment."""
        call, asked = self._call, request.tool_call
        if self._once and self._told:
            return self._told[0][0]
        if self._doubt is not None:
            raise self._doubt
        try:
            with blamed(""):
                outcome = await self._run(asked["args"])
        except (ToolNotExecuted, GraphBubbleUp):
            raise
        except Exception as error:  # whatever it is, and raised again: how the call ended is in doubt
            self._doubt = error if self._once else None
            raise
        message = _message(call, outcome)
        self._told.append((message, outcome))
        return message

    def insist(self, request: ToolCallRequest, name: str) -> None:
        """Raise ContractError where the hook of this name asks for another call than the one that is journaled."""
        call, asked = self._call, request.tool_call
        if request.tool is not self._tool or asked["name"] != call.tool_name or asked["id"] != call.call_id:
            raise ContractError(f"middleware: {name} asked for another tool than {call.tool_name}; the journal holds this call.")

    def returned(self, result: Any, name: str) -> Any:
        """Return what the hook of this name returned; who was the first to return what is no message is remembered."""
        if not isinstance(result, ToolMessage) and (self._odd is None or self._odd[0] is not result):
            self._odd = (result, name)
        return result

    def outcome_of(self, result: Any) -> Outcome:
        """Return what the outermost hook's result means."""
        if self._doubt is not None:  # a hook may have told it as a failure, and it is none: nobody knows how the call ended
            raise self._doubt
        if not isinstance(result, ToolMessage):
            whose = "wrap_tool_call" if self._odd is None else self._odd[1]
            raise ContractError(f"middleware: {whose} returned a {type(result).__name__}; this agent takes a ToolMessage only.")
        known = next((outcome for message, outcome in self._told if message is result), None)
        return known or Outcome(result.content, result.artifact, failed=result.status == "error")


def _refuse(one: Any, base: Any) -> None:
    """Raise ConfigError for what this agent cannot honour."""
    given: Any = one
    if not isinstance(one, base):
        raise ConfigError(f"middleware: {one!r} is no AgentMiddleware object.")
    kind = type(given).__name__
    if kind in _OURS and type(one).__module__.startswith("agent_graph_adapters."):
        raise ConfigError(f"middleware: what {kind} does, this agent does itself: give it {_OURS[kind]} instead.")
    for hook in ("wrap_model_call", "wrap_tool_call"):
        if has(one, hook, base) and not has(one, f"a{hook}", base):
            raise ConfigError(
                f"middleware: {kind} has {hook} and no a{hook}; this agent is asynchronous, and a hook that blocks would stop it."
            )
    own = sorted(set(get_type_hints(given.state_schema)) - _STATE)
    if own:
        raise ConfigError(f"middleware: {kind} keeps {', '.join(own)} in the state; this agent's state has no place for keys of others.")
    if given.transformers:
        raise ConfigError(f"middleware: {kind} has stream transformers; this agent's stream is its events (agent.stream).")


def _wrapped(one: Any, handler: Any) -> Any:
    name = f"{one.name}.wrap_model_call"

    async def wrapped(request: Any) -> Any:
        from langchain.agents.middleware import ModelResponse

        async def inner(given: Any) -> Any:
            _insist(request, given, name)
            return await handler(given)

        with blamed(f"middleware: {name}"):
            return ModelResponse(result=[_reply_of(await one.awrap_model_call(request, inner), name)])

    return wrapped


def _wrapped_tool(one: Any, hooked: _HookedCall, handler: Any) -> Any:
    name = f"{one.name}.wrap_tool_call"

    async def wrapped(request: Any) -> Any:
        async def inner(given: Any) -> Any:
            hooked.insist(given, name)
            return await handler(given)

        with blamed(f"middleware: {name}"):
            return hooked.returned(await one.awrap_tool_call(request, inner), name)

    return wrapped


def _insist(asked: Any, given: Any, name: str) -> None:
    """Raise ConfigError where a hook changed what the agent has promised something about."""
    same = len(given.tools) == len(asked.tools) and all(one is other for one, other in zip(given.tools, asked.tools, strict=True))
    changed = {
        "the model (give it as fallbacks=[...])": given.model is not asked.model,
        "the tools": not same,
        "tool_choice": given.tool_choice is not None,
        "response_format (give it to the agent)": given.response_format is not None,
        "model_settings (set them on the model)": bool(given.model_settings),
    }
    what = next((name for name, is_changed in changed.items() if is_changed), None)
    if what is not None:
        raise ContractError(f"middleware: {name} changed {what}, which this agent cannot honour.")


def _reply_of(response: Any, name: str) -> AIMessage:
    if getattr(response, "command", None) is not None:
        raise ContractError(f"middleware: {name} returned a Command; this agent's state takes no updates of others.")
    response = getattr(response, "model_response", response)
    if isinstance(response, AIMessage):
        return response
    result = getattr(response, "result", None)
    if isinstance(result, list) and len(result) == 1 and isinstance(result[0], AIMessage):
        return result[0]
    raise ContractError(f"middleware: {name} returned {response!r}; one AIMessage was due.")


def _message(call: ToolCall, outcome: Outcome) -> ToolMessage:
    content = outcome.content
    blocks = isinstance(content, list) and all(isinstance(block, str | dict) for block in content)
    text: Any = content if isinstance(content, str) or blocks else make_storable(content).text
    status: Any = "error" if outcome.failed else "success"
    return ToolMessage(text, artifact=outcome.artifact, name=call.tool_name, tool_call_id=call.call_id, status=status)
