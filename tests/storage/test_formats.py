"""Files of every released schema open, migrate and resume; and how a migration goes, whatever it is."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from agent_graph.errors import StorageError
from agent_graph.storage import schema
from agent_graph.storage.schema import VERSION, open_writer
from tests.storage.make_released import ROOT, agent_over

RELEASED = sorted((ROOT / "tests" / "data").glob("storage-*.db.gz"))


def version_of(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version


def test_there_is_a_file_of_each_schema() -> None:
    """After a change of the schema: `python -m tests.storage.make_released`."""
    assert [path.name for path in RELEASED] == [f"storage-{version}.db.gz" for version in range(1, VERSION + 1)]


@pytest.fixture(params=RELEASED, ids=lambda path: path.name)
def released(request: pytest.FixtureRequest, file: Path) -> Path:
    """A copy of a released file."""
    file.write_bytes(gzip.decompress(request.param.read_bytes()))
    return file


async def test_what_had_ended_is_there(released: Path) -> None:
    agent = agent_over(released, [])
    run = await agent.get("done")
    assert (run.status, run.turn, run.output, run.steps) == ("complete", 2, "I was told: receipt for 7", 3)
    assert [(call.tool_name, call.result) for call in run.tool_calls] == [
        ("look", {"sky": "clear over Zürich", "celsius": 21.5}), ("pay", "receipt for 7")
    ]  # fmt: skip
    assert (run.total_tokens, run.total_cost_usd, run.cost_uncertain_usd) == (45, 0.003, 0.0)
    assert [turn.key.run_id for turn in await agent.runs()] == ["cut", "done"]
    assert [entry.message.content for entry in await agent.history("done") if entry.message.role.value == "user"] == ["pay 5", "pay 7"]
    again = await agent.run("pay 5", "done", request_id="job-1")
    assert (again.turn, again.output) == (1, "I was told: receipt for 5"), "the request_id is remembered"
    assert version_of(released) == VERSION
    await agent.aclose()


async def test_what_was_cut_goes_on_and_is_not_paid_again(released: Path) -> None:
    paid: list[int] = []
    agent = agent_over(released, paid)
    assert await agent.unfinished() == ["cut"]
    before = await agent.get("cut")
    assert (before.status, before.steps, [call.tool_name for call in before.tool_calls]) == ("running", 2, ["look"])
    run = await agent.resume("cut")  # without force: the tools are still the same
    assert (run.status, run.steps, paid) == ("complete", 3, [])
    assert "the outcome of this call is unknown" in (run.output or "")
    after = await agent.run("pay 9", "done")
    assert (after.turn, after.output, paid) == (3, "I was told: receipt for 9", [9])
    await agent.aclose()


def test_langgraphs_own_saver_reads_it(released: Path) -> None:
    with closing(sqlite3.connect(released)) as connection:
        found = SqliteSaver(connection).get_tuple({"configurable": {"thread_id": "done"}})
    assert found is not None
    assert found.checkpoint["channel_values"]["turn"] == 2


# -- the mechanism -----------------------------------------------------------------------------------------------------------

NEXT = "ALTER TABLE ag_turns ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'; CREATE TABLE ag_moods (mood TEXT)"


@pytest.fixture
def a_version_later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this program the next version, whose migration is the SQL that it is given."""

    def later(sql: str) -> None:
        monkeypatch.setattr(schema, "VERSION", VERSION + 1)
        monkeypatch.setattr(schema, "_MIGRATIONS", (*schema._MIGRATIONS, sql))

    return later


def test_the_next_version_migrates_what_is_there(released: Path, a_version_later: Any) -> None:
    a_version_later(NEXT)
    for _ in range(2):
        open_writer(str(released), durability="power", busy_s=2.0).close()
    with closing(sqlite3.connect(released)) as connection:
        assert connection.execute("SELECT DISTINCT mood FROM ag_turns").fetchall() == [("fine",)]
    assert version_of(released) == VERSION + 1


def test_many_may_migrate_at_once(released: Path, a_version_later: Any) -> None:
    a_version_later(NEXT)
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            open_writer(str(released), durability="power", busy_s=30.0).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, version_of(released)) == ([], VERSION + 1)


def test_a_migration_that_fails_half_way_leaves_the_file_as_it_was(
    released: Path, a_version_later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _dump(released)
    a_version_later(NEXT + "; nonsense")
    with pytest.raises(StorageError, match="nonsense"):
        open_writer(str(released), durability="power", busy_s=2.0)
    assert _dump(released) == before
    monkeypatch.undo()
    paid: list[int] = []
    run = asyncio.run(_resumed(released, paid))
    assert (run.status, paid) == ("complete", [])


async def _resumed(file: Path, paid: list[int]) -> Any:
    async with agent_over(file, paid) as agent:
        return await agent.resume("cut")


def _dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone()[0])]


def test_the_next_versions_file_is_refused_with_the_version_it_needs(released: Path, a_version_later: Any, monkeypatch: Any) -> None:
    a_version_later(NEXT)
    open_writer(str(released), durability="power", busy_s=2.0).close()
    monkeypatch.undo()
    before = released.read_bytes()
    with pytest.raises(StorageError, match=f"a newer agent_graph wrote it .schema {VERSION + 1}, this one knows {VERSION}.; upgrade"):
        open_writer(str(released), durability="power", busy_s=2.0)
    assert released.read_bytes() == before
