"""The HTTP side: one thread accepts, one thread a connection, all of them gone when the server is stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import select
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent_graph.testing.openai_server import chat, responses
from agent_graph.testing.openai_server.reply import CREATED, Reply, sse
from agent_graph.testing.openai_server.requests import ServedRequest
from agent_graph.testing.openai_server.script import Answer, Refusal, error_body

if TYPE_CHECKING:
    from agent_graph.testing.openai_server.requests import Api
    from agent_graph.testing.openai_server.server import OpenAIServer

__all__ = ["Listener"]

STOP_S = 10.0
"""Seconds within which the threads of a stopped server must be gone; they are woken, so it takes milliseconds."""
LOOK_S = 0.2
"""How often a silent connection looks whether its client is still there, seconds."""
_PATHS: Mapping[str, Api] = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
_MODELS = "/v1/models"


class Listener(ThreadingHTTPServer):
    """The listening socket and its connections."""

    request_queue_size = 512  # many agents may call at the same moment

    def __init__(self, server: OpenAIServer, port: int) -> None:
        self.scripted = server
        self._numbers = itertools.count(1)
        self.ending = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        super().__init__(("127.0.0.1", port), _Connection)

    def start(self) -> None:
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.02,), name="OpenAIServer", daemon=True)
        self._acceptor.start()

    def request_id(self) -> str:
        """Return what OpenAI calls a request by in its logs."""
        return f"req_{next(self._numbers)}"

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
    def http(self) -> Listener:
        """The server whose connection this is."""
        assert isinstance(self.server, Listener)
        return self.server

    def handle(self) -> None:
        with contextlib.suppress(_Gone, ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Say nothing: the log is `OpenAIServer.requests`."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say in OpenAI's form what is no HTTP: the base class calls this, and would send a page of HTML."""
        self.close_connection = True
        self._send_json(code, error_body(code, message or "This is no HTTP request."))

    # -- what is asked ---------------------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        path, models = self._path, self.http.scripted.models()
        found = [{"id": name, "object": "model", "created": CREATED, "owned_by": "agent_graph"} for name in models]
        if path == _MODELS:
            return self._send_json(200, {"object": "list", "data": found})
        name = path.removeprefix(f"{_MODELS}/")
        if name != path and name in models:
            return self._send_json(200, found[models.index(name)])
        if name != path:
            return self._refuse(404, f"The model {name!r} does not exist.", "model_not_found")
        return self._refuse_path()

    def do_POST(self) -> None:
        raw = self._body()
        if raw is None:
            return None
        api = _PATHS.get(self._path)
        if api is None:
            return self._refuse_path()
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return self._refuse(400, "We could not parse the JSON body of your request: it is no JSON.")
        if not isinstance(body, dict):
            return self._refuse(400, f"The body of your request is a JSON {type(body).__name__}; an object is due.")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self._answer(ServedRequest(api=api, body=body, headers=headers))

    def _elsewhere(self) -> None:
        if self._body() is not None:
            self._refuse_path()

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _elsewhere  # noqa: N815  http.server looks them up by these names

    @property
    def _path(self) -> str:
        """The path alone: a client may add a query, and a proxy the host."""
        return urlsplit(self.path).path

    def _body(self) -> bytes | None:
        """Return the request's body; None where its length cannot be, which is said to the client."""
        try:
            if "chunked" in self.headers.get("transfer-encoding", "").lower():
                return b"".join(iter(self._chunk, b""))
            return self._read(_length(self.headers.get("content-length") or "0"))
        except ValueError as error:
            self.send_error(400, f"The length of the body cannot be read: {error}")
            return None

    def _chunk(self) -> bytes:
        data = self._read(_length(self.rfile.readline().partition(b";")[0].strip().decode("latin-1"), 16))
        if self.rfile.readline() not in (b"\r\n", b"\n"):
            raise ValueError("a chunk has another length than it says.")
        return data

    def _read(self, length: int) -> bytes:
        data = self.rfile.read(length)
        if len(data) < length:
            raise _Gone
        return data

    def _refuse_path(self) -> None:
        if self._path in _PATHS or self._path == _MODELS:
            allowed = "POST" if self._path in _PATHS else "GET"
            message = f"Not allowed to {self.command} on {self._path}; {allowed} is."
            return self._send_json(405, error_body(405, message, code="method_not_supported"), {"allow": allowed})
        there = ", ".join([*_PATHS, _MODELS])
        return self._refuse(404, f"Unknown path {self._path} ({self.command}). There are: {there}.", "unknown_url")

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        self._send_json(status, error_body(status, message, code=code))

    # -- what is said ----------------------------------------------------------------------------------------------------------

    def _answer(self, request: ServedRequest) -> None:
        delay_s, said = self.http.scripted.decide(request)
        self._wait(delay_s)
        if isinstance(said, Refusal):
            request.status = said.status
            return self._send_json(said.status, said.body, said.headers)
        request.status = 200
        if request.body.get("stream"):
            return self._send_stream(said, request.api)
        dialect = chat if request.api == "chat" else responses
        return self._send_whole(said.answer, dialect.failed(said) if said.answer.breaks == "failed" else dialect.whole(said))

    def _wait(self, seconds: float) -> None:
        """Say nothing for so long; the connection is over where the server is stopped meanwhile, or the client leaves."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.http.ending.wait(min(left, LOOK_S)) or self._is_left():
                raise _Gone

    def _is_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), headers or {})

    def _send_bytes(self, status: int, data: bytes, headers: Mapping[str, str], length: int | None = None) -> None:
        self._head(status, {"content-type": "application/json", "content-length": str(length or len(data)), **headers})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"x-request-id": self.http.request_id(), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_whole(self, answer: Answer, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        match answer.breaks:
            case None | "failed":
                self._send_bytes(200, data, {})
            case "truncate" | "garbage":
                self._send_bytes(200, data[: len(data) // 2], {})
            case _:
                self._send_bytes(200, data[: len(data) // 2], {}, length=len(data))
                self._break(answer)

    def _send_stream(self, reply: Reply, api: Api) -> None:
        """Send the events of a stream, in chunks; to a client of HTTP/1.0, which knows none, until the connection ends."""
        self._chunked = self.request_version != "HTTP/1.0"
        self.close_connection |= not self._chunked
        self._head(200, {"content-type": "text/event-stream"} | ({"transfer-encoding": "chunked"} if self._chunked else {}))
        answer = reply.answer
        for index, event in enumerate(chat.stream(reply) if api == "chat" else responses.stream(reply)):
            if answer.breaks is not None and index == answer.breaks_after:
                self._break_stream(reply, api, index)
                break
            self._wait(answer.chunk_delay_s)
            self._send_piece(sse(event))
        else:
            self._send_piece(b"data: [DONE]\n\n" if api == "chat" else b"")
        self._send_piece(b"", last=True)

    def _send_piece(self, data: bytes, *, last: bool = False) -> None:
        if not self._chunked:
            self.wfile.write(data)
        elif data or last:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _break_stream(self, reply: Reply, api: Api, number: int) -> None:
        match reply.answer.breaks:
            case "garbage":
                self._send_piece(b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n')
            case "error" | "failed" if api == "chat":
                self._send_piece(sse(chat.stream_error(reply)))
            case "error":
                self._send_piece(sse(responses.stream_error(reply, number)))
            case "failed":
                self._send_piece(sse(responses.stream_failed(reply, number)))
            case _:
                self._break(reply.answer)

    def _break(self, answer: Answer) -> None:
        if answer.breaks == "stall":
            self._wait(math.inf)
        if answer.breaks == "disconnect":
            raise _Gone


def _length(text: str, base: int = 10) -> int:
    """Return a length that was sent. Raises ValueError for what is none."""
    length = int(text, base)
    if length < 0 or not text.isalnum():
        raise ValueError(f"{text!r} is no length.")
    return length
