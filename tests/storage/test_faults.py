"""Faults of the file under a whole agent: a typed error that names the file, no model or tool call after it, nothing lost by it.

Ground truth is what the model and the tool wrote down themselves, and what another connection finds in the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_graph import AgentRun, NotDurable, ProductionAgent, StorageError
from agent_graph.storage import committer, schema
from agent_graph.storage.schema import VERSION
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

PAY: dict[str, Any] = {"name": "pay", "idempotent": False}
BUSY_S = 0.2


class Subject:
    """An agent that pays twice and then answers, over the storage in one file; a new one is what a new process would make."""

    def __init__(self, file: Path, done: list[int] | None = None, happens: Callable[[str], None] = lambda what: None) -> None:
        self.done = [] if done is None else done
        """Every payment that was really made, over all agents that share the list."""
        self.asked = 0
        self._happens = happens
        self.storage = SqliteStorage(file, busy_s=BUSY_S)
        tools = FakeTools({"pay": self._pay})
        self.agent = ProductionAgent(
            ScriptedLLM([self._answer] * 50), [PAY], tools, DictMemory(), ListObservability(), {}, storage=self.storage
        )

    def _answer(self, messages: Any, tools: Any) -> Any:
        self.asked += 1
        step = sum(message.role.value == "assistant" for message in messages)
        self._happens(f"model {step}")
        return call("pay", number=step, note="so " * 3_000) if step < 2 else "Paid."

    def _pay(self, number: int, note: str) -> str:
        self._happens(f"pay {number}")
        self.done.append(number)
        return "paid" * 3_000


# -- before the first call -------------------------------------------------------------------------------------------


def no_folder(file: Path) -> Callable[[], None]:
    file.parent.rmdir()
    return file.parent.mkdir


def a_folder(file: Path) -> Callable[[], None]:
    file.mkdir()
    return file.rmdir


def no_database(file: Path) -> Callable[[], None]:
    file.write_text("a letter, not a database " * 100)
    return file.unlink


def a_damaged_header(file: Path) -> Callable[[], None]:
    schema.open_writer(str(file), durability="power", busy_s=BUSY_S).close()
    with file.open("r+b") as opened:
        head = opened.read(100)
        opened.seek(0)
        opened.write(bytes(100))

    def mend() -> None:
        with file.open("r+b") as opened:
            opened.write(head)

    return mend


def another_programs(file: Path) -> Callable[[], None]:
    _execute(file, "CREATE TABLE customers (id)")
    return file.unlink


def a_newer_one(file: Path) -> Callable[[], None]:
    schema.open_writer(str(file), durability="power", busy_s=BUSY_S).close()
    _execute(file, f"PRAGMA user_version={VERSION + 1}")
    return lambda: _execute(file, f"PRAGMA user_version={VERSION}")


def _execute(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_folder, "does not exist"),
        (a_folder, "is a directory"),
        (no_database, "no SQLite database"),
        (a_damaged_header, "no SQLite database"),
        (another_programs, "another program"),
        (a_newer_one, "newer agent_graph"),
    ],
)
async def test_a_file_that_cannot_be_used_stops_a_turn_before_it_begins(tmp_path: Path, spoil: Any, words: str) -> None:
    file = tmp_path / "folder" / "runs.db"
    file.parent.mkdir()
    mend = spoil(file)
    subject = Subject(file)
    agent = subject.agent
    for attempt in (agent.run("pay", "r"), agent.resume("r"), agent.get("r"), agent.unfinished(), agent.prune(older_than=0)):
        with pytest.raises(StorageError, match=words) as caught:
            await attempt
        assert str(file) in str(caught.value)
    assert (subject.asked, subject.done) == (0, [])
    mend()
    run = await agent.run("pay", "r")  # the very same agent
    assert (run.status, subject.done) == ("complete", [0, 1])
    await subject.storage.close()


@pytest.fixture
def foreign_lock(child: Any, file: Path) -> Callable[[], Callable[[], None]]:
    """Lets another process lock the file; returns what makes it let go."""
    script = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('BEGIN EXCLUSIVE')\n"
        "print('locked', flush=True)\nsys.stdin.readline()\nc.execute('ROLLBACK')\nc.close()\nprint('free', flush=True)"
    )

    def lock() -> Callable[[], None]:
        process = child(script, file)
        assert process.stdout.readline() == "locked\n"

        def let_go() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "free\n"

        return let_go

    return lock


async def test_a_foreign_lock_stops_a_turn_before_it_begins(file: Path, foreign_lock: Any) -> None:
    schema.open_writer(str(file), durability="power", busy_s=BUSY_S).close()
    let_go = foreign_lock()
    subject = Subject(file)
    with pytest.raises(StorageError, match="another process holds it locked") as caught:
        await subject.agent.run("pay", "r")
    assert caught.value.retryable
    assert (subject.asked, subject.done) == (0, [])
    let_go()
    assert (await subject.agent.run("pay", "r")).status == "complete"
    await subject.storage.close()


async def test_a_file_that_can_only_be_read_stops_a_turn_before_it_begins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite itself meets it; rights would not stop a test that root runs (test_schema.py has a disk mounted read-only)."""
    schema.open_writer(str(file), durability="power", busy_s=BUSY_S).close()
    plain = sqlite3.connect
    monkeypatch.setattr(schema.sqlite3, "connect", lambda path, **options: plain(f"file:{path}?mode=ro", uri=True, **options))
    subject = Subject(file)
    with pytest.raises(StorageError, match="it is read-only"):
        await subject.agent.run("pay", "r")
    assert (subject.asked, subject.done) == (0, [])
    monkeypatch.undo()
    assert (await subject.agent.run("pay", "r")).status == "complete"
    await subject.storage.close()


# -- in the midst of a turn ------------------------------------------------------------------------------------------


class Disk:
    """The disk under every writer opened from now on: it holds `pages` pages more than now; None: as many as you like."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages: int | None = None
        plain = schema.open_writer

        def open_writer(path: str, **options: Any) -> sqlite3.Connection:
            connection = plain(path, **options)
            if self.pages is not None:
                used = connection.execute("PRAGMA page_count").fetchone()[0]
                connection.execute(f"PRAGMA max_page_count={used + self.pages}")
            return connection

        monkeypatch.setattr(committer, "open_writer", open_writer)


def _records(file: Path) -> tuple[int, set[int]]:
    """Return how many attempts at a model call are on record, and the payments that were begun."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        reserved = connection.execute("SELECT COUNT(*) FROM ag_ledger").fetchone()[0]
        begun = connection.execute("SELECT json_extract(args, '$.number') FROM ag_journal WHERE state != 'planned'").fetchall()
        return reserved, {number for (number,) in begun}


async def _finished(file: Path, done: list[int]) -> None:
    """Finish the turn as another process would, and see that nothing was paid twice."""
    after = Subject(file, done)
    run = await after.agent.run("pay", "r")
    assert (run.status, run.steps, run.turn) == ("complete", 3, 1)
    assert sorted({*after.done}) == sorted(after.done), "paid twice"
    unknown = [call.args["number"] for call in run.tool_calls if call.error and "OutcomeUnknown" in call.error]
    assert {*after.done, *unknown} == {0, 1}
    await after.storage.close()


@pytest.mark.crash
async def test_a_disk_that_fills_up_stops_a_turn_and_nothing_is_done_without_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    paid_before: set[int] = set()
    for pages in itertools.count(step=2):
        file = tmp_path / f"{pages}.db"
        schema.open_writer(str(file), durability="power", busy_s=BUSY_S).close()
        disk.pages = pages
        subject = Subject(file)
        [outcome] = await asyncio.gather(subject.agent.run("pay", "r"), return_exceptions=True)
        with contextlib.suppress(NotDurable):
            await subject.storage.close()
        reserved, begun = _records(file)
        assert subject.asked <= reserved, "a model was asked without its reservation on record"
        assert {*subject.done} <= begun, "a payment was made without its record"
        disk.pages = None
        if isinstance(outcome, AgentRun):
            assert (outcome.status, outcome.steps) == ("complete", 3)
            break
        assert isinstance(outcome, StorageError | NotDurable)
        assert "the disk is full" in str(outcome)
        paid_before.add(len(subject.done))
        await _finished(file, subject.done)
    assert paid_before == {0, 1, 2}, "it was full at every stage of a turn"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["model 0", "pay 0", "model 1", "pay 1", "model 2"])
async def test_a_foreign_lock_in_the_midst_of_a_turn_stops_it_and_it_goes_on_later(file: Path, foreign_lock: Any, moment: str) -> None:
    let_go: list[Callable[[], None]] = []
    after: list[str] = []

    def happens(what: str) -> None:
        if let_go:
            after.append(what)
        if what == moment:
            let_go.append(foreign_lock())

    subject = Subject(file, happens=happens)
    with pytest.raises((StorageError, NotDurable), match="another process holds it locked"):
        await subject.agent.run("pay", "r")
    assert after == [], "something was done although its record could not be written"
    let_go[0]()
    await subject.storage.close()
    await _finished(file, subject.done)
