"""The server: its life, its log, its bill, and what one request comes to. The HTTP is in `connection.py`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from itertools import count, pairwise
from types import TracebackType
from typing import Any, Self

from agent_graph.decisions.prices import read_prices
from agent_graph.testing.openai_server import responses
from agent_graph.testing.openai_server.connection import Listener
from agent_graph.testing.openai_server.reply import Reply
from agent_graph.testing.openai_server.requests import ServedRequest, cap_of, choices_of, conversation, input_tokens, wrong
from agent_graph.testing.openai_server.script import Answer, Entry, Refusal, bill, cut, entries, error_body, plan, refuse

__all__ = ["OpenAIServer", "ServedRequest"]


class OpenAIServer:
    """A server on loopback that speaks OpenAI's chat completions and responses, says what the test wrote down, and keeps its own bill.

    Use it in `with` or `async with`; point a client at `server.base_url`, with any key. One server may be asked from any number
    of threads and event loops at once. A conversation that OpenAI would refuse (a tool call without its result) is refused.

    Args:
        replies: what it says, in order (see `Entry`), or one function of the request's body, asked each time. A request past the
            end is answered with status 400 and the code "script_ended", which no client retries.
        last_forever: the last entry is repeated for ever.
        prices: USD per million tokens, by model: the very mapping that an agent takes as `prices=`. Other models are not
            found (404). None: any model is there, and costs nothing.

    Raises:
        ConfigError: something in `replies` is no entry, or in `prices` no price.

    Example:
        ```python
        from langchain_openai import ChatOpenAI
        from agent_graph.testing import OpenAIServer

        with OpenAIServer(["Hello."], prices={"m": {"input": 1, "output": 2}}) as server:
            reply = ChatOpenAI(model="m", base_url=server.base_url, api_key="none").invoke("Hi")
            assert (reply.content, len(server.requests)) == ("Hello.", 1)
            assert server.bill_usd > 0
        ```
    """

    def __init__(
        self,
        replies: Iterable[Entry] | Callable[[dict[str, Any]], Entry] = (),
        *,
        last_forever: bool = False,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        alone = callable(replies)
        self._replies = entries(replies)
        self._last_forever = last_forever or alone
        read_prices(prices)
        self._prices = None if prices is None else {name: _unit_prices(entry) for name, entry in prices.items()}
        self._lock = threading.Lock()
        self._taken = 0
        self._numbers = count(1)
        self._port = 0
        self._http: Listener | None = None
        self._conversations: dict[str, list[Any]] = {}
        self._thoughts: dict[str, str] = {}
        self.requests: list[ServedRequest] = []
        """Every request for a reply so far whose body is a JSON object."""

    # -- its life --------------------------------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """What a client takes as `base_url`; it ends in /v1. It stays the same when the server is stopped and started again."""
        if not self._port:
            raise RuntimeError("The server has no address before it is started: use it in `with OpenAIServer(...) as server:`.")
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> Self:
        """Listen. A server that was stopped listens at its old address again."""
        if self._http is None:
            self._http = Listener(self, self._port)
            self._port = self._http.server_port
            self._http.start()
        return self

    def stop(self) -> None:
        """Refuse connections, break off what is under way, and return when all of its threads are gone."""
        http, self._http = self._http, None
        if http is not None:
            http.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)

    # -- what it knows ---------------------------------------------------------------------------------------------------------

    @property
    def bill_usd(self) -> Decimal:
        """What all requests so far cost, by the server's own arithmetic. A reply is billed when it is decided, wherever it ends."""
        with self._lock:
            return sum((request.cost_usd for request in self.requests), Decimal(0))

    def script(self, replies: Iterable[Entry] | Callable[[dict[str, Any]], Entry], *, last_forever: bool = False) -> None:
        """Forget the log and the bill, and say this from now on."""
        checked = entries(replies)
        with self._lock:
            self._last_forever = last_forever or callable(replies)
            self._replies = checked
            self._taken = 0
            self.requests.clear()

    def models(self) -> list[str]:
        """Return the models that `GET /v1/models` lists."""
        return sorted(self._prices) if self._prices else ["scripted"]

    # -- one request -----------------------------------------------------------------------------------------------------------

    def decide(self, request: ServedRequest) -> tuple[float, Refusal | Reply]:
        """Enter `request` into the log, take its entry and bill it; return the seconds of silence before it, and what is said."""
        with self._lock:
            self.requests.append(request)
        before = self._before(request)
        if isinstance(before, Refusal):
            return 0.0, before
        asked = _with(before, request)
        if refused := wrong(request.api, asked, self._thoughts) or self._unknown(asked["model"]):
            return 0.0, refused
        try:
            chosen = plan(self._next(), request.body)
        except Exception as error:  # noqa: BLE001  the test's own function may raise anything; the client is told, and does not retry
            return 0.0, refuse(400, f"The script failed: {type(error).__name__}: {error}", code="script_failed")
        if isinstance(chosen.said, Refusal) or math.isinf(chosen.delay_s):
            return chosen.delay_s, chosen.said if isinstance(chosen.said, Refusal) else refuse(500)
        return chosen.delay_s, self._billed(request, asked, chosen.said)

    def _before(self, request: ServedRequest) -> list[Any] | Refusal:
        """Return the conversation that a response goes on with by naming the response before it."""
        named = request.body.get("previous_response_id") if request.api == "responses" else None
        if named is None:
            return []
        with self._lock:
            known = self._conversations.get(str(named))
        message = f"Previous response with id {named!r} not found."
        code = "previous_response_not_found"
        return Refusal(400, error_body(400, message, code=code, param="previous_response_id")) if known is None else known

    def _unknown(self, model: str) -> Refusal | None:
        if self._prices is None or model in self._prices:
            return None
        return refuse(404, f"The model {model!r} does not exist.", code="model_not_found")

    def _next(self) -> Entry:
        with self._lock:
            index, self._taken = self._taken, self._taken + 1
            if self._last_forever:
                index = min(index, len(self._replies) - 1)
            if 0 <= index < len(self._replies):
                entry: Entry = self._replies[index]
                return entry
            asked = f"request {index + 1}, but the script has {len(self._replies)} replies"
        return refuse(400, f"The script ended: {asked}.", code="script_ended")

    def _billed(self, request: ServedRequest, asked: Mapping[str, Any], answer: Answer) -> Reply:
        choices = choices_of(request.api, asked)
        said, tokens = cut(answer, cap_of(asked), input_tokens(request.api, asked), choices)
        price = (self._prices or {}).get(asked["model"], {"input": 0, "output": 0})
        reply = Reply(next(self._numbers), answer.model or asked["model"], said, tokens, request.body)
        with self._lock:
            request.tokens, request.cost_usd = tokens, bill(tokens, price)
            if request.api == "responses" and request.body.get("store") is not False:
                self._keep(asked, responses.whole(reply))
        return reply

    def _keep(self, asked: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        output = body["output"]
        self._conversations[body["id"]] = [*_items(asked), *output]
        self._thoughts |= {item["id"]: thought["id"] for thought, item in pairwise(output) if thought["type"] == "reasoning"}


def _with(before: list[Any], request: ServedRequest) -> dict[str, Any]:
    """Return the body of a request with the conversation before it in it."""
    return {**request.body, "input": [*before, *_items(request.body)]} if before else request.body


def _items(body: Mapping[str, Any]) -> list[Any]:
    """Return the input of a response as a list."""
    given = conversation("responses", body)
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())


def _unit_prices(entry: Any) -> Mapping[str, Any]:
    """Return an entry of `prices`, checked before, as a mapping."""
    return entry if isinstance(entry, Mapping) else {name: value for name, value in asdict(entry).items() if value is not None}
