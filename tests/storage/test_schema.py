"""Which files are opened, which are refused, and what a refusal says."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from agent_graph.errors import StorageError
from agent_graph.storage.schema import APPLICATION_ID, VERSION, open_reader, open_writer
from agent_graph.storage.sqlite import SqliteStorage


def opened(path: Path) -> None:
    open_writer(str(path), durability="power", busy_s=2.0).close()


def make(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def directory(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("a letter, not a database " * 100)


def damaged(path: Path) -> None:
    opened(path)
    with path.open("r+b") as file:
        file.write(b"\x00" * 16)


def newer(path: Path) -> None:
    opened(path)
    make(path, f"PRAGMA user_version={VERSION + 1}")


def another_programs(path: Path) -> None:
    make(path, "CREATE TABLE customers (id)")


def another_programs_by_id(path: Path) -> None:
    make(path, "PRAGMA application_id=7")


def beside_the_stock_savers_tables(path: Path) -> None:
    make(path, "CREATE TABLE checkpoints (x)", "CREATE TABLE orders (x)")


def scrambled(path: Path) -> None:
    opened(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3000))


REFUSED = [
    (directory, "it is a directory"), (text, "no SQLite database"), (damaged, "no SQLite database"), (newer, "newer agent_graph"),
    (another_programs, "customers"), (another_programs_by_id, "another program"), (beside_the_stock_savers_tables, "orders"),
    (scrambled, "damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
async def test_what_cannot_be_used_is_refused_in_plain_words_and_left_alone(file: Path, spoil: Any, words: str) -> None:
    spoil(file)
    before = file.read_bytes() if file.is_file() else None
    storage = SqliteStorage(file)
    with pytest.raises(StorageError, match=words) as caught:
        await storage.turns("default", "r")
    assert str(file) in str(caught.value)
    assert before is None or file.read_bytes() == before
    await storage.close()


async def test_a_missing_folder_is_not_made(file: Path) -> None:
    storage = SqliteStorage(file.parent / "missing" / "runs.db")
    with pytest.raises(StorageError, match=r"folder .*missing does not exist"):
        await storage.turns("default", "r")
    assert not (file.parent / "missing").exists()
    await storage.close()


def test_an_empty_file_and_our_own_are_opened_again(file: Path) -> None:
    file.touch(mode=0o644)
    opened(file)
    opened(file)
    assert file.stat().st_mode & 0o777 == 0o644  # existing files keep their rights
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_new_file_is_private_whatever_the_umask(file: Path) -> None:
    before = os.umask(0)
    try:
        opened(file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("old", [False, True], ids=["today's", "before task_path"])
async def test_the_stock_savers_file_is_adopted_with_its_checkpoints(file: Path, old: bool) -> None:
    connection = sqlite3.connect(file)
    stock = SqliteSaver(connection)
    from langgraph.checkpoint.base import empty_checkpoint

    place = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    config = stock.put(place, empty_checkpoint(), {"source": "input", "step": 1}, {})
    stock.put_writes(config, [("a", 1)], "task")
    if old:
        connection.execute("ALTER TABLE writes DROP COLUMN task_path")
    expected = stock.get_tuple(place) if not old else None
    connection.commit()
    connection.close()
    storage = SqliteStorage(file)
    found = await storage.checkpointer.aget_tuple(place)
    assert found is not None
    assert found.pending_writes == [("task", "a", 1)]
    assert old or found == expected
    await storage.checkpointer.aput_writes(config, [("b", 2)], "task2", task_path="x")
    assert len((await storage.checkpointer.aget_tuple(place)).pending_writes) == 2
    await storage.close()


def test_many_may_open_a_new_file_at_once(file: Path) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            opened(file)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


OPEN = """
import sys
from agent_graph.storage.schema import open_writer
print("ready", flush=True)
sys.stdin.readline()
try:
    open_writer(sys.argv[1], durability="power", busy_s=30.0).close()
    print("opened")
except Exception as error:
    print(repr(error))
"""


@pytest.mark.slow
def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path, child: Any) -> None:
    """One took another's half-seen migration for a foreign program's file; one was told "locked" without any wait."""
    for number in range(10):
        processes = [child(OPEN, tmp_path / f"{number}.db") for _ in range(4)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate()[0].strip() for process in processes] == ["opened"] * 4


def test_a_file_that_another_process_migrates_meanwhile_is_still_ours(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_graph.storage import schema

    class Slow(sqlite3.Connection):
        """Lets another process migrate the file between any two of our looks at it."""

        def execute(self, sql: str, *parameters: Any) -> Any:
            if "sqlite_master" in sql and not file.with_suffix(".done").exists():
                file.with_suffix(".done").touch()
                with contextlib.suppress(StorageError):  # "locked" is fine: then it is the other that waits
                    open_writer(str(file), durability="power", busy_s=0.0).close()
            return super().execute(sql, *parameters)

    plain = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: plain(*a, **{"factory": Slow, **k}))
    schema.open_writer(str(file), durability="power", busy_s=5.0).close()


def test_opening_leaves_the_locks_of_this_processs_other_connections_alone(file: Path, child: Any) -> None:
    """POSIX drops a process's locks on a file with any descriptor of it: the next process to close the file then took the
    WAL away from under us, and what was acknowledged afterwards was lost."""
    first = open_writer(str(file), durability="power", busy_s=2.0)
    opened(file)
    passer_by = child(OPEN, file)
    passer_by.communicate("go\n")
    first.execute("INSERT INTO ag_meta VALUES ('acknowledged', 1)")
    reading = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT name FROM ag_meta').fetchall())"
    assert "acknowledged" in child(reading, file).communicate()[0]
    first.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_graph.storage import schema

    monkeypatch.setattr(schema, "_MIGRATIONS", [schema._OUR_TABLES + "; nonsense"])
    with pytest.raises(StorageError, match="nonsense"):
        opened(file)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    monkeypatch.undo()
    opened(file)


def test_a_reader_cannot_write(file: Path) -> None:
    opened(file)
    reader = open_reader(str(file), busy_s=1.0)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM ag_turns")
    reader.close()


def test_the_pragmas_that_promises_rest_on(file: Path) -> None:
    for durability, synchronous in (("power", 2), ("process", 1)):
        connection = open_writer(str(file), durability=durability, busy_s=3.0)  # type: ignore[arg-type]  # one of the two words
        asked = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode", "busy_timeout")]
        assert asked == [synchronous, "wal", 3000]
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        connection.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a mount of our own needs root")
async def test_a_read_only_disk_is_named(tmp_path: Path, rows: Any) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        opened(mount / "runs.db")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        for name in ("runs.db", "new.db"):
            storage = SqliteStorage(mount / name)
            with pytest.raises(StorageError, match="writable"):
                await storage.claim(rows.request(), storage)
            await storage.close()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a mount of our own needs root")
async def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_space_again(tmp_path: Path, rows: Any, begin: Any) -> None:
    from agent_graph.errors import NotDurable

    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        storage = SqliteStorage(mount / "runs.db")
        claim = await begin(storage)
        acknowledged = 0

        async def fill() -> None:
            nonlocal acknowledged
            for number in range(1, 200):
                storage.put(rows.journal(claim.turn.key, number, result="x" * 20_000), fence=claim.fence)
                await storage.durable(claim.turn.key)
                acknowledged = number

        with pytest.raises(NotDurable, match="disk is full"):
            await fill()
        assert acknowledged > 5
        with pytest.raises(NotDurable):
            await storage.release(claim.turn.key, fence=claim.fence)
        subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
        again = await storage.claim(rows.request(), storage)
        assert again.outcome == "resume"
        found = await storage.journal(claim.turn.key)
        assert [row.step for row in found] == list(range(1, acknowledged + 1))
        storage.put(rows.journal(claim.turn.key, 500), fence=again.fence)
        await storage.durable(claim.turn.key)
        await storage.close()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
