"""An `LLMBackend` as a LangChain chat model, and a LangChain chat model as an `LLMBackend`.

`as_chat_model` is how the agent's graph calls a custom backend: the call is then a proper model run in LangSmith, with
usage and model name. Three things hold:

- `complete()` receives the very tool dicts that were bound, and its own metadata of earlier replies unchanged.
- What the backend did not say stays unknown: no usage is None, never zero.
- An error of the backend reaches the caller as it was raised; a reply that is no Message is a ContractError.

A backend that has a method `stream` (see `SupportsStream`) is streamed wherever LangChain streams; the reply of any other comes
as one chunk.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast, runtime_checkable

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from agent_graph.decisions.replies import Reply, read_reply
from agent_graph.decisions.tokens import estimate_messages
from agent_graph.decisions.tools import ToolSpec, read_tools
from agent_graph.errors import ConfigError, ContractError, blamed
from agent_graph.messages import Conversion, current_conversion, to_ai_message
from agent_graph.ports import LLMBackend
from agent_graph.runtime.foreign import called
from agent_graph.types import Message, MessageRole
from agent_graph_adapters.langchain.blocking import run_alone
from agent_graph_adapters.models import per_loop

__all__ = ["BackendChatModel", "ModelBackend", "SupportsStream", "as_chat_model", "as_llm_backend"]


_FOR_TRACES = ("ls_structured_output_format",)
"""Options that LangChain itself takes out of a call, for its traces."""


@runtime_checkable
class SupportsStream(Protocol):
    """What an `LLMBackend` may have besides `complete`: the reply in pieces."""

    def stream(self, messages: list[Message], tools: list[dict[str, Any]]) -> AsyncIterator[str | Message]:
        """Yield the text as it comes, piece by piece, then the whole reply as `complete` would have returned it.

        The last piece, a `Message`, carries tool calls, usage and cost; its content begins with the text that was
        yielded (what is left of it is yielded too). Without it the reply is the text alone, and usage is unknown.
        """
        ...


def as_chat_model(backend: LLMBackend, *, name: str | None = None) -> BaseChatModel:
    """Return `backend` as a LangChain chat model; `name` is what its runs are called in a trace.

    ConfigError if `backend` has no `complete` and `count_tokens`. What `as_llm_backend` made is unwrapped again.
    """
    if type(backend) is ModelBackend:
        return backend.model
    for method in ("complete", "count_tokens"):
        if not callable(getattr(backend, method, None)):
            raise ConfigError(f"llm: {type(backend).__name__} has no method {method}(); an LLMBackend was due.")
    kind = StreamingBackendChatModel if callable(getattr(backend, "stream", None)) else BackendChatModel
    return kind(backend=backend, name=name)


def as_llm_backend(model: BaseChatModel) -> LLMBackend:
    """Return a LangChain chat model as an `LLMBackend`. What `as_chat_model` made is unwrapped again."""
    return cast("LLMBackend", model.backend) if isinstance(model, BackendChatModel) else ModelBackend(model)


class BackendChatModel(BaseChatModel):
    """An `LLMBackend` behind LangChain's interface."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    backend: Any = Field(exclude=True, repr=False)
    """The wrapped `LLMBackend`, recognised by shape."""
    cache: Any = Field(default=False, exclude=True)
    """Off: two backends of one class are not the same model, and a cached reply would be counted as paid for."""

    @property
    def _llm_type(self) -> str:
        return f"agent-graph-{type(self.backend).__name__}"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"backend": _qualified_name(self.backend), "model": self._model_name()}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with `tools` bound: our dicts as they are, everything else described in OpenAI's form.

        A backend of the specification takes neither `tool_choice` nor other options: they are left out.
        """
        described = [tool if _is_described(tool) else convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=described, **{key: value for key, value in kwargs.items() if key in _FOR_TRACES})

    def get_num_tokens(self, text: str) -> int:
        """Return the backend's own count of one user message with this text."""
        return self._count([Message(MessageRole.USER, text)])

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the backend's own count of `messages`. Tools are not counted: its port has no place for them."""
        return self._count(_conversion().to_spec(messages))

    def _count(self, messages: list[Message]) -> int:
        count = self.backend.count_tokens(messages)
        if not isinstance(count, int):
            raise ContractError(f"{type(self.backend).__name__}.count_tokens returned {type(count).__name__}; an int was due.")
        return count

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return run_alone(self._agenerate(messages, stop, **kwargs), instead="ainvoke")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[dict[str, Any]] = (),
        step: int = 1,
        **kwargs: Any,
    ) -> ChatResult:
        conversion = _conversion()
        with blamed("llm.complete"):
            answer = await called(self.backend.complete, conversion.to_spec(messages), list(tools))
        message = to_ai_message(answer, _read(answer, tools, step))
        conversion.remember(message, answer)
        _cut(message, stop)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks = aiter(self._astream(messages, stop, **kwargs))
        while True:
            try:
                chunk = run_alone(_next(chunks), instead="astream")
            except StopAsyncIteration:
                return
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        result = await self._agenerate(messages, stop, **kwargs)
        chunk = _as_chunk(cast("AIMessage", result.generations[0].message))
        if run_manager is not None:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    def _model_name(self) -> str:
        named = (getattr(self.backend, attribute, None) for attribute in ("model", "model_name"))
        return next((name for name in named if isinstance(name, str) and name), type(self.backend).__name__)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        provider = getattr(self.backend, "provider", None)
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = provider if isinstance(provider, str) and provider else type(self.backend).__name__
        params["ls_model_name"] = self._model_name()
        return params


class StreamingBackendChatModel(BackendChatModel):
    """An `LLMBackend` that can stream."""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[dict[str, Any]] = (),
        step: int = 1,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if stop:  # where to stop is known only once the text is whole
            async for chunk in super()._astream(messages, stop, run_manager, tools=tools, step=step):
                yield chunk
            return
        shown, answer = "", None
        async with aclosing(_pieces(self.backend, _conversion().to_spec(messages), list(tools))) as pieces:
            async for piece in pieces:
                if not isinstance(piece, str):
                    answer = piece
                    break
                shown += piece
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
        answer = Message(MessageRole.ASSISTANT, shown) if answer is None else answer
        message = to_ai_message(answer, _read(answer, tools, step))
        yield _as_chunk(message, rest=_rest(str(message.text), shown, self.backend))


async def _pieces(backend: Any, messages: list[Message], tools: list[dict[str, Any]]) -> AsyncGenerator[str | Message, None]:
    """Yield the backend's pieces, and close its stream in any case: it may hold a connection."""
    with blamed("llm.stream"):
        stream = backend.stream(messages, tools)
        try:
            async for piece in stream:
                yield piece
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


async def _next(chunks: AsyncIterator[ChatGenerationChunk]) -> ChatGenerationChunk:
    return await anext(chunks)


def _is_described(tool: object) -> bool:
    """Return whether `tool` is a description that an `LLMBackend` can read; a bare JSON Schema, as for structured output, is none."""
    return isinstance(tool, dict) and ("name" in tool or "function" in tool)


def _rest(whole: str, shown: str, backend: object) -> str:
    if not whole.startswith(shown):
        raise ContractError(f"{type(backend).__name__}.stream yielded text that is not the beginning of its final Message's content.")
    return whole[len(shown) :]


def _read(answer: Message, tools: Sequence[dict[str, Any]], step: int) -> Reply:
    return read_reply(answer, tool_names=_tool_names(tools), step=step, json_content=True)


def _tool_names(tools: Sequence[Mapping[str, Any]]) -> set[str]:
    named = (tool.get("function", tool) for tool in tools)
    return {str(tool["name"]) for tool in named if isinstance(tool, Mapping) and "name" in tool}


def _cut(message: AIMessage, stop: Sequence[str] | None) -> None:
    """Cut the text at the first stop sequence: the port has no place to hand these on."""
    text = message.content
    if stop and isinstance(text, str):
        message.content = text[: min((found for word in stop if (found := text.find(word)) >= 0), default=len(text))]


def _as_chunk(message: AIMessage, *, rest: str | None = None) -> ChatGenerationChunk:
    """Return the stream's last chunk: the text that is left (None: the content is whole), and everything else.

    LangChain reads the arguments of a streamed call leniently; those of a malformed one are a JSON text, which it
    cannot repair into an object.
    """
    calls = [tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"]) for call in message.tool_calls]
    calls += [tool_call_chunk(name=bad["name"], args=bad["args"], id=bad["id"]) for bad in message.invalid_tool_calls]
    for index, call in enumerate(calls):
        call["index"] = index
    whole = AIMessageChunk(
        content=message.content if rest is None else rest,
        id=message.id,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=calls,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=whole)


class ModelBackend(LLMBackend):
    """A LangChain chat model behind the specification's interface."""

    def __init__(self, model: BaseChatModel) -> None:
        self.model = model
        self._clients = per_loop(model)
        self._bound: tuple[list[dict[str, Any]], BaseChatModel | None, Runnable[LanguageModelInput, AIMessage]] = ([], None, model)

    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        """Return the model's reply. ConfigError if there are tools and the model takes none."""
        conversion = _conversion()
        reply = await self._with_tools(tools).ainvoke(conversion.to_langchain(messages))
        return conversion.to_spec([reply])[0]

    async def aclose(self) -> None:
        """Close the clients of every loop that runs; those of a loop that ended are closed."""
        await self._clients.aclose()

    def count_tokens(self, messages: list[Message]) -> int:
        """Return an estimate that is rounded up: a model's own counter may need a download."""
        return estimate_messages(messages)

    def _with_tools(self, tools: list[dict[str, Any]]) -> Runnable[LanguageModelInput, AIMessage]:
        client = self._clients.current()
        known, of, bound = self._bound
        if of is not client or len(known) != len(tools) or any(ours is not theirs for ours, theirs in zip(known, tools, strict=True)):
            bound = _bound(client, tools)
            self._bound = (list(tools), client, bound)
        return bound


def _bound(model: BaseChatModel, tools: list[dict[str, Any]]) -> Runnable[LanguageModelInput, AIMessage]:
    if not tools:
        return model
    try:
        return model.bind_tools([_openai_form(spec) for spec in read_tools(tools)])
    except NotImplementedError:
        raise ConfigError(f"llm: {type(model).__name__} takes no tools (it has no bind_tools).") from None


def _openai_form(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _conversion() -> Conversion:
    """Return the run's conversion, or a new one outside a run."""
    return current_conversion.get() or Conversion()


def _qualified_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
