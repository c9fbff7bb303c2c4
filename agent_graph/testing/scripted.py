"""ScriptedLLM: a language model that says what the test wrote down."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from agent_graph.errors import ConfigError
from agent_graph.ports import LLMBackend
from agent_graph.types import Message, MessageRole

__all__ = ["Reply", "Request", "ScriptEnded", "ScriptedLLM", "after", "call", "calls", "entry_at", "hang", "script_of"]

Reply: TypeAlias = "Message | str | BaseException | type[BaseException] | Callable[[list[Message], list[dict[str, Any]]], Any]"
"""An entry of a script: a text, a Message, an exception to raise, or a (plain or async) function of the request that gives one of these."""

Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class ScriptEnded(AssertionError):
    """The model was called more often than the script has replies."""

    retryable = False
    """Calling again would not make the script longer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the model, as it arrived."""

    messages: tuple[Message, ...]
    """Copies, so that they stay what they were."""
    tools: list[dict[str, Any]]
    """The very list and the very dicts."""


def call(tool: str, /, *, call_id: str | None = None, **args: Any) -> Message:
    """Return a reply that calls `tool` with `args`; the agent makes up an id where none is given."""
    named: object = tool
    if not (named and isinstance(named, str)):
        raise ConfigError(f"call: the tool's name is {tool!r}; a text is due: call('weather', city='Paris').")
    entry: dict[str, Any] = {"name": tool, "args": args}
    if call_id is not None:
        entry = {"id": call_id, **entry}
    return Message(MessageRole.ASSISTANT, "", {"tool_calls": [entry]})


def calls(*replies: Message) -> Message:
    """Return one reply that makes the calls of all `replies` at once: `calls(call("a"), call("b"))`."""
    given: tuple[object, ...] = replies
    for reply in given:
        if not isinstance(reply, Message) or not reply.metadata.get("tool_calls"):
            raise ConfigError(f"calls: {reply!r} makes no call; calls(call('a'), call('b')) is the form.")
    entries = [entry for reply in replies for entry in reply.metadata["tool_calls"]]
    return Message(MessageRole.ASSISTANT, "", {"tool_calls": entries})


def hang(messages: list[Message], tools: list[dict[str, Any]]) -> Awaitable[Any]:
    """Never answer: an entry of a script."""
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class After:
    """What `after` returns."""

    seconds: float
    reply: Any

    def __post_init__(self) -> None:
        given: object = self.seconds
        if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
            raise ConfigError(f"after: {self.seconds!r} is no time to wait; seconds, zero or more, are due.")


def after(seconds: float, reply: Reply) -> Any:
    """Return an entry of a script that gives `reply` after `seconds`, as the model's `sleep` counts them."""
    return After(seconds, reply)


def script_of(replies: object) -> list[Any]:
    """Return the entries of a script.

    Raises:
        ConfigError: it is one entry. A text would be taken for a list of letters, a mapping or a LangChain message for its keys.
    """
    if isinstance(replies, str | bytes | Mapping) or hasattr(replies, "content") or not isinstance(replies, Iterable):
        raise ConfigError(f"replies: a list is due, with an entry for each call of the model, not {replies!r}. Put it into one: [...].")
    return list(replies)


def entry_at(index: int, replies: Sequence[Any], *, last_forever: bool) -> Any:
    """Return the entry that the call after `index` others gets. Raises ScriptEnded past the end."""
    if index >= len(replies) and not (last_forever and replies):
        raise ScriptEnded(f"call {index + 1} of the model, but the script has {len(replies)} replies")
    return replies[min(index, len(replies) - 1)]


class ScriptedLLM(LLMBackend):
    """Answers with the entries of `replies`, in order; one object may be called from several threads and event loops at once.

    `cost_usd`, `usage`, `model`: written into the metadata of each reply that does not say them itself; `last_forever`: the last
    entry is repeated for ever, else a call past the end raises ScriptEnded; `sleep`: what `after(...)` waits with (a
    `FakeClock().sleep`, say); `tokens`: how `count_tokens` counts, by default 1 per 4 characters and 4 per message.

    Raises:
        ConfigError: `replies` is a single reply instead of a list, or `usage` no pair of tokens and no mapping.
    """

    def __init__(
        self,
        replies: Iterable[Any],
        *,
        cost_usd: float | Decimal | None = None,
        usage: Mapping[str, Any] | tuple[int, int] | None = None,
        model: str | None = None,
        last_forever: bool = False,
        sleep: Sleep = asyncio.sleep,
        tokens: Callable[[Sequence[Message]], int] | None = None,
    ) -> None:
        self._replies = script_of(replies)
        self._lock = threading.Lock()
        self._last_forever = last_forever
        self._sleep = sleep
        self._tokens = tokens or _rough_tokens
        self._metadata = _metadata(cost_usd, usage, model)
        self.requests: list[Request] = []
        """Every call so far, in order of arrival."""

    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        """Return (or raise) the next entry of the script."""
        reply = self._next(Request(tuple(copy.deepcopy(message) for message in messages), tools))
        said: Message = await self._said(reply, messages, tools)
        return said

    def count_tokens(self, messages: list[Message]) -> int:
        """Return the rough number of tokens of `messages`."""
        return self._tokens(messages)

    def _next(self, request: Request) -> Any:
        with self._lock:
            index = len(self.requests)
            self.requests.append(request)
            return entry_at(index, self._replies, last_forever=self._last_forever)

    async def _said(self, reply: Any, messages: list[Message], tools: list[dict[str, Any]]) -> Any:
        if isinstance(reply, After):
            await self._sleep(reply.seconds)
            return await self._said(reply.reply, messages, tools)
        if isinstance(reply, BaseException) or (isinstance(reply, type) and issubclass(reply, BaseException)):
            raise reply
        if callable(reply):
            said = reply(messages, tools)
            return await self._said(await said if inspect.isawaitable(said) else said, messages, tools)
        if isinstance(reply, str):
            return Message(MessageRole.ASSISTANT, reply, copy.deepcopy(self._metadata))
        return self._with_metadata(reply)

    def _with_metadata(self, reply: Any) -> Any:
        """Return a copy of `reply`, completed; anything that is no message as it is, so that a test can break the contract."""
        if not isinstance(getattr(reply, "metadata", None), dict):
            return reply
        said = copy.deepcopy(reply)
        said.metadata = {**copy.deepcopy(self._metadata), **said.metadata}
        return said


def _metadata(cost_usd: float | Decimal | None, usage: Mapping[str, Any] | tuple[int, int] | None, model: str | None) -> dict[str, Any]:
    if isinstance(usage, tuple) and len(usage) == 2:
        usage = {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
    if usage is not None and not isinstance(usage, Mapping):
        raise ConfigError(f"usage: {usage!r}; two whole numbers, (input tokens, output tokens), or a mapping is due.")
    given = {"cost_usd": cost_usd, "usage": None if usage is None else dict(usage), "model": model}
    return {key: value for key, value in given.items() if value is not None}


def _rough_tokens(messages: Sequence[Message]) -> int:
    return sum(4 + (len(message.content) + 3) // 4 for message in messages)
