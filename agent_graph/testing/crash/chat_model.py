"""The chat model of `World.chat_model`: a scripted one that writes its bill and then takes its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from agent_graph.testing.chat_model import ScriptedChatModel

__all__ = ["BilledChatModel"]


class BilledChatModel(ScriptedChatModel):
    """Answers with `told(messages)`, after `bill(messages)` and `latency_s` seconds; says that it cost `cost_usd`, unless that is None.

    Billed in each of the four ways in which a chat model is asked: streamed or not, awaited or not.
    """

    _bill: Callable[[list[BaseMessage]], None] = PrivateAttr()
    _latency_s: float = PrivateAttr()
    _cost_usd: str | None = PrivateAttr()

    def __init__(
        self,
        told: Callable[[list[BaseMessage]], Any],
        *,
        bill: Callable[[list[BaseMessage]], None],
        latency_s: float,
        cost_usd: str | None,
        **fields: Any,
    ) -> None:
        super().__init__([told], last_forever=True, **fields)
        self._bill, self._latency_s, self._cost_usd = bill, latency_s, cost_usd

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._bill(messages)
        await asyncio.sleep(self._latency_s)
        return await super()._agenerate(messages, stop, run_manager, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._bill(messages)
        await asyncio.sleep(self._latency_s)
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._bill(messages)
        time.sleep(self._latency_s)
        return super()._generate(messages, stop, run_manager, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self._bill(messages)
        time.sleep(self._latency_s)
        yield from super()._stream(messages, stop, run_manager, **kwargs)

    def _reply(self, messages: list[BaseMessage], options: dict[str, Any]) -> AIMessage:
        reply = super()._reply(messages, options)
        if self._cost_usd is not None:
            reply.response_metadata = {"cost_usd": self._cost_usd, **reply.response_metadata}
        return reply
