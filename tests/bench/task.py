"""The task that every way of running an agent is given: N model calls, and a tool call with a 1,024-byte result after each but the last.

The model is a chat model without a network: what it replies follows from the last message alone, and each reply names its usage. So
all ways ask the same of it, and what differs is what stands between the calls.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool

__all__ = ["RESULT_BYTES", "Model", "question", "slow_tool", "work", "work_once"]

RESULT_BYTES = 1_024


def question(steps: int) -> str:
    """Return the input of a task of `steps` steps."""
    return f"N={steps}"


def answer(steps: int) -> str:
    """Return the output of a task of `steps` steps."""
    return f"done {steps}"


def result(step: int, steps: int) -> str:
    """Return what the tool gives back: where the task stands, filled up."""
    return f"{step}/{steps}|".ljust(RESULT_BYTES, "x")


def reply_to(text: str) -> AIMessage:
    """Return the model's reply to the last message's text."""
    if text.startswith("N="):
        done, steps = 0, int(text[2:])
    else:
        done, steps = (int(part) for part in text.split("|", 1)[0].split("/"))
    step = done + 1
    usage: Any = {"input_tokens": 100 * step, "output_tokens": 20, "total_tokens": 100 * step + 20}
    metadata = {"model_name": "bench", "finish_reason": "stop" if step == steps else "tool_calls"}
    if step == steps:
        return AIMessage(answer(steps), usage_metadata=usage, response_metadata=metadata)
    call = {"name": "work", "args": {"step": step, "steps": steps}, "id": f"call_{step}", "type": "tool_call"}
    return AIMessage("", usage_metadata=usage, response_metadata=metadata, tool_calls=[call])


class Model(BaseChatModel):
    """Answers at once, or after `latency_s`."""

    model_name: str = "bench"
    latency_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "bench"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Return the model itself: `create_agent` binds anew at each call, and is not to be charged for what a client makes of it."""
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        raise NotImplementedError("everything here is asynchronous")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: AsyncCallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        return ChatResult(generations=[ChatGeneration(message=reply_to(str(messages[-1].content)))])


@tool(extras={"idempotent": True})
async def work(step: int, steps: int) -> str:
    """Do one unit of work."""
    return result(step, steps)


@tool("work", extras={"idempotent": False})
async def work_once(step: int, steps: int) -> str:
    """Do one unit of work that must not be done twice."""
    return result(step, steps)


def slow_tool(latency_s: float) -> BaseTool:
    """Return the tool, taking `latency_s` seconds."""

    @tool("work", extras={"idempotent": True})
    async def slow(step: int, steps: int) -> str:
        """Do one unit of work."""
        await asyncio.sleep(latency_s)
        return result(step, steps)

    return slow
