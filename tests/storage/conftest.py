"""What the storage's tests share: storages that are closed in the end, and rows and requests with one thing changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_graph.storage.port import Claim, JournalRow, LedgerRow, NoteRow, TurnKey, TurnRequest
from agent_graph.storage.sqlite import SqliteStorage
from agent_graph.storage.writer import Writer
from tests.storage.writing import unguarded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def make(file: Path) -> AsyncIterator[Callable[..., SqliteStorage]]:
    """Returns storages over one file, and closes them."""
    made: list[SqliteStorage] = []

    def storage(path: Any = file, **settings: Any) -> SqliteStorage:
        made.append(SqliteStorage(path, **settings))
        return made[-1]

    yield storage
    for one in made:
        await one.close()


@pytest.fixture
def storage(make: Callable[..., SqliteStorage]) -> SqliteStorage:
    return make()


@pytest.fixture
def writer(file: Path) -> Iterator[Writer]:
    writer = Writer(lambda: str(file), unguarded, durability="power", busy_s=5.0)
    yield writer
    writer.stop()
    assert writer.join(10)


class Rows:
    """Requests and rows with defaults, so that a test names only what it is about."""

    @staticmethod
    def request(text: str | None = "hello", run_id: str = "r", **other: Any) -> TurnRequest:
        base = TurnRequest(
            namespace="default", run_id=run_id, agent="agent", input=text, request_id=None, fingerprint="f", on_unfinished="conflict"
        )
        return replace(base, **other)

    @staticmethod
    def ledger(key: TurnKey, entry: int, **other: Any) -> LedgerRow:
        base = LedgerRow(key=key, entry=entry, step=entry, kind="step", attempt=1, model="m", state="reserved", bound_nusd=7)
        return replace(base, **other)

    @staticmethod
    def journal(key: TurnKey, number: int, **other: Any) -> JournalRow:
        base = JournalRow(
            key=key, call_key=f"{number:032x}", step=number, index=0, call_id=f"c{number}", tool="t", args="{}", idempotent=False,
            state="started",
        )  # fmt: skip
        return replace(base, **other)

    @staticmethod
    def note(key: TurnKey, number: int) -> NoteRow:
        return NoteRow(key=key, step=number, kind="note", body=str(number))


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def begin(rows: type[Rows]) -> Callable[..., Any]:
    """Claims a new turn for the running task and returns the claim."""

    async def claim(storage: SqliteStorage, run_id: str = "r", **other: Any) -> Claim:
        claim = await storage.claim(rows.request(run_id=run_id, **other), asyncio.current_task())
        assert claim.outcome == "new"
        assert claim.turn is not None
        return claim

    return claim


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts another Python with this project importable; what still runs in the end is killed, and every pipe closed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object, **settings: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()  # a stopped one, too
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
