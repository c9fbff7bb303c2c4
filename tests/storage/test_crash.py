"""kill -9 at random instants: what a barrier answered for is there, in order; the rest is a prefix of what was queued.

The ground truth is outside the storage: the child writes down in a file of its own, with one O_APPEND write each, what it is about
to queue and what a barrier has answered for.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_graph.storage.sqlite import SqliteStorage

WORK = """
import asyncio, os, random, sys
from langgraph.checkpoint.base import empty_checkpoint
from agent_graph.storage.port import JournalRow, LedgerRow, TurnRequest
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.types import Message, MessageRole

truth = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(*words):
    os.write(truth, (" ".join(map(str, words)) + "\\n").encode())

async def work(storage, run):
    request = TurnRequest(namespace="default", run_id=run, agent="agent", input="hello", request_id=None, fingerprint="",
                          on_unfinished="conflict")
    claim = await storage.claim(request, asyncio.current_task())
    assert claim.outcome in ("new", "resume"), claim
    say("claimed", run, claim.turn.key.turn)
    key, fence = claim.turn.key, claim.fence
    messages = await storage.load_memory("default", run)
    step = len(messages)  # what a step queues last
    config = {"configurable": {"thread_id": run, "checkpoint_ns": ""}}
    while True:
        step += 1
        storage.put(LedgerRow(key=key, entry=step, step=step, kind="step", attempt=1, model="m", state="reserved",
                              bound_nusd=1), fence=fence)
        config = await storage.checkpointer.aput(config, {**empty_checkpoint(), "id": f"{step:08}"}, {"step": step}, {})
        await storage.checkpointer.aput_writes(config, [("a", step), ("b", step)], "task")
        storage.put(JournalRow(key=key, call_key=f"{step:032}", step=step, index=0, call_id="c", tool="t", args="{}", idempotent=False,
                               state="started"), fence=fence)
        messages.append(Message(MessageRole.USER, str(step)))
        await storage.save_memory("default", run, messages)
        if random.random() < 0.5:
            await storage.durable(key)
            say("durable", run, step)
        elif random.random() < 0.2:
            await asyncio.sleep(0.03)  # longer than rows linger

async def main():
    random.seed(int(sys.argv[3]))
    storage = SqliteStorage(sys.argv[1], durability=sys.argv[4])
    await asyncio.gather(*(work(storage, f"run{i}") for i in range(3)))
asyncio.run(main())
"""


async def check(file: Path, truth: Path) -> int:
    """Compare the file with the truth; return how many barriers were answered."""
    said = [line.split() for line in truth.read_text().splitlines()] if truth.exists() else []
    acknowledged = {
        f"run{i}": max([int(s) for what, run, s in said if what == "durable" and run == f"run{i}"], default=0) for i in range(3)
    }
    storage = SqliteStorage(file)
    for run, least in acknowledged.items():
        turns = await storage.turns("default", run)
        assert len(turns) <= 1
        assert turns or not any(what == "claimed" and r == run for what, r, _ in said)
        if not turns:
            continue
        ledger = [row.entry for row in await storage.ledger(turns[0].key)]
        journal = [row.step for row in await storage.journal(turns[0].key)]
        checkpoints = [t async for t in storage.checkpointer.alist({"configurable": {"thread_id": run}})]
        numbers = sorted(t.metadata["step"] for t in checkpoints)
        written = sorted(t.metadata["step"] for t in checkpoints if len(t.pending_writes or []) == 2)
        memory = len(await storage.load_memory("default", run))
        kinds = [len(ledger), len(numbers), len(written), len(journal), memory]  # in the order in which a step queues them
        assert ledger == list(range(1, len(ledger) + 1))
        assert numbers == list(range(1, len(numbers) + 1))
        assert written == list(range(1, len(written) + 1))
        assert journal == list(range(1, len(journal) + 1))
        assert kinds == sorted(kinds, reverse=True)
        assert kinds[0] - kinds[-1] <= 1
        assert kinds[-1] >= least
    assert {turn.key.run_id for turn in await storage.unfinished("default", "agent")} == {turn.key.run_id for turn in await storage.runs()}
    await storage.close()
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return sum(acknowledged.values())


def storm(folder: Path, child: Callable[..., subprocess.Popen[str]], *, kills: int, durability: str) -> None:
    luck = random.Random(kills)
    file, truth = folder / "runs.db", folder / "truth"
    barriers = 0
    for number in range(kills):
        process = child(WORK, file, truth, number, durability)
        size = truth.stat().st_size if truth.exists() else 0
        while not truth.exists() or truth.stat().st_size == size:
            assert process.poll() is None, "the child ended by itself"
            time.sleep(0.005)  # the imports are over once it says its first word
        time.sleep(luck.uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        barriers = asyncio.run(check(file, truth))
    assert barriers > kills


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path, child: Any, durability: str) -> None:
    storm(tmp_path, child, kills=6, durability=durability)


@pytest.mark.crash
@pytest.mark.timeout(1200)
def test_a_storm_of_kills_loses_nothing_that_was_acknowledged(tmp_path: Path, child: Any) -> None:
    storm(tmp_path, child, kills=150, durability="power")
