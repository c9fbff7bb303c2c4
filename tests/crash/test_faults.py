"""The fault matrix, its fast column: whatever kills, cancels or interrupts an agent, nothing is lost and nothing done twice.

`make storm` runs the nightly column with the same functions and larger figures.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from agent_graph.testing import CrashReport
from tests.crash.scenario import TASK, make_agent

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

NOTHING: dict[str, Any] = {"failpoints": False, "pairs": 0, "kills": 0}
SEED = 20_260_000
Fuzz = Callable[..., CrashReport]


def test_killed_at_every_failpoint(crash_fuzz: Fuzz) -> None:
    report = crash_fuzz(make_agent, TASK, seed=SEED, **{**NOTHING, "failpoints": True})
    print(report)
    fell = report.total
    assert fell.kills >= 80
    assert {"model.before_call", "tool.before_effect", "tool.after_effect", "commit.after", "turn.before_return"} <= set(fell.places)
    assert fell.in_doubt > 0


def test_killed_at_a_failpoint_and_again_on_resume(crash_fuzz: Fuzz) -> None:
    report = crash_fuzz(make_agent, TASK, seed=SEED, **{**NOTHING, "pairs": 40})
    print(report)
    assert report.total.kills > report.total.runs > 0


def test_killed_at_random_instants_with_parallel_tools(crash_fuzz: Fuzz) -> None:
    report = crash_fuzz(make_agent, TASK, seed=SEED, **{**NOTHING, "kills": 300})
    print(report)
    fell = report.total
    assert fell.kills == 300
    assert fell.runs < 300, "several kills a run"
    assert 0 < fell.in_doubt_done < fell.in_doubt, "kills fell before and after the instant at which a tool touches the world"
    assert fell.settled_usd < fell.billed_usd, "kills fell into model calls"


def test_cancelled_at_an_await(crash_fuzz: Fuzz) -> None:
    report = crash_fuzz(make_agent, TASK, seed=SEED, **{**NOTHING, "awaits": True, "every": 5})
    print(report)
    assert report.total.kills >= 10


def test_ended_by_a_signal(crash_fuzz: Fuzz) -> None:
    report = crash_fuzz(make_agent, TASK, seed=SEED, **{**NOTHING, "signals": [signal.SIGINT, signal.SIGTERM], "every": 8})
    print(report)
    assert set(report.columns) == {"SIGINT at each 8th failpoint", "SIGTERM at each 8th failpoint"}
