"""One client per event loop: against a real HTTP server, and by looking at whose pool is whose."""

import asyncio
import contextlib
import gc
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agent_graph_adapters.clients import detached, telling_usage
from agent_graph_adapters.models import choose, per_loop

KEY: Any = "k"


def pool_of(model: Any) -> Any:
    return model.root_async_client._client


# -- usage in a stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        pytest.param({"base_url": "http://localhost:1/v1"}, True, id="left open"),
        pytest.param({"base_url": "http://localhost:1/v1", "stream_usage": False}, False, id="refused"),
        pytest.param({"base_url": "http://localhost:1/v1", "stream_usage": True}, True, id="asked"),
        pytest.param({}, True, id="at OpenAI's own address"),
        pytest.param(
            {"base_url": "http://localhost:1/v1", "model_kwargs": {"stream_options": {"include_usage": False}}}, None, id="in words"
        ),
    ],
)
def test_a_stream_is_asked_for_its_usage_unless_somebody_said_otherwise(options: dict[str, Any], asks: bool | None) -> None:
    """Behind an address of one's own a ChatOpenAI leaves usage out of streams, and every bill was a guess."""
    given = ChatOpenAI(model="m", api_key=KEY, **options)
    before = given.stream_usage
    model: Any = detached(given).model
    told: Any = telling_usage(given)
    assert (model.stream_usage, told.stream_usage, given.stream_usage) == (asks, asks, before)


def test_a_model_that_knows_no_such_switch_stays_as_it_is() -> None:
    model = FakeListChatModel(responses=["Hello."])
    assert telling_usage(model) is model


# -- whose pool is whose -----------------------------------------------------------------------------------------------


def test_one_model_per_loop_and_the_same_one_each_time() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def twice() -> tuple[Any, Any]:
        return owner.current(), owner.current()

    first, again = asyncio.run(twice())
    other, _ = asyncio.run(twice())
    assert first is again
    assert other is not first
    assert pool_of(other) is not pool_of(first)


def test_a_pool_is_closed_when_its_loop_ends_and_open_until_then() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def use() -> Any:
        pool = pool_of(owner.current())
        assert not pool.is_closed
        return pool

    assert asyncio.run(use()).is_closed


async def test_aclose_closes_this_loop_and_the_next_use_opens_another() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))
    pool = pool_of(owner.current())
    await owner.aclose()
    await owner.aclose()
    assert pool.is_closed
    assert not pool_of(owner.current()).is_closed


def test_aclose_closes_the_clients_of_other_loops_that_run() -> None:
    """The loop of `run_sync` never ends; its connections were left to the garbage collector, which warned of them."""
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def use() -> Any:
        return pool_of(owner.current())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        pool = asyncio.run_coroutine_threadsafe(use(), loop).result(30)
        assert not pool.is_closed
        asyncio.run(owner.aclose())
        assert pool.is_closed
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_aclose_leaves_a_loop_that_stands_still_to_its_end() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def use() -> Any:
        return pool_of(owner.current())

    with asyncio.Runner() as runner:
        pool = runner.run(use())
        asyncio.run(owner.aclose())
        assert not pool.is_closed
    assert pool.is_closed


def test_a_loop_that_goes_on_after_its_generators_were_closed_gets_another_pool() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def use() -> Any:
        return pool_of(owner.current())

    with asyncio.Runner() as runner:
        first = runner.run(use())
        loop = runner.get_loop()
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert first.is_closed
        with pytest.warns(ResourceWarning, match="after loop.shutdown_asyncgens"):
            second = loop.run_until_complete(use())
        assert not second.is_closed
        loop.run_until_complete(owner.aclose())


def test_ended_loops_are_forgotten() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))

    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        owner.current()
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(use()) for _ in range(5)]
    owner.current()
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


def test_the_object_handed_in_is_not_changed() -> None:
    model = ChatOpenAI(model="m", api_key=KEY, max_retries=4, temperature=0.3)
    before = dict(vars(model))

    async def use() -> Any:
        return per_loop(model).current()

    copy = asyncio.run(use())
    assert vars(model) == before
    assert model.root_async_client.max_retries == 4
    assert (copy.max_retries, copy.root_async_client.max_retries, copy.root_client.max_retries) == (0, 0, 0)
    assert copy.temperature == 0.3


def test_keys_headers_and_proxy_go_along() -> None:
    model = ChatOpenAI(
        model="m", api_key=KEY, base_url="http://127.0.0.1:9/v1", timeout=7, default_headers={"x-team": "a"},
        openai_proxy="http://127.0.0.1:10",
    )  # fmt: skip
    own = detached(model)
    client = own.model.root_async_client  # type: ignore[attr-defined]  # the real client's own parts
    assert (client.api_key, client.timeout, client.default_headers["x-team"]) == ("k", 7, "a")
    assert str(client.base_url) == "http://127.0.0.1:9/v1/"
    assert [pattern.pattern for pattern in own.pool._mounts] == ["all://"]  # type: ignore[union-attr]  # the real client's own parts


def test_a_pool_of_the_users_own_is_kept_and_its_second_loop_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    mine = openai.DefaultAsyncHttpxClient()
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY, http_async_client=mine))

    async def use() -> Any:
        return pool_of(owner.current())

    async def in_two_loops() -> None:
        assert await use() is mine
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(asyncio.run, use()).result() is mine
            threads.submit(asyncio.run, use()).result()

    with caplog.at_level(logging.WARNING, logger="agent_graph"):
        asyncio.run(in_two_loops())
    assert [record.getMessage() for record in caplog.records if "http_async_client" in record.getMessage()] != []
    assert len(caplog.records) == 1
    assert not mine.is_closed


def test_other_models_serve_every_loop_themselves() -> None:
    model = FakeListChatModel(responses=["a"])
    owner = per_loop(model)

    async def use() -> Any:
        return owner.current()

    assert asyncio.run(use()) is model
    assert asyncio.run(use()) is model


def test_a_factory_is_asked_once_per_loop() -> None:
    made: list[FakeListChatModel] = []

    def make() -> FakeListChatModel:
        made.append(FakeListChatModel(responses=["a"]))
        return made[-1]

    owner = per_loop(make)

    async def use() -> bool:
        return owner.current() is owner.current()

    assert asyncio.run(use())
    assert asyncio.run(use())
    assert len(made) == 2


def test_threads_without_a_loop_share_one_model() -> None:
    barrier = threading.Barrier(4)

    def make() -> FakeListChatModel:
        time.sleep(0.05)
        return FakeListChatModel(responses=["a"])

    owner = per_loop(make)

    def use(_: int) -> int:
        barrier.wait()
        return id(owner.current())

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(use, range(4)))) == 1


def test_threads_that_ask_at_once_get_one_model_each() -> None:
    owner = per_loop(ChatOpenAI(model="m", api_key=KEY))
    barrier = threading.Barrier(4)

    async def use() -> set[int]:
        barrier.wait()
        return {id(pool_of(owner.current())) for _ in range(100)}

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(lambda _: asyncio.run(use()), range(4)))
    assert [len(ids) for ids in seen] == [1, 1, 1, 1]


# -- against a server --------------------------------------------------------------------------------------------------


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that speaks OpenAI's protocol, written by others: llmock."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from llmock.cli import app; app()", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/_llmock/requests", timeout=1).close()
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def script(server: str, *behaviors: dict[str, Any]) -> None:
    scenario = [("/_llmock/scenario", {"behaviors": behaviors})] if behaviors else []
    for path, body in [("/_llmock/reset", {}), *scenario]:
        request = urllib.request.Request(server + path, json.dumps(body).encode(), {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()


def requests_seen(server: str) -> list[Any]:
    with urllib.request.urlopen(f"{server}/_llmock/requests", timeout=5) as response:
        return list(json.load(response)["requests"])


def at(server: str) -> Any:
    return choose("gpt-4o-mini", env={"OPENAI_BASE_URL": f"{server}/v1"})


@pytest.mark.server
async def test_tool_loop(server: str) -> None:
    script(server)
    owner = per_loop(at(server))
    messages: list[BaseMessage] = [HumanMessage("What is the weather in Paris?")]
    reply = await owner.current().bind_tools([weather]).ainvoke(messages)
    assert [call["name"] for call in reply.tool_calls] == ["weather"]
    messages += [reply, await weather.ainvoke(reply.tool_calls[0])]
    answer = await owner.current().bind_tools([weather]).ainvoke(messages)
    assert answer.text
    assert not answer.tool_calls
    await owner.aclose()


@pytest.mark.server
async def test_streaming_reports_usage_behind_a_custom_url(server: str) -> None:
    script(server)
    owner = per_loop(at(server))
    whole: AIMessageChunk | None = None
    async for chunk in owner.current().astream("hello"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] > 0
    await owner.aclose()


@pytest.mark.server
async def test_a_failing_server_is_asked_once(server: str) -> None:
    script(server, {"type": "fail", "status": 503, "times": 9})
    owner = per_loop(ChatOpenAI(model="gpt-4o-mini", base_url=f"{server}/v1", api_key=KEY, max_retries=3))
    with pytest.raises(openai.InternalServerError):
        await owner.current().ainvoke("hello")
    assert len(await asyncio.to_thread(requests_seen, server)) == 1
    await owner.aclose()


@pytest.mark.server
def test_two_successive_loops(server: str) -> None:
    """A user's second `asyncio.run` failed with "Event loop is closed": the pool was the first loop's."""
    script(server)
    owner = per_loop(at(server))

    async def ask() -> str:
        return (await owner.current().ainvoke("hello")).text

    assert asyncio.run(ask())
    assert asyncio.run(ask())


@pytest.mark.server
def test_four_threads_with_loops_of_their_own(server: str) -> None:
    script(server)
    owner = per_loop(at(server))

    async def ask() -> list[str]:
        replies = [owner.current().ainvoke(f"question {number}") for number in range(5)]
        return [reply.text for reply in await asyncio.gather(*replies)]

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: asyncio.run(ask()), range(4)))
    assert [len(texts) for texts in answers] == [5, 5, 5, 5]
    assert all(text for texts in answers for text in texts)


@pytest.mark.server
def test_outside_of_a_loop(server: str) -> None:
    script(server)
    assert per_loop(at(server)).current().invoke("hello").text
