"""Whose HTTP client is it? One copy of a chat model per event loop, with a client of its own.

An async HTTP client keeps its pool's connections on the loop that opened them; used from another loop it fails ("Event
loop is closed", "bound to a different event loop"). The integrations make that easy to meet: langchain-openai and
langchain-anthropic hold their default clients in an `lru_cache`, one per base URL for the whole process.

The SDKs of OpenAI and Anthropic are made by one generator and share a shape: `with_options(http_client=, max_retries=)`
gives a client with the same keys, headers and address over another connection pool, and `DefaultAsyncHttpxClient` in
the package makes a pool with the SDK's own settings. Models are recognised by that shape. A pool that the user gave
(`http_async_client=`) is left alone: what it was made with cannot be read from it.

Such a copy also asks for usage when it streams: langchain-openai leaves that out at any address but OpenAI's, and every bill would be
a guess from the text. A `stream_usage=False` that was given stays.

A copy's pool is closed when its loop ends. A loop has one public hook for that, also under `asyncio.run`: before it
closes, it finalises the async generators that were first stepped on it. So each copy has one, which closes the pool in
its `finally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["Detached", "PerLoop", "detached", "telling_usage"]

logger = logging.getLogger("agent_graph")

CLOSE_S = 1.0
"""Seconds that another loop may take to close its client."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A model without retries of its own, and the connection pool that is its alone."""

    model: BaseChatModel
    pool: Any | None
    """To be closed with `await pool.aclose()`; None: the model shares the pools of the one it was made from."""
    foreign: bool = False
    """Whether it still uses a pool that the user made, which belongs to one loop."""


def detached(model: BaseChatModel) -> Detached:
    """Return a copy of `model` with its own connection pool and no retries, or as much of that as its kind allows."""
    if hasattr(getattr(model, "root_async_client", None), "with_options"):
        return _openai_like(model)
    copy = _without_retries(model)
    if isinstance(getattr(type(model), "_async_client", None), functools.cached_property):
        return _anthropic_like(copy.model_copy() if copy is model else copy)
    if _are_completions(getattr(model, "async_client", None)) and _are_completions(getattr(model, "client", None), or_none=True):
        return _groq_like(copy)
    client = getattr(copy, "client", None)
    if hasattr(client, "sdk_configuration") and any("openrouter" in cls.__name__.lower() for cls in type(model).__mro__):
        return Detached(_openrouter_like(copy), None)
    if copy is not model and hasattr(getattr(client, "meta", None), "config"):  # boto's, of Bedrock, made with the old number
        _say_it_retries(type(model).__name__)
    return Detached(copy, None)


def telling_usage(model: BaseChatModel) -> BaseChatModel:
    """Return `model`, or a copy that asks for usage when it streams, where nobody has said whether it should."""
    given: Any = model
    if "stream_usage" not in type(model).model_fields or given.stream_usage is not None:
        return model
    if "stream_options" in (getattr(model, "model_kwargs", None) or {}):
        return model
    return model.model_copy(update={"stream_usage": True})


class PerLoop:
    """A model for each event loop; any thread may ask."""

    def __init__(self, make: Callable[[], BaseChatModel], *, shared: bool) -> None:
        """`shared` says that `make` gives the same object each time."""
        self._make = make
        self._shared = shared
        self._lock = threading.Lock()
        self._seats: dict[asyncio.AbstractEventLoop | None, _Seat] = {}
        self._warned = False

    def current(self) -> BaseChatModel:
        """Return the running loop's model, the same one each time; outside of a loop, one for synchronous use."""
        loop = _running_loop()
        with self._lock:
            seat = self._seats.get(loop)
            if seat is None or seat.ended:
                seat = self._seats[loop] = self._seat(loop)
            return seat.model

    async def aclose(self) -> None:
        """Close the clients of this loop and of others that run (`run_sync`'s never ends); of a loop that ended they are closed."""
        with self._lock:
            seats, self._seats = self._seats, {}
        for loop, seat in seats.items():
            if seat.guard is not None and loop is not None:
                await _close_in(loop, seat.guard)

    def _seat(self, loop: asyncio.AbstractEventLoop | None) -> _Seat:
        self._forget_closed()
        own = detached(self._make())
        if own.foreign and self._shared and any(other not in (None, loop) for other in self._seats):
            self._warn(own.model)
        seat = _Seat(own.model)
        if own.pool is not None and loop is not None:
            seat.watch(own.pool)
        return seat

    def _forget_closed(self) -> None:
        # Not weak keys: a pool refers to its loop, so a weak mapping would never let go of one.
        self._seats = {loop: seat for loop, seat in self._seats.items() if loop is None or not loop.is_closed()}

    def _warn(self, model: BaseChatModel) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s was given its own http_async_client, which belongs to one event loop, and is now used from a "
                "second one. Hand in a function that builds the model instead, and each loop gets its own.",
                type(model).__name__,
            )


async def _close_in(loop: asyncio.AbstractEventLoop, guard: AsyncGenerator[None, None]) -> None:
    """Close `guard` in its own loop; one that stops meanwhile closes it by itself, when it ends."""
    if loop is _running_loop():
        await guard.aclose()
    elif loop.is_running():
        closing = _closed(guard)
        try:
            closed = asyncio.run_coroutine_threadsafe(closing, loop)
        except RuntimeError:  # it is closed by now
            closing.close()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(closed), CLOSE_S)


async def _closed(guard: AsyncGenerator[None, None]) -> None:
    await guard.aclose()


class _Seat:
    """One loop's model, and the generator that the loop finalises when it ends."""

    def __init__(self, model: BaseChatModel) -> None:
        self.model = model
        self.ended = False
        self.guard: AsyncGenerator[None, None] | None = None

    def watch(self, pool: Any) -> None:
        self.guard = self._guard(pool)
        with contextlib.suppress(StopIteration):
            # The first step has no await in it: it only makes the generator known to the running loop.
            self.guard.__anext__().send(None)

    async def _guard(self, pool: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.ended = True
            await pool.aclose()


def _openai_like(model: Any) -> Detached:
    model = telling_usage(model)
    given = model.http_async_client is not None and not model.openai_proxy
    pool = None if given else _fresh_pool(model.root_async_client, model.openai_proxy)
    client = _with_options(model.root_async_client, pool)
    update: dict[str, Any] = {"max_retries": 0, "root_async_client": client, "async_client": client.chat.completions}
    if model.root_client is not None:  # None where the key comes from an async function
        # The synchronous pool may be shared: it is thread-safe and belongs to no loop.
        plain = model.root_client.with_options(max_retries=0)
        update |= {"root_client": plain, "client": plain.chat.completions}
    return Detached(model.model_copy(update=update), pool, foreign=given)


def _anthropic_like(copy: Any) -> Detached:
    client = copy._async_client
    if not hasattr(client, "with_options"):
        return Detached(copy, None)
    pool = _fresh_pool(client, getattr(copy, "anthropic_proxy", None))
    vars(copy)["_async_client"] = _with_options(client, pool)
    return Detached(copy, pool)


def _are_completions(part: Any, *, or_none: bool = False) -> bool:
    """Return whether `part` is the `chat.completions` of an SDK's client, and not another part of it."""
    if part is None:
        return or_none
    client = getattr(part, "_client", None)
    return hasattr(client, "with_options") and type(getattr(getattr(client, "chat", None), "completions", None)) is type(part)


def _groq_like(copy: Any) -> Detached:
    """Its clients were made with the model, and of them it keeps the part that it calls."""
    given = getattr(copy, "http_async_client", None) is not None
    pool = None if given else _fresh_pool(copy.async_client._client, getattr(copy, "groq_proxy", None))
    update = {"async_client": _with_options(copy.async_client._client, pool).chat.completions}
    if copy.client is not None:
        update["client"] = copy.client._client.with_options(max_retries=0).chat.completions
    return Detached(copy.model_copy(update=update), pool, foreign=given)


@functools.cache
def _say_it_retries(name: str) -> None:
    logger.warning(
        "%s retries by itself, in a client that cannot be changed any more: attempts multiply, and the limits know of the first of each "
        "only. Make it with max_retries=0; the agent retries.",
        name,
    )


def _openrouter_like(model: BaseChatModel) -> BaseChatModel:
    """Its SDK has a configuration, and retries for an hour where that says nothing of retries, as with `max_retries=0`."""
    try:
        made: Any = _made_anew(model)
    except Exception:  # noqa: BLE001  a class of the user's may be made of other things than its fields
        _say_it_retries(type(model).__name__)
        return model
    made.client.sdk_configuration.retry_config = None
    return made  # type: ignore[no-any-return]  # as it came in


def _made_anew(model: BaseChatModel) -> BaseChatModel:
    """Return a model that is made of what `model` was made of, so that it makes clients of its own."""
    fields = type(model).model_fields
    own = [name for name in fields if name in model.model_fields_set and not name.endswith("client")]
    return type(model)(**{fields[name].alias or name: getattr(model, name) for name in own})


def _with_options(client: Any, pool: Any | None) -> Any:
    return client.with_options(max_retries=0) if pool is None else client.with_options(max_retries=0, http_client=pool)


def _fresh_pool(client: object, proxy: str | None) -> Any | None:
    """Return a new pool with the defaults of the SDK that `client` comes from; None if the SDK has none to offer."""
    packages = (sys.modules.get(cls.__module__.partition(".")[0]) for cls in type(client).__mro__)
    make = next((found for package in packages if (found := getattr(package, "DefaultAsyncHttpxClient", None))), None)
    if make is None:
        return None
    return make(proxy=proxy) if proxy else make()


def _without_retries(model: BaseChatModel) -> BaseChatModel:
    """Return `model`, or a copy with `max_retries=0` where it has retries."""
    if "max_retries" not in type(model).model_fields or getattr(model, "max_retries", 0) == 0:
        return model
    copy = model.model_copy(update={"max_retries": 0})
    for name in list(vars(copy)):
        if isinstance(getattr(type(copy), name, None), functools.cached_property):
            del vars(copy)[name]  # a client that was built with the old number
    return copy


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
