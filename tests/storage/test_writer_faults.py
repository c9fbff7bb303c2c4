"""Locks, full disks, failed syncs, lost files: whoever waits for the writer is told, and the next attempt works."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agent_graph.errors import NotDurable, StorageError
from agent_graph.storage import writer as module
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.writer import Writer
from tests.storage.writing import NOTE, integrity, lock, notes, unguarded


async def test_a_foreign_lock_is_waited_for(writer: Writer, file: Path) -> None:
    let_go = lock(file, writer)
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    barrier = asyncio.ensure_future(writer.durable(attempt))
    await asyncio.sleep(0.5)
    assert not barrier.done()
    let_go()
    await barrier
    assert notes(file) == [("r", 1)]


async def test_a_foreign_lock_beyond_the_limit_is_told_and_the_next_attempt_works(file: Path) -> None:
    writer = Writer(lambda: str(file), unguarded, durability="power", busy_s=0.3)
    let_go = lock(file, writer)
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    with pytest.raises(NotDurable, match="locked"):
        await writer.durable(attempt)
    with pytest.raises(StorageError, match="busy limit"):
        await writer.run(lambda connection: None)
    let_go()
    again = Attempt("n", "r", 2)
    writer.put(again, NOTE, ("r", 2))
    await writer.durable(again)
    assert notes(file) == [("r", 2)]
    writer.stop()
    assert writer.join(10)


async def test_a_full_disk_is_told_to_all_who_wait_and_the_file_stays_whole(writer: Writer, file: Path) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 2}")

    await writer.run(fill)
    big = "INSERT INTO ag_notes (namespace, run_id, turn, step, kind, body) VALUES ('n', ?, 1, ?, 'k', zeroblob(100000))"
    one, two = Attempt("n", "one", 1), Attempt("n", "two", 1)
    writer.put(one, NOTE, ("one", 1))
    writer.put(two, big, ("two", 1))
    results = await asyncio.gather(writer.durable(one), writer.durable(two), return_exceptions=True)
    assert [type(result) for result in results] == [NotDurable, NotDurable]
    assert "disk is full" in str(results[0])
    again = Attempt("n", "again", 1)  # the writer opened the file anew, so there is space again
    writer.put(again, big, ("again", 1))
    await writer.durable(again)
    assert notes(file) == [("again", 1)]
    assert integrity(file) == "ok"


async def test_a_failed_sync_is_told_to_those_who_committed_before_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may be committed without a sync; if the sync that was to cover them fails, their barrier must not say yes."""
    monkeypatch.setattr(module, "_IDLE_TICKS", 10**9)  # else the writer may sync by itself before the lock is taken
    writer = Writer(lambda: str(file), unguarded, durability="power", busy_s=0.2)
    attempt = Attempt("n", "r", 1)
    await writer.run(lambda connection: None)
    writer.put(attempt, NOTE, ("r", 1))
    while not notes(file):
        await asyncio.sleep(0.005)
    let_go = lock(file, writer)
    with pytest.raises(NotDurable):
        await writer.durable(attempt)
    let_go()
    with pytest.raises(NotDurable):
        await writer.durable(attempt)
    writer.stop()
    assert writer.join(10)


async def test_a_file_that_cannot_be_opened_is_told_each_time_and_may_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    writer = Writer(lambda: str(folder / "runs.db"), unguarded, durability="power", busy_s=1.0)
    for _ in range(2):
        with pytest.raises(StorageError, match="does not exist"):
            await writer.run(lambda connection: None)
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    with pytest.raises(NotDurable, match="does not exist"):
        await writer.durable(attempt)
    folder.mkdir()
    again = Attempt("n", "r", 2)
    writer.put(again, NOTE, ("r", 2))
    await writer.durable(again)
    assert notes(folder / "runs.db") == [("r", 2)]
    writer.stop()
    assert writer.join(10)


async def test_a_file_removed_under_the_writer_is_made_anew(writer: Writer, file: Path) -> None:
    """A notebook's user deletes the folder and runs again: the records must not go into a file that has no name."""
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    await writer.durable(attempt)
    for one in file.parent.glob("runs.db*"):
        one.unlink()
    writer.put(attempt, NOTE, ("r", 2))
    await writer.durable(attempt)
    assert notes(file) == [("r", 2)]
