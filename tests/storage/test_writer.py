"""The writer: order, group commit, and that nothing ever hangs. What disks, locks and lost files do to it: test_writer_faults.py."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.errors import NotDurable, StorageError
from agent_graph.storage import writer as module
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.writer import Writer
from tests.storage.writing import NOTE, integrity, lock, notes, unguarded

BAD = "INSERT INTO ag_meta VALUES ('fence', 1)"  # breaks the primary key


async def test_nothing_is_opened_before_the_first_use(file: Path) -> None:
    Writer(lambda: str(file), unguarded, durability="power", busy_s=1.0)
    assert not file.exists()


async def test_put_does_not_wait_and_durable_does(writer: Writer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_TICKS", 10**9)  # else a pause between two rows makes the idle writer sync, and two syncs of one
    attempt = Attempt("n", "r", 1)
    for step in range(100):
        writer.put(attempt, NOTE, ("r", step))
    await writer.durable(attempt)
    assert notes(file) == [("r", step) for step in range(100)]
    assert writer.syncs == 1


async def test_a_barrier_costs_nothing_when_all_is_on_disk(writer: Writer) -> None:
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    await writer.durable(attempt)
    before = (writer.commits, writer.syncs)
    for _ in range(10):
        await writer.durable(attempt)
    assert (writer.commits, writer.syncs) == before


async def test_many_barriers_share_one_sync(writer: Writer) -> None:
    attempts = [Attempt("n", f"r{i}", 1) for i in range(100)]
    writer.crowd = lambda: True

    async def run(attempt: Attempt) -> None:
        for step in range(10):
            writer.put(attempt, NOTE, (attempt.run_id, step))
            await writer.durable(attempt)

    await asyncio.gather(*map(run, attempts))
    assert writer.syncs <= 100  # 1,000 barriers; each round of 100 takes a few syncs at most


async def test_rows_that_nobody_waits_for_are_written_soon_and_cost_no_sync_of_their_own(
    writer: Writer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt("n", "r", 1)
    monkeypatch.setattr(module, "_IDLE_TICKS", 10**9)  # however long this test is not scheduled, the writer syncs nothing by itself
    await writer.run(lambda connection: None)
    writer.put(attempt, NOTE, ("r", 1))
    while not notes(file):
        await asyncio.sleep(0.01)
    assert notes(file) == [("r", 1)]
    assert writer.syncs == 0  # a killed process loses nothing of it; the next barrier syncs it
    await writer.durable(attempt)
    assert writer.syncs == 1


async def test_an_idle_writer_syncs_what_it_committed_without(writer: Writer) -> None:
    writer.put(Attempt("n", "r", 1), NOTE, ("r", 1))
    while not writer.syncs:
        await asyncio.sleep(0.02)
    assert writer.syncs == 1


async def test_a_bad_row_breaks_its_own_attempt_only(writer: Writer, file: Path) -> None:
    good, bad = Attempt("n", "good", 1), Attempt("n", "bad", 1)
    writer.put(good, NOTE, ("good", 1))
    writer.put(bad, NOTE, ("bad", 1))
    writer.put(bad, BAD, ())
    writer.put(bad, NOTE, ("bad", 2))
    writer.put(good, NOTE, ("good", 2))
    await writer.durable(good)
    assert notes(file) == [("good", 1), ("bad", 1), ("good", 2)]
    for _ in range(3):
        with pytest.raises(NotDurable, match="UNIQUE"):
            await writer.durable(bad)
        with pytest.raises(NotDurable):
            writer.put(bad, NOTE, ("bad", 3))
    writer.put(good, NOTE, ("good", 3))
    await writer.durable(good)
    assert notes(file)[-1] == ("good", 3)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [(NOTE, ("r", 2**80)), (NOTE, ("r", object())), (NOTE, ("\ud800", 1)), (NOTE, ("r",)), ("no SQL", ())],
    ids=["too large", "no such type", "surrogate", "too few", "syntax"],
)
async def test_whatever_is_wrong_with_a_row_is_told(writer: Writer, sql: str, parameters: tuple[Any, ...]) -> None:
    attempt, other = Attempt("n", "r", 1), Attempt("n", "o", 1)
    writer.put(attempt, sql, parameters)
    writer.put(other, NOTE, ("o", 1))
    await writer.durable(other)
    with pytest.raises(NotDurable):
        await writer.durable(attempt)


async def test_half_of_several_rows_is_never_kept(writer: Writer, file: Path) -> None:
    """LangGraph takes a task for finished once any of its writes is stored."""
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, [("r", 1), ("r", 2), ("r", 2**80)], many=True)
    with pytest.raises(NotDurable):
        await writer.durable(attempt)
    assert notes(file) == []


async def test_a_job_that_fails_fails_alone(writer: Writer, file: Path) -> None:
    attempt = Attempt("n", "r", 1)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute(NOTE, ("job", 1))
        raise KeyError("no")

    writer.put(attempt, NOTE, ("r", 1))
    with pytest.raises(KeyError):
        await writer.run(half)
    await writer.durable(attempt)
    assert notes(file) == [("r", 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["row", "rows", "bad", "barrier"])), max_size=40))
def test_the_file_holds_each_attempts_records_in_order_up_to_its_failure(tmp_path_factory: Any, actions: list[tuple[int, str]]) -> None:
    file = tmp_path_factory.mktemp("order") / "runs.db"

    async def play() -> tuple[list[tuple[str, int]], list[Attempt]]:
        writer = Writer(lambda: str(file), unguarded, durability="process", busy_s=5.0)
        attempts = [Attempt("n", str(i), 1) for i in range(4)]
        expected: list[tuple[str, int]] = []
        failed: set[int] = set()
        await writer.run(lambda connection: None)
        for step, (who, what) in enumerate(actions):
            attempt = attempts[who]
            try:
                match what:
                    case "row":
                        writer.put(attempt, NOTE, (str(who), step))
                    case "rows":
                        writer.put(attempt, NOTE, [(str(who), step), (str(who), step)], many=True)
                    case "bad":
                        writer.put(attempt, BAD, ())
                    case "barrier":
                        await writer.durable(attempt)
            except NotDurable:
                assert who in failed
                continue
            assert not (what == "barrier" and who in failed)
            if what == "bad":
                failed.add(who)
            elif who not in failed and what != "barrier":
                expected += [(str(who), step)] * (2 if what == "rows" else 1)
        writer.stop()
        assert await asyncio.to_thread(writer.join, 10)
        return expected, attempts

    expected, _ = asyncio.run(play())
    assert notes(file) == expected


async def test_several_loops_and_threads_share_one_writer(writer: Writer, file: Path) -> None:
    """LangGraph's own saver is bound to one loop, and poisoned for good once two contend."""
    failures: list[BaseException] = []

    def thread(name: str) -> None:
        async def run() -> None:
            attempt = Attempt("n", name, 1)
            for step in range(20):
                writer.put(attempt, NOTE, (name, step))
                await writer.durable(attempt)
                assert (name, step) in notes(file)

        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(f"t{i}",)) for i in range(6)]
    for one in threads:
        one.start()
    attempt = Attempt("n", "main", 1)
    for step in range(20):
        writer.put(attempt, NOTE, ("main", step))
        await writer.durable(attempt)
    for one in threads:
        await asyncio.to_thread(one.join)
    assert failures == []
    by_run = {run: [step for r, step in notes(file) if r == run] for run in {r for r, _ in notes(file)}}
    assert by_run == {name: list(range(20)) for name in ["main", *(f"t{i}" for i in range(6))]}


async def test_a_waiter_whose_loop_is_gone_harms_nobody(writer: Writer, file: Path) -> None:
    blocker = lock(file, writer)

    async def give_up() -> None:
        attempt = Attempt("n", "gone", 1)
        writer.put(attempt, NOTE, ("gone", 1))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(writer.durable(attempt), 0.05)

    await asyncio.to_thread(asyncio.run, give_up())
    blocker()
    attempt = Attempt("n", "r", 1)
    writer.put(attempt, NOTE, ("r", 1))
    await writer.durable(attempt)
    assert notes(file) == [("gone", 1), ("r", 1)]


async def test_stop_writes_what_is_queued_and_later_uses_are_refused(file: Path) -> None:
    writer = Writer(lambda: str(file), unguarded, durability="power", busy_s=1.0)
    attempt = Attempt("n", "r", 1)
    for step in range(5_000):
        writer.put(attempt, NOTE, ("r", step))
    writer.stop()
    assert await asyncio.to_thread(writer.join, 20)
    assert len(notes(file)) == 5_000
    with pytest.raises(StorageError, match="closed"):
        writer.put(attempt, NOTE, ("r", 1))
    with pytest.raises(StorageError, match="closed"):
        await writer.run(lambda connection: None)
    await writer.durable(attempt)  # all that was queued is on disk: still true


async def test_back_pressure_holds_a_writer_without_barriers(writer: Writer, file: Path) -> None:
    let_go = lock(file, writer)
    attempt = Attempt("n", "r", 1)
    for step in range(20_000):
        writer.put(attempt, NOTE, ("r", step))
    waiting = asyncio.ensure_future(writer.room())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    let_go()
    await waiting
    await writer.room()


@pytest.mark.slow
async def test_the_wal_stays_bounded_under_a_reader_that_never_lets_go(writer: Writer, file: Path) -> None:
    await writer.run(lambda connection: None)
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM ag_notes").fetchall()
    attempt = Attempt("n", "r", 1)
    big = (
        "INSERT OR REPLACE INTO ag_notes (id, namespace, run_id, turn, step, kind, body) VALUES (1, 'n', ?, 1, ?, 'k', randomblob(600000))"
    )
    wal = Path(f"{file}-wal")
    for step in range(100):
        writer.put(attempt, big, ("r", step))
        await writer.durable(attempt)
    assert wal.stat().st_size > 32 * 1024 * 1024  # the reader still needs it
    reader.execute("COMMIT")
    reader.close()
    for step in range(130):
        writer.put(attempt, NOTE, ("r", step))
        await writer.durable(attempt)
    assert wal.stat().st_size <= 16 * 1024 * 1024


AT_EXIT = """
import sys
from agent_graph.storage import writer as module
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.writer import Writer
writer = Writer(lambda: sys.argv[1], lambda c, a: None, durability="power", busy_s=3600.0)
attempt = Attempt("n", "r", 1)
for step in range(1000):
    writer.put(attempt, "INSERT INTO ag_notes (namespace, run_id, turn, step, kind, body) VALUES ('n', 'r', 1, ?, 'k', '')", (step,))
"""


def test_the_interpreters_exit_writes_what_is_queued(file: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    process = child(AT_EXIT, file)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [step for _, step in notes(file)] == list(range(1000))


@pytest.mark.slow
def test_the_interpreters_exit_never_hangs(file: Path, writer: Writer, child: Callable[..., subprocess.Popen[str]]) -> None:
    let_go = lock(file, writer)
    process = child(AT_EXIT, file)
    process.communicate(timeout=100)  # its busy limit is an hour
    assert process.returncode == 0
    let_go()


FORK = """
import asyncio, os, sys
from agent_graph.storage import writer as module
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.writer import Writer
SQL = "INSERT INTO ag_notes (namespace, run_id, turn, step, kind, body) VALUES ('n', ?, 1, ?, 'k', '')"
async def write(writer, name, n):
    attempt = Attempt("n", name, 1)
    for step in range(n):
        writer.put(attempt, SQL, (name, step))
        await writer.durable(attempt)
writer = Writer(lambda: sys.argv[1], lambda c, a: None, durability="power", busy_s=3600.0)
asyncio.run(write(writer, "before", 3))
writer.put(Attempt("n", "queued", 1), SQL, ("queued", 0))
child = os.fork()
asyncio.run(write(writer, "child" if child == 0 else "parent", 20))
writer.stop()
assert writer.join(20)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_writer_of_its_own(file: Path, child: Callable[..., subprocess.Popen[str]]) -> None:
    process = child(FORK, file)
    process.communicate(timeout=60)
    assert process.returncode == 0
    steps = [run for run, _ in notes(file)]
    assert {run: steps.count(run) for run in steps} == {"before": 3, "queued": 1, "parent": 20, "child": 20}
    assert integrity(file) == "ok"


async def test_process_durability_never_syncs(file: Path) -> None:
    writer = Writer(lambda: str(file), unguarded, durability="process", busy_s=1.0)
    attempt = Attempt("n", "r", 1)
    for step in range(5):
        writer.put(attempt, NOTE, ("r", step))
        await writer.durable(attempt)
    assert await writer.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (1,)
    assert (writer.syncs, writer.commits) == (0, 6)
    writer.stop()
    assert writer.join(10)


async def test_a_power_cut_after_a_barrier_loses_nothing_of_it(writer: Writer, file: Path, tmp_path: Path) -> None:
    """What the platter holds is the WAL at the last sync: cut there, the file must hold all that barriers answered for."""
    attempt = Attempt("n", "r", 1)
    for step in itertools.count():
        writer.put(attempt, NOTE, ("r", step))
        await writer.durable(attempt)
        if step in {0, 3, 9}:
            copy = tmp_path / f"copy{step}"
            copy.mkdir()
            for one in (file, Path(f"{file}-wal")):
                (copy / one.name).write_bytes(one.read_bytes())
            with (copy / "runs.db-wal").open("ab") as wal:
                wal.write(b"\xff" * 700)  # a torn frame behind it
            assert [s for _, s in notes(copy / "runs.db")] == list(range(step + 1))
        if step == 9:
            return
