"""Every figure: what it is, what is measured for it, and what it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench import processes
from tests.bench.engine import ENGINE
from tests.bench.floor import FLOOR
from tests.bench.measuring import Counts, Paired, counted, paired
from tests.bench.ways import (
    BARE,
    BARE_SAVED,
    HOOKED,
    HOOKED_ASYNC,
    HOOKED_SAVED,
    MODEL_S,
    ONCE,
    OURS,
    TOOL_S,
    TUNED,
    Way,
)

__all__ = ["DISK", "FSYNCS", "FSYNCS_CROWD", "FSYNCS_ONCE", "GROWTH_DISK", "Effort", "Figure", "measured"]

# What is held to; tests/bench/test_counts.py holds the counted ones in each test run.
FSYNCS, FSYNCS_ONCE, FSYNCS_CROWD = 2.1, 3.0, 0.1
DISK, GROWTH_DISK = 5.5, 1.1
HEADLINE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often each thing is measured."""

    counted: Sequence[Way]
    """Whose fsyncs and bytes are counted: stock's many fsyncs take their time."""
    rounds: int
    crowd_rounds: int
    lone_batches: int
    growth_rounds: int
    growth_runs: int
    processes: int
    waiting: bool
    """Whether the task that really waits (12 s) is run."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    stock: str
    """The same of stock LangGraph, or a dash."""
    ours: float
    goal: float | None
    """The most that it may be; None where nothing is promised."""
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the goal is reached, at the precision that is shown."""
        return self.goal is None or float(f"{self.ours:.3g}") <= self.goal


WAYS = (OURS, ENGINE, FLOOR, BARE, HOOKED, BARE_SAVED, HOOKED_SAVED, HOOKED_ASYNC)
SAVED = (OURS, ENGINE, FLOOR, BARE_SAVED, HOOKED_SAVED, HOOKED_ASYNC)
LENGTHS = (10, 50, 200)
"""Steps of the runs whose bytes are counted."""

FULL = Effort(counted=SAVED, rounds=9, crowd_rounds=3, lone_batches=2, growth_rounds=5, growth_runs=20, processes=5, waiting=True)
QUICK = Effort(counted=(OURS,), rounds=2, crowd_rounds=0, lone_batches=1, growth_rounds=1, growth_runs=10, processes=1, waiting=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured."""

    figures: Sequence[Figure]
    lone: Paired
    ten: Paired
    hundred: Paired | None
    disk: Mapping[str, Mapping[int, Counts]]
    crowd: Mapping[str, Counts]


def measured(effort: Effort, say: Callable[[str], None]) -> Measured:
    """Measure everything; `say` is told what is going on."""
    say("counting fsyncs and bytes")
    disk = {
        way.name: {steps: counted(way, concurrency=1, steps=steps, batches=200 // steps) for steps in LENGTHS} for way in effort.counted
    }
    crowd = {way.name: counted(way, concurrency=100, steps=10) for way in effort.counted}
    once = counted(ONCE, concurrency=1, steps=10, batches=5)
    say("CPU: ten runs at once")
    ten = paired(WAYS, concurrency=10, steps=10, rounds=effort.rounds)
    say("CPU: a run alone")
    lone = paired(WAYS, concurrency=1, steps=50, rounds=effort.rounds, batches=effort.lone_batches)
    hundred = tuned = None
    if effort.crowd_rounds:
        say("CPU: a hundred runs at once")
        hundred = paired(WAYS, concurrency=100, steps=10, rounds=effort.crowd_rounds)
        # long enough for the collector's slow round, which comes once in some hundred steps, to come several times
        tuned = paired([OURS, TUNED], concurrency=10, steps=10, rounds=effort.crowd_rounds, batches=30)
    say("CPU a step, 10 against 200 steps")
    growth = {way.name: _growth(way, effort) for way in (OURS, BARE_SAVED) if way in effort.counted}
    say("resuming, importing" + (", waiting" if effort.waiting else ""))
    figures = [*_counts(disk, crowd, once), *_cpu(lone, ten, hundred, tuned, growth), *_processes(effort)]
    return Measured(figures, lone, ten, hundred, disk, crowd)


def _growth(way: Way, effort: Effort) -> float:
    """Return how many times the CPU of a step in a run of 200 steps is that in a run of 10."""
    ratios = []
    for _ in range(effort.growth_rounds):
        short = paired([way], concurrency=1, steps=10, rounds=1, batches=effort.growth_runs).ms(way)
        ratios.append(paired([way], concurrency=1, steps=200, rounds=1).ms(way) / short)
    return sorted(ratios)[len(ratios) // 2]


def _counts(disk: Mapping[str, Mapping[int, Counts]], crowd: Mapping[str, Counts], once: Counts) -> Iterator[Figure]:
    ours, stock = disk[OURS.name], disk.get(HOOKED_SAVED.name)
    alone = f"{stock[10].fsyncs:.2f}" if stock else "–"
    yield Figure("fsyncs a step, a run alone", alone, ours[10].fsyncs, FSYNCS)
    yield Figure("fsyncs a step, a run alone, tool not idempotent", alone, once.fsyncs, FSYNCS_ONCE)
    at_once = f"{crowd[HOOKED_SAVED.name].fsyncs:.2f}" if stock else "–"
    yield Figure("fsyncs a step, 100 runs at once", at_once, crowd[OURS.name].fsyncs, FSYNCS_CROWD)
    for steps in (10, 200):
        size = f"{stock[steps].kilobytes:.0f} KB" if stock else "–"
        yield Figure(f"disk a step, a run of {steps} steps", size, ours[steps].kilobytes, DISK, " KB")
    grown = f"{stock[200].kilobytes / stock[10].kilobytes:.1f}×" if stock else "–"
    yield Figure("disk a step, 200 steps against 10", grown, ours[200].kilobytes / ours[10].kilobytes, GROWTH_DISK, "×")


def _cpu(lone: Paired, ten: Paired, hundred: Paired | None, tuned: Paired | None, growth: Mapping[str, float]) -> Iterator[Figure]:
    named = [("10 runs at once", ten), *([("100 runs at once", hundred)] if hundred else []), ("a run alone", lone)]
    for name, cpu in named:
        yield Figure(f"CPU against {HOOKED_SAVED.name}; {name}", "1", cpu.ratio(OURS, HOOKED_SAVED), HEADLINE, "×")
    for name, cpu in named:
        yield Figure(f"CPU against {BARE_SAVED.name}; {name}", "1", cpu.ratio(OURS, BARE_SAVED), 0.45 if cpu is lone else 0.32, "×")
    for name, cpu in named[:-1]:
        yield Figure(f"CPU against {HOOKED.name}; {name}", "1", cpu.ratio(OURS, HOOKED), 1.0 if cpu is hundred else 1.2, "×")
    floor = f"{ten.ratio(HOOKED_SAVED, FLOOR):.1f}×"
    yield Figure(f"CPU against the {FLOOR.name}; 10 runs at once", floor, ten.ratio(OURS, FLOOR), 2.5, "×")
    if tuned is not None:
        yield Figure("CPU with the garbage collector tuned, against without; 10 runs at once", "–", tuned.ratio(TUNED, OURS), None, "×")
    stock = growth.get(BARE_SAVED.name)
    yield Figure("CPU a step, 200 steps against 10", f"{stock:.2f}×" if stock else "–", growth[OURS.name], 1.2, "×")


def _processes(effort: Effort) -> Iterator[Figure]:
    stock, ours = (processes.resume_ms(way, steps=200, rounds=effort.processes) for way in ("stock", "ours"))
    yield Figure("resume of a run killed in its 200th step, to its first action", f"{stock:.0f} ms", ours, 50, " ms")
    for module, to, goal in (("agent_graph", "langgraph.graph", 0.15), ("agent_graph.agent", "langchain.agents", None)):
        ratio = processes.import_ratio(module, to, rounds=effort.processes)
        yield Figure(f"CPU of `import {module}` against `import {to}`", "1", ratio, goal, "×")
    if effort.waiting:
        stock, ours = (processes.p95_ratio(way, rounds=effort.processes) for way in ("stock", "ours"))
        what = f"P95 of a {processes.STEPS}-step task, model {MODEL_S:g} s, tool {TOOL_S:g} s, 100 at once"
        waits = f"against the sum of its waits, {processes.WAITS_S:.1f} s (stock: {HOOKED.name}, nothing saved)"
        yield Figure(f"{what}: {waits}", f"{stock:.2f}×", ours, 1.1, "×")
