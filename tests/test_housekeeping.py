"""What takes runs out of the storage again: delete and prune, by method and by command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_graph import ConfigError, ProductionAgent, RunInProgress, RunNotFound, StorageError
from agent_graph.cli import main
from agent_graph.config import cutoff
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import DictMemory, FakeClock, FakeTools, ListObservability, ScriptedLLM, hang

DAY_S = 86_400.0
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def agent_of(*replies: Any, **options: Any) -> ProductionAgent:
    return ProductionAgent(ScriptedLLM(replies), [], FakeTools(), DictMemory(), ListObservability(), {}, **options)


async def stopped(agent: ProductionAgent, run_id: str) -> None:
    """Begin a turn and leave it where it hangs."""
    task = asyncio.ensure_future(agent.run("q", run_id))
    while not agent.llm.requests or agent.llm.requests[-1].messages[-1].content != "q":  # type: ignore[attr-defined]  # the scripted model
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("older_than", "gone"),
    [
        (timedelta(days=9), ["old"]), (timedelta(days=11), []), (9 * DAY_S, ["old"]), (int(11 * DAY_S), []), (0, ["new", "old"]),
        (timedelta(0), ["new", "old"]), (datetime(2000, 1, 1, tzinfo=UTC), []),
    ],
)  # fmt: skip
async def test_prune_deletes_what_is_over_and_old_enough(older_than: Any, gone: list[str]) -> None:
    clock = FakeClock()
    agent = agent_of("one", hang, "two", storage=":memory:", clock=clock)
    theirs = agent_of("three", storage=agent.storage, namespace="theirs", clock=clock)
    await agent.run("question", "old")
    await theirs.run("question", "theirs")
    await stopped(agent, "open")
    clock.advance(10 * DAY_S)
    await agent.run("question", "new")
    clock.advance(1)

    assert sorted(await agent.prune(older_than=older_than)) == gone
    assert {row.key.run_id for row in await agent.runs()} == {"old", "open", "new"} - set(gone)
    assert (await theirs.get("theirs")).output == "three", "another namespace's"
    assert await agent.prune(older_than=older_than) == []
    await agent.aclose()


async def test_more_runs_than_one_transaction_deletes() -> None:
    agent = agent_of(*["fine"] * 45, storage=":memory:")
    for number in range(45):
        await agent.run("question", f"r{number}")
    assert len(await agent.prune(older_than=0)) == 45
    assert await agent.runs() == []
    await agent.aclose()


async def test_an_agent_closes_what_it_opened_and_nothing_else(tmp_path: Path) -> None:
    shared = SqliteStorage(tmp_path / "shared.db")
    async with agent_of("one", storage=shared) as one, agent_of("two", storage=tmp_path / "own.db") as own:
        await one.run("question", "r")
        await own.run("question", "r")
    assert (await agent_of("three", storage=shared).run("question", "r")).turn == 2
    with pytest.raises(StorageError, match="closed"):
        await own.run("question", "r")
    await shared.close()


async def test_a_run_that_is_being_worked_on_is_not_deleted() -> None:
    agent = agent_of("one", hang, storage=":memory:")
    await agent.run("question", "r")
    task = asyncio.ensure_future(agent.run("q", "r"))
    while len(agent.llm.requests) < 2:  # type: ignore[attr-defined]  # the scripted model
        await asyncio.sleep(0)
    with pytest.raises(RunInProgress, match="being worked on"):
        await agent.delete("r")
    assert await agent.prune(older_than=0) == []
    task.cancel()
    await asyncio.wait({task})
    await agent.delete("r")
    with pytest.raises(RunNotFound):
        await agent.get("r")
    await agent.aclose()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (-1, "in the future"), (timedelta(seconds=-1), "in the future"), (NOW + timedelta(days=1), "in the future"),
        (float("nan"), "a timedelta, a datetime"), (float("inf"), "a timedelta, a datetime"), (10**400, "a timedelta, a datetime"),
        (True, "a timedelta, a datetime"), ("30d", "a timedelta, a datetime"), (None, "a timedelta, a datetime"),
        (datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001  that is what is wrong with it
    ],
)  # fmt: skip
def test_an_age_that_is_none_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cutoff(wrong, NOW.timestamp())


async def test_what_was_deleted_is_gone_from_the_bytes_of_the_files(tmp_path: Path) -> None:
    agent = agent_of("The vault's code is 4711-0815.", *["fine"] * 20, storage=tmp_path / "runs.db")
    await agent.run("Tell me of the walrus. " * 1_000, "r")
    for number in range(20):
        await agent.run("question", f"other{number}")
    await agent.delete("r")
    await agent.aclose()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"4711-0815" not in left
    assert b"walrus" not in left
    assert b"question" in left


# -- the commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in a folder of its own and returns its exit code, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return code, *capsys.readouterr()

    return run


def test_the_commands_delete_and_prune(command: Any, tmp_path: Path) -> None:
    for run_id in ("a", "b", "c"):
        command("run", "What is 2 + 2?", "--run-id", run_id)
    assert command("delete", "b") == (0, "deleted b\n", "")
    assert command("prune", "--older-than", "1h") == (0, "deleted 0 runs\n", "")
    code, out, _ = command("prune", "--older-than", "0s", "--json")
    assert (code, sorted(json.loads(out)["deleted"])) == (0, ["a", "c"])
    assert command("runs")[1].startswith("no runs yet")
    code, _, err = command("delete", "b")
    assert (code, "No run 'b'" in err) == (2, True)


@pytest.mark.parametrize("age", ["30", "x", "-1d", "1y", "2026-13-01", "99999999999999d", "9999-01-01"])
def test_an_age_that_cannot_be_typed(command: Any, age: str) -> None:
    code, _, err = command("prune", f"--older-than={age}")
    assert code == 2
    assert age in err or "future" in err
