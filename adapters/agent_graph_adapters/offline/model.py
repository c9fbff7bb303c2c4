"""The offline model as LangChain's chat model interface."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    UsageMetadata,
)
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from typing_extensions import override

from agent_graph.decisions.tokens import estimate_text
from agent_graph_adapters.offline.answering import Outcome, say, summarise
from agent_graph_adapters.offline.choosing import Call, Plan, plan
from agent_graph_adapters.offline.schemas import Tool, read_tool

__all__ = ["LABEL", "OfflineChatModel"]

LABEL = "OFFLINE MODEL: no language model was called; the loop, tools, limits, persistence are real"
"""What the first and the last line of an output made with this model say; answers themselves do not repeat it."""

_NAME = "offline"
_NO_TOOLS = "No tool may be used here, and the offline model, which is no language model, can only pick tools and tell what they return."
_SAMPLE_CHARS = 50_000
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the messages hold, as far as it matters for the next reply."""

    question: str
    made: tuple[Call, ...]
    """Calls made since the question."""
    outcomes: tuple[Outcome, ...]
    """Those of them that came back."""
    earlier: tuple[Call, ...]
    """Calls made before the question."""
    system: str


class OfflineChatModel(BaseChatModel):
    """A chat model without a language model: reads the question by rules, calls bound tools, reports their results.

    Deterministic, free, without I/O. It asks for all calls at once (one at a time under `parallel_tool_calls=False`),
    never for one that was already made since the question, and says plainly what no tool fits, what is missing, and
    which tool failed. It obeys `tool_choice`, stop words and a cap on output tokens. Token counts are estimates; the
    cost is exactly 0.
    """

    @property
    def _llm_type(self) -> str:
        return _NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": _NAME}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider=_NAME, ls_model_name=_NAME, ls_model_type="chat")

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with `tools`; `tool_choice`: "auto", "none", "any", "required", a name, OpenAI's dict."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return super().bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=_reply(messages, stop, kwargs))])

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # Milliseconds of pure computation: a thread, which the base class would take, costs more than it.
        return ChatResult(generations=[ChatGeneration(message=_reply(messages, stop, kwargs))])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(_reply(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(_reply(messages, stop, kwargs)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _reply(messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]) -> AIMessage:
    """Return the reply to `messages`: the calls still to be made, else an answer."""
    turn = _read(messages)
    entries = options.get("tools") or []
    tools = [read_tool(entry) for entry in entries if isinstance(entry, Mapping)]
    allowed, forced, must = _tool_choice(options.get("tool_choice"), tools)
    planned = plan(turn.question, tools, forced=forced, earlier=turn.earlier) if tools and allowed else Plan()
    open_calls = [call for call in planned.calls if call not in turn.made]
    if open_calls and not (must and turn.made):
        return _calling(
            open_calls[:1] if options.get("parallel_tool_calls") is False else open_calls,
            messages,
            entries,
            len(turn.made),
        )
    text = _stopped(_answer(turn, planned, bool(tools) and allowed), stop)
    return _answering(text, messages, entries, next((options[cap] for cap in _CAPS if isinstance(options.get(cap), int)), None))


def _read(messages: Sequence[BaseMessage]) -> _Turn:
    """Find the question: the last human message that does not follow a tool's result (one that does is a hint).

    After a call that was cancelled it is a question again: that turn was given up.
    """
    spoken = [message for message in messages if not isinstance(message, SystemMessage)]
    start = 0
    for at, message in enumerate(spoken):
        before = spoken[at - 1] if at else None
        if isinstance(message, HumanMessage) and not (isinstance(before, ToolMessage) and "was cancelled" not in before.text):
            start = at
    question = spoken[start].text if spoken and isinstance(spoken[start], HumanMessage) else ""
    made, results = _calls(spoken[start:]), _results(spoken[start:])
    return _Turn(
        question=question,
        made=tuple(Call(call["name"], call["args"]) for call in made),
        outcomes=tuple(_outcome(call, results[call["id"]]) for call in made if call["id"] in results),
        earlier=tuple(Call(call["name"], call["args"]) for call in _calls(spoken[:start])),
        system="\n".join(message.text for message in messages if isinstance(message, SystemMessage)),
    )


def _calls(messages: Sequence[BaseMessage]) -> list[Any]:
    return [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]


def _results(messages: Sequence[BaseMessage]) -> dict[str, ToolMessage]:
    return {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}


def _outcome(call: Any, message: ToolMessage) -> Outcome:
    text = message.text
    failed = message.status == "error" or text.startswith("Error:")
    return Outcome(call["name"], call["args"], text.removeprefix("Error:").strip() if failed else text, failed)


def _tool_choice(choice: Any, tools: Sequence[Tool]) -> tuple[bool, str | None, bool]:
    """Return whether tools may be called, the only one that may, and whether one must be."""
    names = {tool.name for tool in tools}
    if isinstance(choice, Mapping):
        choice = choice.get("name") or (choice.get("function") or {}).get("name") or choice.get("type")
    if choice == "none":
        return False, None, False
    if isinstance(choice, str) and choice in names:
        return True, choice, True
    if choice in ("any", "required", True):
        return True, next(iter(names)) if len(names) == 1 else None, True
    return True, None, False


def _answer(turn: _Turn, planned: Plan, may_call: bool) -> str:
    if not turn.outcomes and _asks_for_summary(turn):
        return summarise(turn.question)
    said = [say(outcome) for outcome in turn.outcomes]
    if not said and not may_call:
        return _NO_TOOLS
    said += planned.problems
    if planned.beyond and not turn.outcomes:
        said.append("A language model might do more with it: set OPENAI_API_KEY, OPENAI_BASE_URL or AGENT_GRAPH_MODEL.")
    return "\n".join(dict.fromkeys(said))


def _asks_for_summary(turn: _Turn) -> bool:
    return bool(re.search(r"\bsummar(?:y|i[sz]e)", f"{turn.system[:500]}\n{turn.question[:500]}", re.IGNORECASE)) and "\n" in turn.question


def _calling(calls: Sequence[Call], messages: Sequence[BaseMessage], tools: Sequence[Any], made: int) -> AIMessage:
    asked = [tool_call(name=call.tool, args=dict(call.args), id=f"call_{_digest(messages)}_{made + at}") for at, call in enumerate(calls)]
    written = json.dumps([[call["name"], call["args"]] for call in asked], ensure_ascii=False, default=str)
    return AIMessage(
        content="",
        tool_calls=asked,
        usage_metadata=_usage(messages, tools, written),
        response_metadata=_metadata("tool_calls"),
    )


def _digest(messages: Sequence[BaseMessage]) -> str:
    """Return what tells one transcript from another, so that a call's id is its own, and the same again in a retry."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"{message.type}\x1f{message.text}\x1e".encode(errors="replace"))
    return digest.hexdigest()[:12]


def _answering(text: str, messages: Sequence[BaseMessage], tools: Sequence[Any], cap: int | None) -> AIMessage:
    whole = text
    while cap is not None and text and (tokens := _tokens(text)) > cap:
        text = text[: len(text) * max(cap, 0) // tokens]
    cut = text != whole
    return AIMessage(
        content=text,
        usage_metadata=_usage(messages, tools, text),
        response_metadata=_metadata("length" if cut else "stop"),
    )


def _metadata(finish_reason: str) -> dict[str, Any]:
    return {"model_name": _NAME, "model_provider": _NAME, "finish_reason": finish_reason, "cost_usd": 0.0}


def _usage(messages: Sequence[BaseMessage], tools: Sequence[Any], written: str) -> UsageMetadata:
    schemas = json.dumps(list(tools), ensure_ascii=False, default=str) if tools else ""
    calls = json.dumps([[call["name"], call["args"]] for call in _calls(messages)], ensure_ascii=False, default=str)
    read = sum(_tokens(message.text) + 4 for message in messages) + _tokens(schemas) + _tokens(calls)
    return UsageMetadata(input_tokens=read, output_tokens=_tokens(written), total_tokens=read + _tokens(written))


def _tokens(text: str) -> int:
    """Estimate the tokens of `text`, of a very long one by its opening."""
    opening = text[:_SAMPLE_CHARS]
    return math.ceil(estimate_text(opening) * len(text) / max(len(opening), 1))


def _stopped(text: str, stop: list[str] | None) -> str:
    ends = [at for word in stop or () if (at := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text


def _chunks(reply: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Cut a reply into words and calls; usage and metadata come with the last piece."""
    for word in re.findall(r"\S*\s*", reply.text):
        if word:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    for at, call in enumerate(reply.tool_calls):
        args = json.dumps(call["args"], ensure_ascii=False)
        piece = tool_call_chunk(name=call["name"], args=args, id=call["id"], index=at)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            usage_metadata=reply.usage_metadata,
            response_metadata=reply.response_metadata,
            chunk_position="last",
        ),
        generation_info={"finish_reason": reply.response_metadata["finish_reason"]},
    )
