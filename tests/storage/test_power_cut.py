"""A power cut: the platter holds the WAL up to the last sync, and behind it anything. Nothing acknowledged is lost, no call repeated.

A child runs one long turn of an agent and dies at its end. Each time a barrier answers, it notes how long the WAL is, and what was
on record. The WAL only grows meanwhile, so its beginning is what the platter held at that instant. Each case takes one barrier, cuts
the WAL somewhere behind it (truncated, zeroed, bits flipped, noise), and lets another process's agent find the file like that.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_graph import ProductionAgent
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

STEPS = 8
SEED = 20_261_125
PAY: dict[str, Any] = {"name": "pay", "idempotent": False}

WORK = """
import asyncio, json, os, sys
from pathlib import Path
from agent_graph.storage.port import JournalRow, LedgerRow
from agent_graph.storage.sqlite import SqliteStorage
from tests.storage.test_power_cut import agent_over

class Noting(SqliteStorage):
    journal_now, ledger_now = {}, {}

    def put(self, row, *, fence):
        super().put(row, fence=fence)
        if isinstance(row, JournalRow):
            self.journal_now[row.call_id] = row.state
        if isinstance(row, LedgerRow):
            self.ledger_now[row.entry] = row.state

    async def durable(self, key, *, fence=None):
        asked = {"journal": dict(self.journal_now), "ledger": dict(self.ledger_now)}
        await super().durable(key, fence=fence)
        size = os.stat(sys.argv[1] + "-wal").st_size
        with open(sys.argv[2], "a") as truth:
            truth.write(json.dumps({"wal": size, **asked}) + "\\n")

agent = agent_over(Noting(sys.argv[1]), [])
async def main():
    await agent.run("pay", "r")
asyncio.run(main())
os._exit(0)  # the file stays as it is: nothing is closed, so the WAL is not folded into it
"""


def agent_over(storage: SqliteStorage, done: list[int]) -> ProductionAgent:
    """Return an agent that pays at each step, with a result that takes a few pages."""

    def answer(messages: Any, tools: Any) -> Any:
        step = sum(message.role.value == "assistant" for message in messages)
        return call("pay", number=step) if step < STEPS else "Paid."

    def pay(number: int) -> str:
        done.append(number)
        return f"receipt {number} " * 200

    tools, memory = FakeTools({"pay": pay}), DictMemory()
    return ProductionAgent(ScriptedLLM([answer] * 50), [PAY], tools, memory, ListObservability(), {}, storage=storage)


@dataclass(frozen=True)
class Barrier:
    """One answer of `durable`: the length of the WAL then, and what was on record."""

    wal: int
    journal: dict[str, str]
    ledger: dict[str, str]


@dataclass(frozen=True)
class Recording:
    database: bytes
    wal: bytes
    barriers: list[Barrier]


@pytest.fixture
def recording(file: Path, tmp_path: Path, child: Callable[..., subprocess.Popen[str]]) -> Recording:
    truth = tmp_path / "truth.jsonl"
    process = child(WORK, file, truth)
    process.communicate(timeout=120)
    assert process.returncode == 0
    barriers = [Barrier(**json.loads(line)) for line in truth.read_text().splitlines()]
    wal = Path(f"{file}-wal").read_bytes()
    assert len(barriers) > 2 * STEPS
    assert [barrier.wal for barrier in barriers] == sorted(barrier.wal for barrier in barriers), "the WAL only grew"
    assert 0 < len(wal) < 1_000 * 4_096, "nothing of it was folded into the database meanwhile"
    return Recording(file.read_bytes(), wal, barriers)


def truncated(wal: bytes, begin: int, chance: random.Random) -> bytes:
    return wal[: chance.randrange(begin, len(wal) + 1)]


def zeroed(wal: bytes, begin: int, chance: random.Random) -> bytes:
    first = chance.randrange(begin, len(wal) + 1)
    last = chance.randrange(first, len(wal) + 1)
    return wal[:first] + bytes(last - first) + wal[last:]


def flipped(wal: bytes, begin: int, chance: random.Random) -> bytes:
    cut = bytearray(wal)
    for _ in range(chance.randrange(1, 9)):
        if begin < len(wal):
            cut[chance.randrange(begin, len(wal))] ^= 1 << chance.randrange(8)
    return bytes(cut)


def noisy(wal: bytes, begin: int, chance: random.Random) -> bytes:
    first = chance.randrange(begin, len(wal) + 1)
    return wal[:first] + chance.randbytes(chance.randrange(1, 9_000))


CUTS = (truncated, zeroed, flipped, noisy)


async def test_a_power_cut_loses_nothing_acknowledged_and_repeats_nothing(
    recording: Recording, tmp_path: Path, times: Callable[[int, int], int]
) -> None:
    for number in range(times(200, 5_000)):
        chance, cut = random.Random(f"{SEED} {number}"), CUTS[number % len(CUTS)]
        barrier = chance.choice(recording.barriers)
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(recording.database)
        Path(f"{copy}-wal").write_bytes(cut(recording.wal, barrier.wal, chance))
        await _judge(copy, barrier)


ORDER = ["planned", "started", "in_doubt", "succeeded"]
SETTLED = ["reserved", "unsettled", "settled"]


async def _judge(file: Path, barrier: Barrier) -> None:
    """Open the file, see that all that was acknowledged is in it, finish the turn, and see that nothing was paid again."""
    done: list[int] = []
    storage = SqliteStorage(file)
    [turn] = await storage.turns("default", "r")
    calls = await storage.journal(turn.key)
    journal = {row.call_id: row.state for row in calls}
    ledger = {row.entry: row.state for row in await storage.ledger(turn.key)}
    assert all(ORDER.index(journal[call_id]) >= ORDER.index(state) for call_id, state in barrier.journal.items())
    assert all(SETTLED.index(ledger[int(entry)]) >= SETTLED.index(state) for entry, state in barrier.ledger.items())
    [(verdict,)] = await storage.readers.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
    assert verdict == "ok"
    agent = agent_over(storage, done)
    begun = {json.loads(row.args)["number"] for row in calls if row.state != "planned"}
    if turn.status == "running":
        run = await agent.resume("r")
        assert (run.status, run.steps) == ("complete", STEPS + 1)
    assert {*done} == {*range(STEPS)} - begun, "each payment is made once: those that were begun are not begun again"
    assert len(done) == len({*done})
    await storage.close()
