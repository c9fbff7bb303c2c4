"""The figures as markdown."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version

from tests.bench.figures import WAYS, Figure, Measured
from tests.bench.measuring import Paired
from tests.bench.ways import OURS

__all__ = ["report"]

PACKAGES = ("langgraph", "langchain", "langchain-core", "langgraph-checkpoint-sqlite")


def report(measured: Measured) -> str:
    """Return the two tables, and what they were measured with."""
    return "\n".join([*_goals(measured), "", *_ways(measured), "", _made_with()])


def _goals(measured: Measured) -> Iterator[str]:
    yield "| what | stock LangGraph | agent_graph | goal | |"
    yield "| --- | --- | --- | --- | --- |"
    for figure in measured.figures:
        goal = "–" if figure.goal is None else f"≤ {figure.goal:g}{figure.unit}"
        mark = "" if figure.goal is None else "reached" if figure.reached else "**missed**"
        yield f"| {figure.what} | {figure.stock} | {_number(figure)} | {goal} | {mark} |"


def _number(figure: Figure) -> str:
    digits = 0 if figure.ours >= 10 else 2
    return f"{figure.ours:.{digits}f}{figure.unit}" if figure.ours >= 0.1 else f"{figure.ours:.3f}{figure.unit}"


def _ways(measured: Measured) -> Iterator[str]:
    cpu_columns = "CPU ms a step: alone | 10 at once | 100 at once | against agent_graph, 10 at once"
    yield f"| way | {cpu_columns} | fsyncs a step: alone | 100 at once | KB a step: 10 | 50 | 200 steps |"
    yield f"|{' --- |' * 10}"
    for way in WAYS:
        crowd, disk = measured.crowd.get(way.name), measured.disk.get(way.name)
        cells = [way.name, *(_ms(cpu, way.name) for cpu in (measured.lone, measured.ten, measured.hundred))]
        least, most = measured.ten.spread(way, OURS)
        cells.append(f"{measured.ten.ratio(way, OURS):.2f} ({least:.2f}-{most:.2f})")
        cells += [f"{disk[10].fsyncs:.2f}" if disk else "–", f"{crowd.fsyncs:.2f}" if crowd else "–"]
        cells += [f"{disk[steps].kilobytes:.1f}" if disk else "–" for steps in (10, 50, 200)]
        yield f"| {' | '.join(cells)} |"


def _ms(cpu: Paired | None, way: str) -> str:
    return "–" if cpu is None else f"{sorted(cpu.rounds[way])[len(cpu.rounds[way]) // 2]:.2f}"


def _made_with() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    system = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.machine()}"
    return f"{packages}; {system}, {os.cpu_count()} cores."
