"""The server over real HTTP: what it answers, bills and logs, and that nothing of it is left when it is stopped."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent_graph.testing import Answer, OpenAIServer, Tokens, after, broken, call, hang, refuse

PRICES = {"m": {"input": 1, "output": 2}}
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Client:
    """One connection, kept alive."""

    def __init__(self, server: OpenAIServer) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def raw(self, path: str, body: bytes | None = None) -> tuple[int, bytes, http.client.HTTPMessage]:
        self.connection.request("GET" if body is None else "POST", path, body)
        response = self.connection.getresponse()
        return response.status, response.read(), response.headers

    def ask(self, **changes: Any) -> tuple[int, Any]:
        status, data, _ = self.raw("/v1/chat/completions", json.dumps(HELLO | changes).encode())
        return status, json.loads(data)

    def stream(self, path: str = "/v1/chat/completions", **changes: Any) -> list[str]:
        status, data, headers = self.raw(path, json.dumps(HELLO | {"stream": True} | changes).encode())
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        return [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]


def threads() -> int:
    return sum(thread.name.startswith("OpenAIServer") for thread in threading.enumerate())


def test_replies_come_in_order_and_are_logged_and_billed() -> None:
    with OpenAIServer(["one two", Answer("three", tokens=Tokens(1_000, 50))], prices=PRICES) as server, Client(server) as client:
        said = [client.ask()[1]["choices"][0]["message"]["content"] for _ in range(2)]
        assert said == ["one two", "three"]
        first, second = server.requests
        assert (first.api, first.body["messages"], first.status) == ("chat", HELLO["messages"], 200)
        assert first.tokens is not None
        assert first.tokens.output == 2
        assert (second.cost_usd, second.headers["host"]) == (Decimal("0.0011"), urlsplit(server.base_url).netloc)
        assert server.bill_usd == first.cost_usd + second.cost_usd


def test_the_end_of_the_script_is_told_and_not_retried() -> None:
    with OpenAIServer(["one"]) as server, Client(server) as client:
        client.ask()
        status, body = client.ask()
    assert (status, body["error"]["code"]) == (400, "script_ended")
    assert "request 2, but the script has 1 replies" in body["error"]["message"]


@pytest.mark.parametrize("replies", [lambda body: body["messages"][-1]["content"], ["Hi"]], ids=["function", "last_forever"])
def test_replies_without_end(replies: Any) -> None:
    with OpenAIServer(replies, last_forever=True) as server, Client(server) as client:
        assert {client.ask()[1]["choices"][0]["message"]["content"] for _ in range(3)} == {"Hi"}


def test_a_script_that_fails_is_told_to_the_client() -> None:
    def fails(body: dict[str, Any]) -> str:
        raise KeyError("oops")

    with OpenAIServer([fails, lambda body: 5]) as server, Client(server) as client:
        assert client.ask() == (400, refuse(400, "The script failed: KeyError: 'oops'", code="script_failed").body)
        assert "5 is no entry" in client.ask()[1]["error"]["message"]
        assert server.bill_usd == 0


def test_a_refusal_has_its_status_and_headers_and_costs_nothing() -> None:
    with OpenAIServer([refuse(429, "slow", headers={"Retry-After": "7"})], prices=PRICES) as server, Client(server) as client:
        status, _, headers = client.raw("/v1/chat/completions", json.dumps(HELLO).encode())
        assert (status, headers["Retry-After"]) == (429, "7")
        assert (server.requests[0].status, server.bill_usd) == (429, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/chat/completions", b"{", 400, "no JSON"),
        ("/v1/chat/completions", b"[1]", 400, "an object is due"),
        ("/v1/chat/completions", b'{"model": "m", "messages": ' + b"[" * 100_000, 400, "no JSON"),
        ("/v1/chat/completions", b'{"model": "m"}', 400, "Missing required parameter: 'messages'"),
        ("/v1/chat/completions", json.dumps(HELLO | {"model": "other"}).encode(), 404, "'other' does not exist"),
        ("/v1/elsewhere", b"{}", 404, "Unknown path"),
        ("/elsewhere", None, 404, "Unknown path"),
        ("/v1/chat/completions", None, 405, "Not allowed to GET on /v1/chat/completions; POST is."),
        ("/v1/models", b"{}", 405, "Not allowed to POST on /v1/models; GET is."),
        ("/v1/models", None, 200, '"id": "m"'),
        ("/v1/models/m", None, 200, '"id": "m"'),
        ("/v1/models/other", None, 404, "'other' does not exist"),
    ],
)
def test_what_is_asked_wrongly(path: str, body: bytes | None, status: int, text: str) -> None:
    with OpenAIServer(["one"], prices=PRICES) as server, Client(server) as client:
        told, data, _ = client.raw(path, body)
        assert (told, text in data.decode()) == (status, True)
        assert server.bill_usd == 0


class Wire:
    """A connection without a client library: the very bytes."""

    def __init__(self, server: OpenAIServer) -> None:
        place = urlsplit(server.base_url)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=30)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, *requests: bytes) -> None:
        self.socket.sendall(b"".join(requests))

    def read(self) -> bytes:
        """Return everything up to the end of the connection."""
        self.socket.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: self.socket.recv(65_536), b""))


def post(body: bytes = json.dumps(HELLO).encode(), *headers: str, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(headers or [f"content-length: {len(body)}"])]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (post(b"", "content-length: many"), 400, "The length of the body cannot be read"),
        (post(b"", "content-length: -5"), 400, "The length of the body cannot be read"),
        (post(b"5\r\nabc\r\n0\r\n\r\n", "transfer-encoding: chunked"), 400, "The length of the body cannot be read"),
        (post(b"zz\r\n", "transfer-encoding: chunked"), 400, "The length of the body cannot be read"),
        (b"no request at all\r\n\r\n", 0, "Bad request"),
        (b"GET /v1/models HTTP/9.9\r\n\r\n", 0, "Invalid HTTP version"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414, "This is no HTTP request"),
        (post(method="PUT"), 405, "Not allowed to PUT"),
        (post(method="DELETE"), 405, "Not allowed to DELETE"),
        (post(method="BREW"), 501, "Unsupported method ('BREW')"),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
def test_what_is_no_proper_http_is_said_in_openais_form(sent: bytes, status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Some ended as a traceback of the server's thread and a closed connection, others as a page of HTML."""
    with OpenAIServer(["one"]) as server:
        with Wire(server) as wire:
            wire.send(sent)
            answer = wire.read()
        with Client(server) as client:
            assert client.ask()[0] == 200, "it serves the next one"
        assert len(server.requests) == 1
    body = json.loads(answer.rpartition(b"\r\n")[2])
    assert says in body["error"]["message"]
    assert not status or answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "sent",
    [
        post(),
        post(path="/v1/chat/completions?api-version=1"),
        post(path="http://x/v1/chat/completions"),
        post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(json.dumps(HELLO)), json.dumps(HELLO).encode()), "transfer-encoding: chunked"),
        post(json.dumps(HELLO).encode(), f"content-length: {len(json.dumps(HELLO))}", "expect: 100-continue"),
    ],
    ids=["plain", "query", "proxy", "chunked", "expect"],
)
def test_requests_in_all_their_forms_and_several_sent_at_once(sent: bytes) -> None:
    with OpenAIServer(["one", "two", "three"]) as server:
        with Wire(server) as wire:
            wire.send(sent, post(b"{"), sent, post(method="HEAD"), sent)
            answer = wire.read()
        assert [request.status for request in server.requests] == [200] * 3
    positions = [answer.index(word) for word in (b'"one"', b"no JSON", b'"two"', b" 405 ", b'"three"')]
    assert positions == sorted(positions)


def test_a_client_of_http_1_0_gets_its_stream_until_the_connection_ends() -> None:
    body = json.dumps(HELLO | {"stream": True}).encode()
    with OpenAIServer(["one"]) as server, Wire(server) as wire:
        wire.send(post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.read().endswith(b"\n\ndata: [DONE]\n\n")


def test_a_request_that_ends_in_the_middle_is_none() -> None:
    with OpenAIServer(["one"]) as server:
        with Wire(server) as wire:
            wire.send(post()[:-5])
            assert wire.read() == b""
        assert server.requests == []


@pytest.mark.parametrize("entry", [hang, after(3_600, "one"), broken("stall"), Answer("one two", chunk_delay_s=3_600)], ids=repr)
def test_a_client_that_leaves_is_waited_for_no_longer(entry: Any) -> None:
    """Its thread stayed for as long as the server."""
    serving: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    with OpenAIServer(lambda body: (serving.put(threading.current_thread()), entry)[1]) as server:
        with Wire(server) as wire:
            wire.send(post(json.dumps(HELLO | {"stream": True}).encode()))
            thread = serving.get(timeout=30)
        thread.join(30)
        assert not thread.is_alive()


def test_several_choices_are_sent_and_billed() -> None:
    with OpenAIServer(["one two"] * 2, prices={"m": {"input": 0, "output": 1}}) as server, Client(server) as client:
        assert [choice["message"]["content"] for choice in client.ask(n=3)[1]["choices"]] == ["one two"] * 3
        assert server.bill_usd == Decimal("0.000006")


def test_a_response_goes_on_with_the_one_that_it_names() -> None:
    """The conversation is the server's to keep then: a tool's result is the answer to a call of the response before."""

    def ask(input_: Any, **fields: Any) -> tuple[int, Any]:
        status, data, _ = client.raw("/v1/responses", json.dumps({"model": "m", "input": input_, **fields}).encode())
        return status, json.loads(data)

    result = [{"type": "function_call_output", "call_id": "c", "output": "sunny"}]
    script = [call("weather", call_id="c", city="Paris"), "Sunny.", "Yes."]
    with OpenAIServer(script, prices=PRICES) as server, Client(server) as client:
        _, first = ask("Is it sunny in Paris?")
        assert ask("Is it?", previous_response_id=first["id"])[0] == 400, "the call has no result"
        assert ask(result)[0] == 400, "the result has no call"
        status, second = ask(result, previous_response_id=first["id"])
        assert (status, second["previous_response_id"]) == (200, first["id"])
        assert ask("Really?", previous_response_id=second["id"], store=False)[0] == 200
        asked = [request.tokens.input for request in server.requests if request.tokens is not None]
        assert asked == sorted(asked), "what went before is paid for again"
        assert ask("And?", previous_response_id="resp_3")[1]["error"]["code"] == "previous_response_not_found"
        assert len(server.requests[2].body["input"]) == 1, "the log has what was sent"


@pytest.mark.parametrize(("taken_out", "status"), [(None, 200), (0, 400), (slice(1, 3), 400)], ids=["whole", "the thought", "its call"])
def test_what_a_model_has_thought_stays_with_its_call(taken_out: Any, status: int) -> None:
    """OpenAI refuses a history out of which one was taken and not the other; an agent that compresses meets it first there."""
    with (
        OpenAIServer([Answer(tool_calls=[{"name": "weather", "args": {}}], tokens=Tokens(9, 9, reasoning=5)), "Fine."]) as server,
        Client(server) as client,
    ):
        _, data, _ = client.raw("/v1/responses", json.dumps({"model": "m", "input": "Hi"}).encode())
        output = json.loads(data)["output"]
        items = [*output, {"type": "function_call_output", "call_id": output[1]["call_id"], "output": "sunny"}]
        if taken_out is not None:
            del items[taken_out]
        assert client.raw("/v1/responses", json.dumps({"model": "m", "input": [*items, HELLO["messages"][0]]}).encode())[0] == status


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_output_cap_is_honoured_under_each_of_its_names(key: str) -> None:
    with OpenAIServer(["one two three"], prices={"m": {"input": 0, "output": 1}}) as server, Client(server) as client:
        choice = client.ask(**{key: 2})[1]["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("one two ", "length")
        assert server.bill_usd == Decimal("0.000002")


def test_streams() -> None:
    with OpenAIServer(["one two"], last_forever=True) as server, Client(server) as client:
        assert client.stream()[-1] == "[DONE]"
        assert json.loads(client.stream("/v1/responses", input="Hi")[-1])["type"] == "response.completed"
        assert [request.api for request in server.requests] == ["chat", "responses"]


@pytest.mark.parametrize(
    ("entry", "ends"),
    [
        (broken("truncate", "one two three four", after=2), "one"),
        (broken("garbage", after=2), '{"id": "chatcmpl-1", "choices": [{"ind'),
        (broken("error", after=2), "the model failed"),
        (broken("failed", after=2, code="rate_limit_exceeded"), '"code": "rate_limit_exceeded"'),
    ],
    ids=["truncate", "garbage", "error", "failed"],
)
def test_a_stream_that_breaks_off_inside_http(entry: Any, ends: str) -> None:
    with OpenAIServer([entry]) as server, Client(server) as client:
        events = client.stream()
        assert ends in events[-1]
        assert not any('finish_reason": "stop' in event for event in events)


def test_a_connection_that_goes() -> None:
    with OpenAIServer([broken("disconnect")] * 2, prices=PRICES) as server:
        for ask in (Client.stream, Client.ask):
            with Client(server) as client, pytest.raises((http.client.IncompleteRead, ConnectionError)):
                ask(client)
        assert server.bill_usd > 0


@pytest.mark.parametrize("entry", [hang, after(3_600, "one"), broken("stall")], ids=["hang", "after", "stall"])
def test_stopping_it_ends_what_is_under_way(entry: Any) -> None:
    before = threads()
    server = OpenAIServer([entry]).start()
    asked = threading.Event()
    server.script(lambda body: (asked.set(), entry)[1])

    def ask() -> None:
        with Client(server) as client, pytest.raises((http.client.HTTPException, OSError)):
            client.stream()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(ask)
        assert asked.wait(30)
        server.stop()
        done.result(30)
    assert threads() == before


def test_it_is_refused_while_it_is_stopped_and_comes_back_at_its_address() -> None:
    server = OpenAIServer(["one"], last_forever=True)
    with pytest.raises(RuntimeError, match="no address before it is started"):
        _ = server.base_url
    with server:
        url = server.base_url
        with Client(server) as client:
            client.ask()
        server.stop()
        with Client(server) as client, pytest.raises(ConnectionRefusedError):
            client.ask()
        server.start()
        with Client(server) as client:
            client.ask()
        assert server.base_url == url
    server.stop()  # twice does no harm
    assert len(server.requests) == 2


def test_two_hundred_at_once() -> None:
    gate = threading.Barrier(201)

    def together(body: dict[str, Any]) -> str:
        gate.wait(60)
        return "one"

    def ask(_: int) -> int:
        with Client(server) as client:
            return client.ask()[0]

    with OpenAIServer(together, prices=PRICES) as server, ThreadPoolExecutor(200) as pool:
        statuses = pool.map(ask, range(200))
        gate.wait(60)
        assert list(statuses) == [200] * 200
        assert len(server.requests) == 200
        assert server.bill_usd == 200 * server.requests[0].cost_usd


async def test_it_is_an_async_context_manager_too() -> None:
    async with OpenAIServer(["one"]) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
