"""GuardrailMiddleware: our rails on input, replies, tool arguments, tool results and answers of anybody's agent.

Rails are asked by `agent_graph.guardrails`, as the agent asks them, and fail closed. What a verdict leads to is the same as there, as
far as a hook can do it:

- `Replace` at the input changes the human message in the state (so a redacted question is stored redacted); elsewhere what goes on.
- `Revise` sends a reply back to the model, with its feedback, within the rail's limit; only the reply that passes enters the state.
- `Block` ends the turn with a reply that says so; of a tool call it is the result; a blocked result is withheld.
- `Ask` waits for a person (an `interrupt`) where nothing has happened yet: at the input and at tool arguments. At the other stages the node
  would run again when the answer comes, and pay or act a second time: there it counts as a Block.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse, ToolCallRequest
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from agent_graph.decisions.results import make_storable
from agent_graph.decisions.tools import read_tools
from agent_graph.errors import Blocked, ConfigError
from agent_graph.guardrails import Ask, Block, Finding, Guardrail, Judgement, Revise, beside_defaults, by_stage, for_tools, judge, watching
from agent_graph.messages import Conversion
from agent_graph.runtime.judging import judged
from agent_graph.runtime.turn import Turn
from agent_graph.types import ToolCall
from agent_graph_adapters.langchain.middleware.both_ways import AWAITING, BLOCKING, Wait, as_async, run_through
from agent_graph_adapters.langchain.middleware.names import asking_of, begun, begun_by, messages_in, purpose, since
from agent_graph_adapters.langchain.middleware.turns import Nobody, unstored
from agent_graph_adapters.langchain.tools import described

__all__ = ["GuardrailMiddleware"]

logger = logging.getLogger("agent_graph")

RAILS = "agent_graph_rails"
"""Key of the state: `{"turn": id of the human message that was judged, "revisions": {rail: how often}}`."""
SENT_BACK = "Not run: the reply that asked for this was sent back."
NOBODY_TO_ASK = "it wants a person to decide, who cannot be asked at this point"
Handler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class RailState(AgentState[Any]):
    """What a checkpoint keeps for the rails."""

    agent_graph_rails: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]


class _Railed(Nobody):
    """What asking rails needs of an agent."""

    def __init__(self, rails: Sequence[Guardrail]) -> None:
        super().__init__()
        self.rails = by_stage(rails)


class GuardrailMiddleware(AgentMiddleware[RailState, Any, Any]):
    """Lets guardrails judge what an agent reads, says and does.

    ```python
    agent = create_agent(model, tools, middleware=[GuardrailMiddleware([PiiRail(), InjectionHeuristics()])])
    ```

    The default rails (sizes, the empty answer, the cut reply) are on; a given one of the same name takes the place of one. Tokens that are
    streamed while a reply is made leave before any verdict on it. Put it before `ToolJournalMiddleware` and `BudgetMiddleware`, which
    then see what the rails let through.

    Args:
        guardrails: rails besides the default ones (docs/guardrails.md).
        exit_behavior: what a Block of the input or of a reply does: "end" with a reply that says so, or raise the "error" `Blocked`. An
            agent that owes structured output always raises.

    Raises:
        ConfigError: something that is no guardrail.
    """

    state_schema = RailState

    def __init__(self, guardrails: Sequence[Guardrail] = (), *, exit_behavior: Literal["end", "error"] = "end") -> None:
        super().__init__()
        self.tools = []
        self.guardrails = tuple(beside_defaults(guardrails))
        if exit_behavior not in ("end", "error"):
            raise ConfigError(f"exit_behavior: 'end' or 'error' is due, not {exit_behavior!r}.")
        self.exit_behavior = exit_behavior
        self._told: dict[tuple[str, ...], tuple[Guardrail, ...]] = {}

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        """Judge input and reply of a sync agent."""
        return run_through(self._said(request, as_async(handler), BLOCKING))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Any:
        """Judge input and reply of an async agent."""
        return await self._said(request, handler, AWAITING)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Judge a tool call of a sync agent."""
        return run_through(self._done(request, as_async(handler), BLOCKING))

    async def awrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        """Judge a tool call of an async agent."""
        return await self._done(request, handler, AWAITING)

    # -- the model --------------------------------------------------------------------------------------------------------------

    async def _said(self, request: ModelRequest[Any], handler: Handler, wait: Wait) -> Any:
        if purpose.get() is not None:
            return await handler(request)  # a summary is no reply
        turn = self._turn(request.state, request.tools)
        first = begun_by(messages_in(request.state))
        known: dict[str, Any] = _state(request.state).get(RAILS) or {}
        update: dict[str, Any] = {}
        if first is not None and known.get("turn") != first.id:
            known = {"turn": first.id, "revisions": {}}
            judgement = await wait(judged(turn, "input", first.text, step=0))
            if judgement.decisive is not None:
                return self._blocked(judgement.findings[-1], request)
            if judgement.payload != first.text:
                shown = _with_text(first, judgement.payload)
                request = request.override(messages=[shown if message.id == first.id else message for message in request.messages])
                update["messages"] = [shown]
        revisions = dict(known.get("revisions") or {})
        response = await _Reply(self, turn, revisions, wait).passed(request, handler)
        update[RAILS] = {**known, "revisions": revisions}
        return ExtendedModelResponse(model_response=response, command=Command(update=update))

    def _blocked(self, finding: Finding, request: ModelRequest[Any]) -> ModelResponse[Any]:
        reason = f"{finding.rail}: {finding.reason}"
        if self.exit_behavior == "error" or request.response_format is not None:
            raise Blocked(reason, rail=finding.rail)
        metadata = {"stop_reason": "blocked", "guardrail": finding.rail}
        return ModelResponse(result=[AIMessage(f"I cannot go on here ({reason}).", response_metadata=metadata)])

    # -- tools ------------------------------------------------------------------------------------------------------------------

    async def _done(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]], wait: Wait) -> Any:
        asked = request.tool_call
        call_id = str(asked["id"])
        turn = self._turn(request.state, request.runtime.tools or (), request.runtime.config)
        record = ToolCall(tool_name=asked["name"], args=asked["args"], call_id=call_id)
        step = asking_of(messages_in(request.state), call_id).step
        verdict = await wait(judged(turn, "tool_args", record, step=step, subject=call_id))
        if verdict.decisive is not None:
            return _result(record, f"Error: Refused: {verdict.findings[-1].reason}", failed=True)
        if verdict.findings:
            record = replace(record, args=verdict.payload.args)
            if verdict.payload.result is not None:  # a person answered in the tool's place
                return _result(record, make_storable(verdict.payload.result).text)
            request = request.override(tool_call={**asked, "args": record.args})
        return await self._judged_result(turn, record, await handler(request), wait)

    async def _judged_result(self, turn: Turn, record: ToolCall, result: Any, wait: Wait) -> Any:
        """Return what a tool gave, its messages as the rails let them through."""
        if isinstance(result, ToolMessage):
            return await self._judged_message(turn, record, result, wait)
        if isinstance(result, list):
            return [await self._judged_result(turn, record, part, wait) for part in result]
        if isinstance(result, Command) and isinstance(result.update, Mapping) and isinstance(result.update.get("messages"), list):
            messages = [await self._judged_result(turn, record, message, wait) for message in result.update["messages"]]
            return replace(result, update={**result.update, "messages": messages})
        return result

    async def _judged_message(self, turn: Turn, record: ToolCall, message: ToolMessage, wait: Wait) -> ToolMessage:
        failed = message.status == "error"
        shown = replace(record, result=None if failed else message.content, error=message.text if failed else None)
        verdict = await wait(judge(turn.agent.rails["tool_result"], "tool_result", shown, turn.run))
        if verdict.decisive is not None:
            return message.model_copy(update={"content": f"The result was withheld: {_reason(verdict)}", "artifact": None})
        if not verdict.findings:
            return message
        content = verdict.payload.error if failed else verdict.payload.result
        return message.model_copy(update={"content": content if isinstance(content, str | list) else make_storable(content).text})

    # -- what rails are given -----------------------------------------------------------------------------------------------------

    def _turn(self, state: Any, tools: Sequence[Any], config: Any = None) -> Turn:
        """Return the turn so far, as rails get to see it."""
        messages = messages_in(state)
        name = begun(messages, config)
        turn = unstored(name, _Railed(self._rails_for(tools)))
        turn.run.run_id = name.thread_id or name.run_id
        turn.run.steps = sum(isinstance(message, AIMessage) for message in since(messages))
        turn.run.tool_calls = _calls(since(messages))
        return turn

    def _rails_for(self, tools: Sequence[Any]) -> tuple[Guardrail, ...]:
        real = [tool for tool in tools if isinstance(tool, BaseTool)]
        names = tuple(sorted(tool.name for tool in real))
        if names not in self._told:
            specs = read_tools([described(tool, tool) for tool in real])
            self._told[names] = for_tools(watching(self.guardrails, specs), specs)
        return self._told[names]


class _Reply:
    """One reply, until the rails let one pass."""

    def __init__(self, middleware: GuardrailMiddleware, turn: Turn, revisions: dict[str, int], wait: Wait) -> None:
        self.middleware, self.turn, self.revisions, self.wait = middleware, turn, revisions, wait
        self.kept = ""

    async def passed(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """Return the first response whose reply passes, or one that says what blocked it."""
        while True:
            response = await handler(request)
            reply = next((message for message in response.result if isinstance(message, AIMessage)), None)
            if reply is None:
                return response
            judgement, shown = await self._judged(reply)
            verdict = judgement.decisive
            if isinstance(verdict, Revise) and self.revisions.get(judgement.findings[-1].rail, 0) < verdict.limit:
                request = self._sent_back(request, shown, verdict, judgement.findings[-1])
                continue
            if isinstance(verdict, Block | Ask) or (isinstance(verdict, Revise) and verdict.after == "block"):
                finding = judgement.findings[-1]
                return self.middleware._blocked(replace(finding, reason=_reason(judgement)), request)
            if self.kept:
                shown = _with_text(shown, self.kept + shown.text)
            return replace(response, result=[shown if message is reply else message for message in response.result])

    async def _judged(self, reply: AIMessage) -> tuple[Judgement, AIMessage]:
        """Judge a reply, and where it is an answer the output too; apply what a rail replaced."""
        rails = self.turn.agent.rails
        message = Conversion().to_spec([reply])[0]
        judgement = await self.wait(judge(rails["reply"], "reply", message, self.turn.run))
        if judgement.payload is not message:
            reply = _with_text(reply, judgement.payload.content)
        if judgement.decisive is not None or reply.tool_calls or reply.invalid_tool_calls:
            return judgement, reply
        final = await self.wait(judge(rails["output"], "output", reply.text, self.turn.run))
        return final, reply if final.payload == reply.text else _with_text(reply, final.payload)

    def _sent_back(self, request: ModelRequest[Any], reply: AIMessage, verdict: Revise, finding: Finding) -> ModelRequest[Any]:
        self.revisions[finding.rail] = self.revisions.get(finding.rail, 0) + 1
        if verdict.keep_text:
            self.kept += reply.text
        logger.info("%s: a reply was sent back: %s", finding.rail, finding.reason)
        open_calls = [str(call["id"]) for call in (*reply.tool_calls, *reply.invalid_tool_calls)]
        answers = [ToolMessage(SENT_BACK, tool_call_id=call_id, status="error") for call_id in open_calls]
        return request.override(messages=[*request.messages, reply, *answers, HumanMessage(verdict.feedback)])


def _reason(judgement: Judgement) -> str:
    reason = judgement.findings[-1].reason
    return f"{reason}; {NOBODY_TO_ASK}" if isinstance(judgement.decisive, Ask) else reason


def _with_text(message: Any, text: str) -> Any:
    """Return a message with another text, what else it holds (images, thinking) kept."""
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text})
    others = [block for block in message.content if not isinstance(block, str) and block.get("type") != "text"]
    return message.model_copy(update={"content": [{"type": "text", "text": text}, *others]})


def _result(record: ToolCall, text: str, *, failed: bool = False) -> ToolMessage:
    return ToolMessage(text, name=record.tool_name, tool_call_id=record.call_id, status="error" if failed else "success")


def _calls(messages: Sequence[BaseMessage]) -> list[ToolCall]:
    """Return the tool calls of a turn that have ended."""
    asked = {call["id"]: call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls}
    calls: list[ToolCall] = []
    for message in messages:
        call = asked.get(message.tool_call_id) if isinstance(message, ToolMessage) else None
        if call is not None and isinstance(message, ToolMessage):
            failed = message.status == "error"
            result, error = (None, message.text) if failed else (message.content, None)
            calls.append(ToolCall(tool_name=call["name"], args=call["args"], call_id=str(call["id"]), result=result, error=error))
    return calls


def _state(state: Any) -> Mapping[str, Any]:
    return state if isinstance(state, Mapping) else {}
