"""The server over real HTTP: what it answers, bills and logs, and that nothing of it is left when it is stopped."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent_graph.testing import Answer, OpenAIServer, Tokens, after, broken, hang, refuse

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
        ("/v1/chat/completions", b'{"model": "m"}', 400, "a conversation"),
        ("/v1/chat/completions", json.dumps(HELLO | {"model": "other"}).encode(), 404, "'other' does not exist"),
        ("/v1/elsewhere", b"{}", 404, "Unknown path"),
        ("/elsewhere", None, 404, "Unknown path"),
        ("/v1/models", None, 200, '"id": "m"'),
    ],
)
def test_what_is_asked_wrongly(path: str, body: bytes | None, status: int, text: str) -> None:
    with OpenAIServer(["one"], prices=PRICES) as server, Client(server) as client:
        told, data, _ = client.raw(path, body)
        assert (told, text in data.decode()) == (status, True)
        assert server.bill_usd == 0


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_output_cap_is_honoured_under_each_of_its_names(key: str) -> None:
    with OpenAIServer(["one two three"], prices={"m": {"input": 0, "output": 1}}) as server, Client(server) as client:
        choice = client.ask(**{key: 2})[1]["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("one two ", "length")
        assert server.bill_usd == Decimal("0.000002")


def test_streams() -> None:
    with OpenAIServer(["one two"], last_forever=True) as server, Client(server) as client:
        assert client.stream()[-1] == "[DONE]"
        assert json.loads(client.stream("/v1/responses")[-1])["type"] == "response.completed"
        assert [request.api for request in server.requests] == ["chat", "responses"]


@pytest.mark.parametrize(
    ("entry", "ends"),
    [
        (broken("truncate", "one two three four", after=2), "one"),
        (broken("garbage", after=2), '{"id": "chatcmpl-1", "choices": [{"ind'),
        (broken("error", after=2), "the model failed"),
    ],
    ids=["truncate", "garbage", "error"],
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
