"""ScriptedChatModel: a LangChain chat model that says what the test wrote down."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr

from agent_graph.decisions.replies import read_reply
from agent_graph.messages.fields import reply_fields
from agent_graph.testing.scripted import entry_at, script_of
from agent_graph.types import Message

__all__ = ["ScriptedChatModel"]


class _Script:
    """What copies of one model share."""

    def __init__(self, replies: Iterable[Any]) -> None:
        self.replies = script_of(replies)
        self.lock = threading.Lock()
        self.requests: list[tuple[list[BaseMessage], dict[str, Any]]] = []
        self.bound: list[list[Any]] = []

    def next(self, messages: list[BaseMessage], options: dict[str, Any], last_forever: bool) -> Any:
        with self.lock:
            index = len(self.requests)
            self.requests.append((list(messages), options))
            return entry_at(index, self.replies, last_forever=last_forever)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Script:
        return self


class ScriptedChatModel(BaseChatModel):
    """Answers with the entries of `replies`, in order: an AIMessage (with tool_calls, usage_metadata, ...), a text, a `Message` (what
    `call(...)` and `calls(...)` return), an exception to raise, or a function of the messages that returns one of these. Streams a
    text word by word, tool calls and usage last.

    One model, and its copies, may be called from several threads and event loops at once.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model_name: str = "scripted"
    usage: tuple[int, int] | None = None
    """Input and output tokens of each reply that has no usage of its own."""
    last_forever: bool = False
    """Whether the last entry is repeated for ever; else a call past the end raises ScriptEnded."""
    _script: _Script = PrivateAttr()

    def __init__(self, replies: Iterable[Any], **fields: Any) -> None:
        super().__init__(**fields)
        self._script = _Script(replies)

    @property
    def requests(self) -> list[tuple[list[BaseMessage], dict[str, Any]]]:
        """Every call so far: its messages, and its options (`tools`, `tool_choice`, `max_tokens`, ...)."""
        return self._script.requests

    @property
    def bound(self) -> list[list[Any]]:
        """The tools of every bind_tools so far, as they were given."""
        return self._script.bound

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with `tools` as an option of each call, in OpenAI's layout."""
        self._script.bound.append(list(tools))
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._reply(messages, kwargs)):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.content), chunk=ChatGenerationChunk(message=chunk))
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self._reply(messages, kwargs)):
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.content), chunk=ChatGenerationChunk(message=chunk))
            yield ChatGenerationChunk(message=chunk)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, kwargs))])

    def _reply(self, messages: list[BaseMessage], options: dict[str, Any]) -> AIMessage:
        said: Any = self._script.next(messages, options, self.last_forever)
        if callable(said) and not isinstance(said, type):
            said = said(messages)
        if isinstance(said, BaseException) or (isinstance(said, type) and issubclass(said, BaseException)):
            raise said
        reply = _read(said, messages)
        reply.response_metadata = {"model_name": self.model_name, **reply.response_metadata}
        if reply.usage_metadata is None and self.usage is not None:
            sent, received = self.usage
            reply.usage_metadata = {"input_tokens": sent, "output_tokens": received, "total_tokens": sent + received}
        return reply


def _read(said: Any, messages: Sequence[BaseMessage]) -> AIMessage:
    """Return what an entry says, as a message of its own."""
    if isinstance(said, AIMessage):
        return said.model_copy(deep=True)
    if isinstance(said, str):
        return AIMessage(said)
    if not isinstance(said, Message):
        raise TypeError(f"{said!r} is no entry of a ScriptedChatModel's script; a text, an AIMessage, call(...) or an exception is.")
    # Ids of the model's own making: the same whenever this request comes again, others for each reply of a conversation.
    step = 1 + sum(isinstance(message, AIMessage) for message in messages)
    reply = read_reply(said, tool_names=(), step=step, json_content=False)
    return AIMessage(reply.text, **copy.deepcopy(reply_fields(reply, said.metadata)))


def _chunks(reply: AIMessage) -> Iterator[AIMessageChunk]:
    """Yield `reply` in pieces whose sum it is: the text by words, then everything else."""
    content: Any = reply.content
    if isinstance(content, str):
        for word in re.findall(r"\S+\s*|\s+", content):
            yield AIMessageChunk(content=word, id=reply.id)
        content = ""
    yield AIMessageChunk(
        content=content,
        id=reply.id,
        additional_kwargs=reply.additional_kwargs,
        response_metadata=reply.response_metadata,
        usage_metadata=reply.usage_metadata,
        tool_call_chunks=_call_chunks(reply),
        chunk_position="last",
    )


def _call_chunks(reply: AIMessage) -> list[Any]:
    return [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(reply.tool_calls)
    ]
