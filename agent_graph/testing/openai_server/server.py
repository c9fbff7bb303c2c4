"""The HTTP side: one thread accepts, one thread a connection, all of them gone when the server is stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from agent_graph.decisions.prices import read_prices
from agent_graph.testing.openai_server import wire
from agent_graph.testing.openai_server.script import Answer, Entry, Refusal, Tokens, bill, count, cut, entries, plan, refuse

__all__ = ["OpenAIServer", "ServedRequest"]

STOP_S = 10.0
"""Seconds within which the threads of a stopped server must be gone; they are woken, so it takes milliseconds."""
_PATHS: Mapping[str, Literal["chat", "responses"]] = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}


@dataclass(slots=True, kw_only=True)
class ServedRequest:
    """One request of the log, in the order of arrival."""

    api: Literal["chat", "responses"]
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in small letters."""
    status: int | None = None
    """As it was answered; None while it is not."""
    tokens: Tokens | None = None
    """What was billed; None: nothing."""
    cost_usd: Decimal = Decimal(0)
    """By the server's own prices; 0 without."""


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
        self._numbers = itertools.count(1)
        self._port = 0
        self._http: _Http | None = None
        self.requests: list[ServedRequest] = []
        """Every request for a reply so far."""

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
            self._http = _Http(self, self._port)
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

    def decide(self, request: ServedRequest) -> tuple[float, Refusal | wire.Reply]:
        """Enter `request` into the log, take its entry and bill it; return the seconds of silence before it, and what is said."""
        with self._lock:
            self.requests.append(request)
        model = str(request.body.get("model"))
        if self._prices is not None and model not in self._prices:
            return 0.0, refuse(404, f"The model {model!r} does not exist.", code="model_not_found")
        if wrong := wire.problem(request.body):
            return 0.0, refuse(400, f"Invalid request: {wrong}", code="invalid_request")
        try:
            chosen = plan(self._next(), request.body)
        except Exception as error:  # noqa: BLE001  the test's own function may raise anything; the client is told, and does not retry
            return 0.0, refuse(400, f"The script failed: {type(error).__name__}: {error}", code="script_failed")
        if isinstance(chosen.said, Refusal) or math.isinf(chosen.delay_s):
            return chosen.delay_s, chosen.said if isinstance(chosen.said, Refusal) else refuse(500)
        return chosen.delay_s, self._billed(request, model, chosen.said)

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

    def _billed(self, request: ServedRequest, model: str, answer: Answer) -> wire.Reply:
        said, tokens = cut(answer, _cap(request.body), _input_tokens(request.body))
        price = (self._prices or {}).get(model, {"input": 0, "output": 0})
        with self._lock:
            request.tokens, request.cost_usd = tokens, bill(tokens, price)
        return wire.Reply(next(self._numbers), answer.model or model, said, tokens)


def _unit_prices(entry: Any) -> Mapping[str, Any]:
    """Return an entry of `prices`, checked before, as a mapping."""
    return entry if isinstance(entry, Mapping) else {name: value for name, value in asdict(entry).items() if value is not None}


def _cap(body: Mapping[str, Any]) -> int | None:
    return next((body[key] for key in ("max_completion_tokens", "max_tokens", "max_output_tokens") if body.get(key)), None)


def _input_tokens(body: Mapping[str, Any]) -> int:
    """The words of what is sent, tool definitions included, and one for each message."""
    said = body.get("messages") or body.get("input") or []
    return count(json.dumps([said, body.get("instructions"), body.get("tools")], ensure_ascii=False)) + len(said)


# -- HTTP ----------------------------------------------------------------------------------------------------------------------


class _Http(ThreadingHTTPServer):
    """The listening socket and its connections."""

    request_queue_size = 512  # many agents may call at the same moment

    def __init__(self, server: OpenAIServer, port: int) -> None:
        self.scripted = server
        self.ending = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        super().__init__(("127.0.0.1", port), _Connection)

    def start(self) -> None:
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.02,), name="OpenAIServer", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()
        self._acceptor.join()
        with self._lock:
            left = dict(self._open)
        for connection in left.values():
            with contextlib.suppress(OSError):  # the client was first
                connection.shutdown(socket.SHUT_RDWR)
        for thread in left:
            thread.join(STOP_S)
        if working := [thread for thread in left if thread.is_alive()]:
            raise RuntimeError(f"OpenAIServer: {len(working)} connections still work {STOP_S:g} s after the server was stopped.")

    def process_request(self, request: Any, client_address: Any) -> None:
        # Daemons: a server that nobody stopped does not keep the interpreter alive.
        arguments = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=arguments, name="OpenAIServer-connection", daemon=True)
        with self._lock:
            self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._open[threading.current_thread()]

    def server_bind(self) -> None:
        # Without HTTPServer's own look-up of the host's name, which may ask the network.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Gone(Exception):
    """The connection ends here, as the script says or because the client left."""


class _Connection(BaseHTTPRequestHandler):
    """The requests of one client's connection, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def http(self) -> _Http:
        """The server whose connection this is."""
        assert isinstance(self.server, _Http)
        return self.server

    def handle(self) -> None:
        with contextlib.suppress(_Gone, ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Say nothing: the log is `OpenAIServer.requests`."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._send_json(404, refuse(404, f"Unknown path {self.path}.").body)
        names = self.http.scripted.models()
        data = [{"id": name, "object": "model", "created": wire.CREATED, "owned_by": "agent_graph"} for name in names]
        return self._send_json(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        api = _PATHS.get(self.path)
        if api is None:
            return self._send_json(404, refuse(404, f"Unknown path {self.path}.").body)
        try:
            body = json.loads(raw)
        except ValueError:
            return self._send_json(400, refuse(400, "The body is no JSON.").body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self._answer(ServedRequest(api=api, body=body, headers=headers))

    def _answer(self, request: ServedRequest) -> None:
        delay_s, said = self.http.scripted.decide(request)
        self._wait(delay_s)
        if isinstance(said, Refusal):
            request.status = said.status
            return self._send_json(said.status, said.body, said.headers)
        request.status = 200
        if request.body.get("stream"):
            events = wire.chat_stream(said, request.body) if request.api == "chat" else wire.responses_stream(said)
            return self._send_stream(said.answer, events, done=request.api == "chat")
        return self._send_whole(said.answer, wire.chat(said) if request.api == "chat" else wire.responses(said))

    def _wait(self, seconds: float) -> None:
        if seconds > 0 and self.http.ending.wait(None if math.isinf(seconds) else seconds):
            raise _Gone

    def _send_json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), headers or {})

    def _send_bytes(self, status: int, data: bytes, headers: Mapping[str, str], length: int | None = None) -> None:
        self._head(status, {"content-type": "application/json", "content-length": str(length or len(data)), **headers})
        self.wfile.write(data)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_whole(self, answer: Answer, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        match answer.breaks:
            case None:
                self._send_bytes(200, data, {})
            case "truncate" | "garbage":
                self._send_bytes(200, data[: len(data) // 2], {})
            case _:
                self._send_bytes(200, data[: len(data) // 2], {}, length=len(data))
                self._break(answer)

    def _send_stream(self, answer: Answer, events: Iterator[Mapping[str, Any]], *, done: bool) -> None:
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for index, event in enumerate(events):
            if answer.breaks is not None and index == answer.breaks_after:
                self._break(answer)
                break
            self._wait(answer.chunk_delay_s)
            self._send_piece(wire.sse(event))
        else:
            self._send_piece(b"data: [DONE]\n\n" if done else b"")
        self._send_piece(b"", last=True)

    def _send_piece(self, data: bytes, *, last: bool = False) -> None:
        if data or last:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _break(self, answer: Answer) -> None:
        match answer.breaks:
            case "stall":
                self._wait(math.inf)
            case "garbage":
                self._send_piece(b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n')
            case "error":
                self._send_piece(b'data: {"error": {"message": "the model failed", "type": "server_error", "code": "server_error"}}\n\n')
            case "disconnect":
                raise _Gone
            case _:
                pass
