"""Who works on a run: of eight contenders one; of a zombie and its heir the heir; after a dead task, the next one at once.

Judged by what happened outside the program (`world.log`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from tests.crash import contender
from tests.stopping import stop

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
Times = Callable[[int, int], int]


def world(folder: Path) -> Counter[str]:
    return Counter((folder / "world.log").read_text().splitlines())


class Process:
    """A contender in another process."""

    def __init__(self, folder: Path, *more: str) -> None:
        command = [sys.executable, "-m", "tests.crash.contender", str(folder), *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)

    def tell(self, line: str) -> None:
        self._pipe(self.process.stdin).write(line + "\n")
        self._pipe(self.process.stdin).flush()

    def hear(self) -> str:
        return self._pipe(self.process.stdout).readline().strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                self._pipe(pipe).close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts contenders, and ends them after the test."""
    started: list[Process] = []

    def start(folder: Path = tmp_path, *more: str) -> Process:
        started.append(Process(folder, *more))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_of_eight_contenders_in_threads_and_processes_one_works(tmp_path: Path, process: Any, times: Times) -> None:
    others = [process() for _ in range(4)]
    assert [other.hear() for other in others] == ["ready"] * 4
    agents = [contender.agent_in(tmp_path, pay_s=0.01) for _ in range(2)]
    rounds = times(50, 1_000)
    same = {"status": "complete", "turn": 1, "output": "It is paid.", "calls": 1, "steps": 2}
    with ThreadPoolExecutor(4) as pool:
        for number in range(rounds):
            asked = (f"run{number}", f"purpose{number}", "job")
            together = threading.Barrier(5)

            def contend(thread: int, asked: tuple[str, str, str] = asked, together: threading.Barrier = together) -> dict[str, Any]:
                together.wait()
                return asyncio.run(contender.outcome(agents[thread % 2], *asked))

            here = [pool.submit(contend, thread) for thread in range(4)]
            for other in others:
                other.tell(" ".join(asked))
            together.wait()
            outcomes = [*[json.loads(other.hear()) for other in others], *[future.result() for future in here]]
            assert outcomes == [same] * 8, number
    happened = world(tmp_path)
    assert {happened[f"pay purpose{number}"] for number in range(rounds)} == {1}
    assert happened["model user"] == happened["model tool"] == rounds
    for agent in agents:
        asyncio.run(agent.aclose())


PLACES = ["model.before_reserve", "model.before_call", "tool.before_started", "tool.started", "turn.before_conclude"]
"""Where the zombie stands still: before each barrier, behind each, and before its last word."""
BEHIND_A_BARRIER = {"model.before_call", "tool.started"}


@pytest.mark.parametrize("place", PLACES)
async def test_a_zombie_writes_nothing(tmp_path: Path, process: Any, place: str, times: Times) -> None:
    for number in range(times(1, 40)):
        folder = tmp_path / str(number)
        folder.mkdir()
        zombie = process(folder, place)
        assert zombie.hear() == f"at {place}"
        stop(zombie.process.pid, folder / "runs.db")  # its lease runs out, as it does when a machine sleeps
        heir = contender.agent_in(folder)
        run = await heir.run("rent", "r")
        assert (run.status, run.turn) == ("complete", 1)
        before, rows = world(folder), _rows(folder)
        os.kill(zombie.process.pid, signal.SIGCONT)
        zombie.tell("go on")
        assert json.loads(zombie.hear()) == {"error": "LeaseLost"}
        assert _rows(folder) == rows, "a zombie wrote"
        assert world(folder)["pay rent"] <= 1, "the zombie paid, and so did its heir"
        assert (world(folder) - before).total() <= (place in BEHIND_A_BARRIER), "it did more than what it had begun"
        assert await heir.get("r") == run
        await heir.aclose()
        zombie.end()


def _rows(folder: Path) -> dict[str, list[Any]]:
    with contextlib.closing(sqlite3.connect(folder / "runs.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'ag_meta'")]
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in names}


DEAD = """
import asyncio, os, sys, threading
from pathlib import Path
from tests.crash.contender import agent_in

def abandon(agent, folder):
    loop = asyncio.new_event_loop()
    task = loop.create_task(agent.run("rent", "r"))
    async def until_it_pays():
        while "pay rent" not in (folder / "world.log").read_text().splitlines():
            await asyncio.sleep(0.005)
    loop.run_until_complete(until_it_pays())
    loop.close()
    return task

for folder in map(Path, sys.argv[1:]):
    agent, tasks = agent_in(folder, pay_s=3600), []
    thread = threading.Thread(target=lambda: tasks.append(abandon(agent, folder)))
    thread.start()
    thread.join()
    run = asyncio.run(asyncio.wait_for(agent_in(folder).run("rent", "r"), 20))
    print(run.status, run.turn, len(run.tool_calls), flush=True)
os._exit(0)
"""


def test_a_dead_task_in_a_living_process_is_taken_over_at_once(tmp_path: Path, times: Times) -> None:
    """A loop that was closed under a turn. Twenty seconds are less than a lease lasts by itself."""
    folders = [tmp_path / str(number) for number in range(times(5, 100))]
    for folder in folders:
        folder.mkdir()
    done = subprocess.run([sys.executable, "-c", DEAD, *map(str, folders)], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["complete 1 1"] * len(folders), done.stderr
    assert [world(folder)["pay rent"] for folder in folders] == [1] * len(folders)
