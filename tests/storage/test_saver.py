"""The checkpointer: LangGraph's own conformance suite, the stock saver as a second reader, and what neither of them looks at."""

from __future__ import annotations

import asyncio
import logging
import operator
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.types import Command, interrupt

from agent_graph.errors import ConfigError, NotDurable
from agent_graph.storage.saver import SqliteCheckpointer, serializer
from agent_graph.storage.sqlite import SqliteStorage


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_langgraphs_conformance_suite_passes_whole(where: str, file: Path) -> None:
    @checkpointer_test(name=where)
    async def saver() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        storage = SqliteStorage(file if where == "file" else ":memory:")
        yield storage.checkpointer
        await storage.close()

    report = await validate(saver)
    failures = {name: result.failures for name, result in report.results.items() if result.failures or result.passed is False}
    assert failures == {}
    assert {"copy_thread", "delete_for_runs", "prune"} <= {name for name, result in report.results.items() if result.passed}


# -- a graph over it -------------------------------------------------------------------------------------------------


class State(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=5)]
    words: Annotated[list[str], operator.add]
    steps: int


def graph(saver: BaseCheckpointSaver[Any], *, until: int = 12) -> Any:
    async def work(state: State) -> Command[str]:
        step = state.get("steps", 0) + 1
        update = {"messages": [AIMessage(f"m{step}", id=f"m{step}")], "words": [f"w{step}"], "steps": step}
        return Command(update=update, goto=END if step >= until else "work")

    builder = StateGraph(State)
    builder.add_node("work", work, destinations=("work", END))
    builder.add_edge(START, "work")
    return builder.compile(checkpointer=saver)


INPUT = {"messages": [HumanMessage("hi", id="h")]}


async def test_the_stock_saver_reads_the_same(storage: SqliteStorage, file: Path) -> None:
    config = {"configurable": {"thread_id": "t"}}
    result = await graph(storage.checkpointer).ainvoke(INPUT, config, durability="sync")
    assert len(result["messages"]) == 13
    ours = await graph(storage.checkpointer).aget_state(config)
    assert ours.values == result
    connection = sqlite3.connect(file)
    stock = SqliteSaver(connection)
    theirs = graph(stock).get_state(config)
    assert theirs.values == result
    assert [_plain(t) for t in stock.list(config)] == [_plain(t) async for t in storage.checkpointer.alist(config)]
    connection.close()


def _plain(found: CheckpointTuple) -> Any:
    return (found.config, found.checkpoint, found.metadata, found.parent_config, found.pending_writes)


async def test_a_thread_that_the_stock_saver_began_goes_on(file: Path, make: Any) -> None:
    connection = sqlite3.connect(file, check_same_thread=False)
    stock = SqliteSaver(connection)

    class Small(TypedDict):
        n: int

    def compiled(saver: Any) -> Any:
        builder = StateGraph(Small)
        builder.add_node("add", lambda state: {"n": state["n"] + 1})
        builder.add_edge(START, "add")
        return builder.compile(checkpointer=saver, interrupt_before=["add"])

    config = {"configurable": {"thread_id": "t"}}
    compiled(stock).invoke({"n": 1}, config)
    connection.close()
    storage = make()
    result = await compiled(storage.checkpointer).ainvoke(None, config, durability="sync")
    assert result == {"n": 2}
    found = await storage.checkpointer.aget_tuple(config)
    assert found is not None
    assert {type(version) for version in found.checkpoint["channel_versions"].values()} == {str}  # texts and numbers cannot be compared


@pytest.mark.parametrize(("current", "following"), [(None, 1), (1, 2), (41, 42), (2.5, 3)])
def test_versions_are_small_integers(storage: SqliteStorage, current: Any, following: int) -> None:
    assert storage.checkpointer.get_next_version(current, None) == following


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=5))
def test_text_versions_grow(counts: list[int]) -> None:
    saver = SqliteStorage(":memory:").checkpointer
    version = f"{counts[0]:032}.{0.5:016}"
    for _ in counts:
        following = saver.get_next_version(version, None)
        assert following > version
        version = following


async def test_sync_and_async_callers_share_one_saver(storage: SqliteStorage) -> None:
    """LangGraph's own SqliteSaver has no async methods, and its async saver no sync ones on the loop's thread."""
    saver = storage.checkpointer
    runs = [graph(saver).ainvoke(INPUT, {"configurable": {"thread_id": f"a{i}"}}, durability="sync") for i in range(5)]

    def in_a_thread(name: str) -> Any:
        return asyncio.run(graph(saver).ainvoke(INPUT, {"configurable": {"thread_id": name}}, durability="sync"))

    threads = [asyncio.to_thread(in_a_thread, f"b{i}") for i in range(5)]
    results = await asyncio.gather(*runs, *threads)
    assert [result["steps"] for result in results] == [12] * 10
    config = {"configurable": {"thread_id": "a0"}}
    assert saver.get_tuple(config) == await saver.aget_tuple(config)
    assert list(saver.list(config)) == [t async for t in saver.alist(config)]
    assert graph(saver).get_state(config).values == results[0]


async def test_listing_holds_no_lock_and_pages(storage: SqliteStorage) -> None:
    """`async for t in saver.alist(c): await saver.aget_tuple(t.config)` deadlocks LangGraph's own saver."""
    saver = storage.checkpointer
    config = {"configurable": {"thread_id": "t"}}
    await graph(saver, until=100).ainvoke(INPUT, config, durability="sync")
    seen = [t async for t in saver.alist(config) if await saver.aget_tuple(t.config) == t]
    assert len(seen) == 102
    assert seen == list(saver.list(config))
    for limit in (0, 1, 64, 65, 101, 500):
        assert [t async for t in saver.alist(config, limit=limit)] == seen[:limit]
    before = seen[30].config
    assert [t async for t in saver.alist(config, before=before)] == seen[31:]
    assert [t async for t in saver.alist(config, before=before, filter={"step": 5})] == [t for t in seen if t.metadata["step"] == 5]
    assert len([t async for t in saver.alist(None)]) == 102


# -- durability ------------------------------------------------------------------------------------------------------


async def test_under_a_claim_a_checkpoint_waits_for_the_next_barrier(
    storage: SqliteStorage, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_graph.storage.writer._IDLE_TICKS", 10**9)  # else each pause of a busy machine may add a sync
    claim = await begin(storage)
    before = storage.writer.syncs
    await graph(storage.checkpointer).ainvoke(INPUT, {"configurable": {"thread_id": "r"}}, durability="sync")
    assert storage.writer.syncs == before
    await storage.durable(claim.turn.key)


async def test_without_a_claim_a_checkpoint_is_on_disk_when_it_returns(storage: SqliteStorage) -> None:
    """Used alone, no barrier of ours stands before the next effect."""
    await graph(storage.checkpointer, until=10).ainvoke(INPUT, {"configurable": {"thread_id": "t"}}, durability="sync")
    assert storage.writer.syncs >= 10
    before = storage.writer.syncs
    await storage.writer.durable()
    assert storage.writer.syncs == before


async def test_without_a_claim_an_interrupt_is_on_disk_when_it_returns(storage: SqliteStorage) -> None:
    async def ask(state: State) -> Any:
        return {"words": [interrupt("who?")]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    compiled = builder.compile(checkpointer=storage.checkpointer)
    config = {"configurable": {"thread_id": "t"}}
    await compiled.ainvoke(INPUT, config, durability="sync")
    before = storage.writer.syncs
    await storage.writer.durable()
    assert storage.writer.syncs == before
    result = await compiled.ainvoke(Command(resume="me"), config, durability="sync")
    assert result["words"] == ["me"]


async def test_a_write_that_fails_stops_the_graph_once_and_the_next_run_works(storage: SqliteStorage) -> None:
    saver = storage.checkpointer
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c"}}
    await saver.aput_writes(config, [("a", 1)], "\ud800")  # a task id that no database can hold
    with pytest.raises(NotDurable):
        await graph(saver).ainvoke(INPUT, {"configurable": {"thread_id": "t"}}, durability="sync")
    result = await graph(saver).ainvoke(INPUT, {"configurable": {"thread_id": "t"}}, durability="sync")
    assert result["steps"] == 12


# -- DeltaChannel history --------------------------------------------------------------------------------------------

CHANNELS = ["a", "b", "c"]
CHAINS = st.lists(
    st.tuples(
        st.integers(0, 3),  # how far back the parent is (0: none)
        st.sets(st.sampled_from(CHANNELS)),  # channels whose value this checkpoint stores
        st.lists(st.tuples(st.sampled_from(["t1", "t2", "t0"]), st.sampled_from(CHANNELS)), max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(CHAINS, st.sampled_from(["", "sub"]))
def test_the_history_in_one_query_equals_the_generic_walk(chain: list[Any], namespace: str) -> None:
    async def play() -> None:
        storage = SqliteStorage(":memory:", durability="process")
        saver = storage.checkpointer
        configs: list[Any] = []
        for number, (back, stored, writes, reverse) in enumerate(chain):
            parent = configs[-back]["configurable"]["checkpoint_id"] if 0 < back <= len(configs) else None
            place = {"thread_id": "t", "checkpoint_ns": namespace, "checkpoint_id": parent}
            identifier = f"{999 - number if reverse else 1000 + number:04}"  # ids need not grow along the chain
            checkpoint = {**empty_checkpoint(), "id": identifier, "channel_values": {ch: f"{identifier}{ch}" for ch in stored}}
            configs.append(await saver.aput({"configurable": place}, checkpoint, {}, {}))
            for i, (task, channel) in enumerate(writes):
                await saver.aput_writes(configs[-1], [(channel, [number, i])], f"{task}{i}", task_path=task)
        for config in [*configs, {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}]:
            for channels in (CHANNELS, ["b"], []):
                ours = await saver.aget_delta_channel_history(config=config, channels=channels)
                assert ours == await BaseCheckpointSaver.aget_delta_channel_history(saver, config=config, channels=channels)
                assert ours == saver.get_delta_channel_history(config=config, channels=channels)
        nowhere = {"configurable": {"thread_id": "other", "checkpoint_ns": ""}}
        assert await saver.aget_delta_channel_history(config=nowhere, channels=["a"]) == {"a": {"writes": []}}
        await storage.close()

    asyncio.run(play())


async def test_a_ring_of_parents_ends(storage: SqliteStorage) -> None:
    saver = storage.checkpointer
    for identifier, parent in (("1", "2"), ("2", "1"), ("1", "2")):
        place = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": parent}
        await saver.aput({"configurable": place}, {**empty_checkpoint(), "id": identifier}, {}, {})
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    history = await asyncio.wait_for(saver.aget_delta_channel_history(config=config, channels=["a"]), 10)
    assert history == {"a": {"writes": []}}


# -- pruning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [1, 4, 5, 6, 13])
async def test_pruning_keeps_what_delta_channels_are_rebuilt_from(storage: SqliteStorage, until: int) -> None:
    """A naive keep-latest empties these channels without an error (LangGraph warns of it)."""
    saver = storage.checkpointer
    config = {"configurable": {"thread_id": "t"}}
    await graph(saver, until=until).ainvoke(INPUT, config, durability="sync")
    before = (await graph(saver).aget_state(config)).values
    count = len(list(saver.list(config)))
    await saver.aprune(["t"])
    assert (await graph(saver).aget_state(config)).values == before
    assert len(before["messages"]) == until + 1
    left = len(list(saver.list(config)))
    assert left <= min(count, 7)
    await saver.aprune(["t"])
    assert len(list(saver.list(config))) == left
    result = await graph(saver, until=3).ainvoke({"messages": [HumanMessage("on", id="h2")], "steps": 0}, config, durability="sync")
    assert [m.id for m in result["messages"][: until + 1]] == [m.id for m in before["messages"]]


async def test_deleting_a_langgraph_run_keeps_what_later_ones_need(storage: SqliteStorage) -> None:
    saver = storage.checkpointer

    def config(run: str) -> Any:
        return {"configurable": {"thread_id": "t"}, "metadata": {"run_id": run}}

    await graph(saver, until=3).ainvoke(INPUT, config("one"), durability="sync")
    await graph(saver, until=6).ainvoke({"messages": [HumanMessage("on", id="h2")]}, config("two"), durability="sync")
    before = (await graph(saver).aget_state({"configurable": {"thread_id": "t"}})).values
    await saver.adelete_for_runs(["one"])
    assert (await graph(saver).aget_state({"configurable": {"thread_id": "t"}})).values == before
    await saver.adelete_for_runs(["one", "two"])
    assert list(saver.list(None)) == []


async def test_a_copy_is_whole(storage: SqliteStorage) -> None:
    saver = storage.checkpointer
    await graph(saver).ainvoke(INPUT, {"configurable": {"thread_id": "t"}}, durability="sync")
    await saver.acopy_thread("t", "u")
    saver.delete_thread("t")
    assert list(saver.list({"configurable": {"thread_id": "t"}})) == []
    state = await graph(saver).aget_state({"configurable": {"thread_id": "u"}})
    assert len(state.values["messages"]) == 13


async def test_an_unknown_strategy_is_refused(storage: SqliteStorage) -> None:
    with pytest.raises(ConfigError, match="keep_latest"):
        await storage.checkpointer.aprune(["t"], strategy="keep_none")


# -- what is read executes nothing -----------------------------------------------------------------------------------


def _call(code: int, *parts: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


def _attacks(trace: Path) -> dict[str, tuple[str, bytes]]:
    command = f"touch {trace}"
    json_call = f'{{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["{command}"]}}'
    return {
        "single": ("msgpack", _call(0, "os", "system", command)),
        "positional": ("msgpack", _call(1, "os", "system", [command])),
        "keywords": ("msgpack", _call(2, "subprocess", "run", {"args": command, "shell": True})),
        "method": ("msgpack", _call(3, "os", "system", command, "__call__")),
        "pydantic 1": ("msgpack", _call(4, "subprocess", "run", {"args": command, "shell": True})),
        "pydantic 2": ("msgpack", _call(5, "os", "system", command, "__call__")),
        "nested": ("msgpack", ormsgpack.packb({"channel_values": {"a": ormsgpack.Ext(0, ormsgpack.packb(("os", "system", command)))}})),
        "json": ("json", json_call.encode()),
        "pickle": ("pickle", b"cos\nsystem\n(S'" + command.encode() + b"'\ntR."),
    }


@pytest.mark.parametrize("attack", _attacks(Path("x")))
async def test_a_crafted_checkpoint_executes_nothing(storage: SqliteStorage, file: Path, attack: str, caplog: Any) -> None:
    """LangGraph's default serializer runs os.system for some of these (it only logs a warning)."""
    trace = file.parent / "executed"
    saver = storage.checkpointer
    place = {"thread_id": "t", "checkpoint_ns": ""}
    config = await saver.aput({"configurable": place}, empty_checkpoint(), {}, {})
    kind, blob = _attacks(trace)[attack]
    connection = sqlite3.connect(file)
    with connection:
        row = ("t", "", config["configurable"]["checkpoint_id"], "task", 0, "a", kind, blob)
        sql = "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value) VALUES (?,?,?,?,?,?,?,?)"
        connection.execute(sql, row)
    connection.close()
    with caplog.at_level(logging.ERROR):
        try:
            await saver.aget_tuple(config)
        except NotImplementedError:
            assert kind == "pickle"
    assert not trace.exists()


def test_the_attacks_are_attacks(file: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    """Were they harmless to everybody, the test above would show nothing."""
    trace = file.parent / "executed"
    _, blob = _attacks(trace)["single"]
    script = """
import sys
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
JsonPlusSerializer().loads_typed(("msgpack", bytes.fromhex(sys.argv[1])))
"""
    process = child(script, blob.hex(), stderr=subprocess.DEVNULL)
    process.communicate(timeout=60)
    assert trace.exists()


@pytest.mark.parametrize("redact", [None, lambda text: text], ids=["plain", "redacting"])
def test_what_a_state_may_hold_comes_back_typed(redact: Any) -> None:
    import datetime as dt
    import decimal
    import uuid

    from langgraph.checkpoint.serde.types import _DeltaSnapshot
    from langgraph.types import Overwrite, Send

    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    value = {
        "decimal": decimal.Decimal("1.10"), "big": 2**63, "when": dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
        "id": uuid.UUID(int=7), "message": AIMessage("x", id="1", usage_metadata=usage),
        "send": Send("n", {"a": [1]}), "overwrite": Overwrite([HumanMessage("y", id="2")]),
        "snapshot": _DeltaSnapshot([HumanMessage("z", id="3")]),
        "keys": {1: "a", None: "b"}, "bytes": b"\xff\x00", "none": None, "float": 0.1, "set": {1, 2},
    }  # fmt: skip
    serde = serializer(redact)
    assert serde.loads_typed(serde.dumps_typed(value)) == value
    assert serde.loads_typed(serde.dumps_typed(None)) is None
    assert serde.loads_typed(serde.dumps_typed(b"\xff")) == b"\xff"


def test_strict_mode_of_langgraph_is_no_obstacle(storage: SqliteStorage) -> None:
    """With LANGGRAPH_STRICT_MSGPACK set, compile() works on a copy of the saver with a wider list."""
    wider = storage.checkpointer.with_allowlist([("some", "Type")])
    assert isinstance(wider, SqliteCheckpointer)
    assert wider is not storage.checkpointer
    assert storage.checkpointer.with_allowlist([]) is storage.checkpointer
    assert "LANGGRAPH_STRICT_MSGPACK" not in os.environ
