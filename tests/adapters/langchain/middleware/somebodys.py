"""Pieces of somebody's `create_agent`, for the tests of this folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Died(BaseException):
    """Stands for the end of a process: nothing that runs catches it."""


def calls(*asked: tuple[str, dict[str, Any]], **fields: Any) -> AIMessage:
    """Return a reply that asks for these tools."""
    return AIMessage("", tool_calls=[{"id": f"{name}_{at}", "name": name, "args": args} for at, (name, args) in enumerate(asked)], **fields)


PRICES = {"metered": {"input": 10, "output": 40}}
"""USD per million tokens."""


class Metered(BaseChatModel):
    """A paid model with a bill of its own. It says what `asks` makes of the messages, in as many tokens as it may use."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model_name: str = "metered"
    asks: Callable[[Any], AIMessage]
    wants: int = 2_000
    """Output tokens that it uses if it may."""
    fails: Any = None
    """An iterator of what goes wrong at each call; None: nothing."""
    _bill: list[Decimal] = PrivateAttr(default_factory=list)
    _tokens: list[int] = PrivateAttr(default_factory=list)
    _requests: list[tuple[list[BaseMessage], dict[str, Any]]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "metered"

    @property
    def billed(self) -> Decimal:
        """USD of all calls, as this provider counts."""
        return sum(self._bill, Decimal(0))

    @property
    def tokens(self) -> int:
        """Input and output of all calls."""
        return sum(self._tokens)

    @property
    def requests(self) -> list[tuple[list[BaseMessage], dict[str, Any]]]:
        """Messages and options of every call that was paid for."""
        return self._requests

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """Return the model with these tools."""
        return self.bind(tools=tools, **options)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        error = None if self.fails is None else next(self.fails, None)
        if error is not None:
            raise error
        tools = [convert_to_openai_tool(tool) for tool in options.get("tools") or ()]
        sent = sum(len(message.text) // 5 for message in messages) + len(json.dumps(tools)) // 4
        used = min(self.wants, options.get("max_tokens", self.wants))
        reply = self.asks(messages).model_copy(deep=True)
        with self._lock:
            self._bill.append(Decimal(sent * 10 + used * 40).scaleb(-6))
            self._tokens.append(sent + used)
            self._requests.append((messages, options))
        reply.usage_metadata = {"input_tokens": sent, "output_tokens": used, "total_tokens": sent + used}
        reply.response_metadata = {"model_name": self.model_name}
        if options.get("tool_choice") == "none" or not options.get("tools"):
            reply.tool_calls = []
            reply.content = reply.content or "That is all I know."
        return ChatResult(generations=[ChatGeneration(message=reply)])


def numbered(*asked: tuple[str, dict[str, Any]]) -> Callable[[Any], AIMessage]:
    """Return an `asks` that never has enough: each reply asks for these tools again, under new ids."""
    numbers: Iterator[int] = iter(range(10**6))

    def asks(_: Any) -> AIMessage:
        return AIMessage("", tool_calls=[{"id": f"call_{next(numbers)}", "name": name, "args": args} for name, args in asked])

    return asks


def calling(agent: Any, name: str = "research") -> StructuredTool:
    """Return a tool that asks another agent, in both ways."""

    def ask(topic: str) -> str:
        return str(agent.invoke({"messages": [("user", f"Find out about {topic}.")]})["messages"][-1].text)

    async def aask(topic: str) -> str:
        return str((await agent.ainvoke({"messages": [("user", f"Find out about {topic}.")]}))["messages"][-1].text)

    return StructuredTool.from_function(func=ask, coroutine=aask, name=name, description="Find out about a topic.")
