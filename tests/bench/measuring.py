"""How is measured: CPU by paired rounds, fsyncs and bytes by counting.

CPU time is `time.process_time`: all threads of this process, the storage's too, waits not. A machine's speed drifts by half between
minutes, so no figure is compared with one of another minute: in each round every way runs its batch once, the next round in reverse
order, and what is reported is the median of the rounds' ratios.

fsyncs are counted, not timed: each COMMIT that changed something on a connection with `synchronous=FULL` syncs the WAL once. The
syncs of SQLite's own WAL checkpoints, two per 1,000 pages whoever writes them, are not counted. Bytes are those of the closed file,
less those of the file before the first run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import task
from tests.bench.ways import Run, Way

__all__ = ["Counts", "Paired", "counted", "paired"]

FULL = 2
"""What `PRAGMA synchronous` answers where each commit is synced."""


@contextlib.contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder) / "runs.db"


async def _batch(run: Run, *, concurrency: int, steps: int, batches: int) -> None:
    for batch in range(batches):
        outputs = await asyncio.gather(*(run(f"run-{batch}-{number}", steps) for number in range(concurrency)))
        assert outputs == [task.answer(steps)] * concurrency, outputs


# -- CPU ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paired:
    """CPU milliseconds a step of several ways, one entry a round."""

    rounds: Mapping[str, Sequence[float]]

    def ms(self, way: Way) -> float:
        """Return the median CPU of a step, in milliseconds."""
        return median(self.rounds[way.name])

    def ratio(self, way: Way, to: Way) -> float:
        """Return the median of the rounds' ratios of `way` to `to`."""
        return median(one / other for one, other in zip(self.rounds[way.name], self.rounds[to.name], strict=True))

    def spread(self, way: Way, to: Way) -> tuple[float, float]:
        """Return the least and the largest of the rounds' ratios."""
        ratios = [one / other for one, other in zip(self.rounds[way.name], self.rounds[to.name], strict=True)]
        return min(ratios), max(ratios)


def paired(ways: Sequence[Way], *, concurrency: int, steps: int, rounds: int, batches: int = 1) -> Paired:
    """Run `batches` batches of `concurrency` tasks of `steps` steps by each way, `rounds` times, in alternating order."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else [*reversed(ways)]:
            found[way.name].append(asyncio.run(_cpu_ms(way, concurrency=concurrency, steps=steps, batches=batches)))
    return Paired(found)


async def _cpu_ms(way: Way, *, concurrency: int, steps: int, batches: int) -> float:
    with _file() as path:
        async with way.open(path) as run:
            await run("warm-up", 3)
            gc.collect()
            began = time.process_time()
            await _batch(run, concurrency=concurrency, steps=steps, batches=batches)
            return (time.process_time() - began) * 1_000 / (concurrency * steps * batches)


# -- fsyncs and bytes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted, a step."""

    fsyncs: float
    kilobytes: float


def counted(way: Way, *, concurrency: int, steps: int, batches: int = 1) -> Counts:
    """Return the fsyncs and the kilobytes (1,000 bytes) that a step leaves."""
    total = concurrency * steps * batches
    with _file() as path, _syncs() as syncs:
        asyncio.run(_opened(way, path))
        before = _bytes(path)
        syncs.count = 0
        asyncio.run(_opened(way, path, concurrency=concurrency, steps=steps, batches=batches))
        return Counts(syncs.count / total, (_bytes(path) - before) / 1_000 / total)


async def _opened(way: Way, path: Path, **batch: int) -> None:
    async with way.open(path) as run:
        await (_batch(run, **batch) if batch else run("warm-up", 1))


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


class _Syncs:
    count = 0


@contextlib.contextmanager
def _syncs() -> Iterator[_Syncs]:
    """Count the commits that sync, on every connection opened meanwhile."""
    syncs, connect = _Syncs(), sqlite3.connect

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(_watch(connection, syncs))
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]  # put back below
    try:
        yield syncs
    finally:
        sqlite3.connect = connect


def _watch(connection: sqlite3.Connection, syncs: _Syncs) -> Any:
    level, seen = connection.execute("PRAGMA synchronous").fetchone()[0], connection.total_changes

    def traced(statement: str) -> None:
        nonlocal level, seen
        words = statement.split("=")
        if words[0].strip().upper() == "PRAGMA SYNCHRONOUS" and len(words) == 2:
            level = {"OFF": 0, "NORMAL": 1, "FULL": FULL}[words[1].strip().upper()]
        elif statement.startswith("COMMIT") and connection.total_changes != seen:
            seen = connection.total_changes
            syncs.count += level >= FULL

    return traced
