"""Clocks that jump and outages that last: leases are neither stolen nor eternal, and time in which nobody worked is not counted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent_graph import ProductionAgent
from agent_graph.runtime import turn
from agent_graph.runtime.clock import SystemClock
from agent_graph.testing import CrashFound, CrashReport, World
from tests.crash.scenario import TASK, make_agent

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

HOUR_S = 3600.0
Fuzz = Callable[..., CrashReport]


def with_a_mad_wall_clock(world: World) -> ProductionAgent:
    """Whoever reads the wall clock is told the time, or an hour before it, or an hour after: in each process and at each look."""
    real, luck = time.time, random.Random(world.attempt)
    time.time = lambda: real() + luck.choice((-HOUR_S, 0.0, HOUR_S))  # in the child only
    return make_agent(world)


class Later(SystemClock):
    """Both clocks an outage further with each process: the machine was off, or the run lay in a queue."""

    def __init__(self, outage_s: float) -> None:
        self._outage_s = outage_s

    def monotonic(self) -> float:
        return super().monotonic() + self._outage_s

    def time(self) -> float:
        return super().time() + self._outage_s


def after_an_outage(world: World) -> ProductionAgent:
    return make_agent(world, clock=Later(HOUR_S * world.attempt), timeout_s=30)


@pytest.mark.parametrize("make", [with_a_mad_wall_clock, after_an_outage])
def test_time_is_what_was_worked(crash_fuzz: Fuzz, make: Any) -> None:
    report = crash_fuzz(make, TASK, seed=3, failpoints=True, every=12, pairs=0, kills=10)
    print(report)
    assert report.total.kills > 15


def test_an_outage_that_is_counted_is_found(crash_fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "used_s", lambda row, journal, ledger: HOUR_S)
    with pytest.raises(CrashFound, match="turn 1 is timeout; undisturbed it is complete"):
        crash_fuzz(after_an_outage, TASK, seed=3, failpoints=False, pairs=3, kills=0)
