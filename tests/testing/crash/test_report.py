"""The report: its sums, its table, and what is said where something is broken."""

from __future__ import annotations

import pickle
from decimal import Decimal

from agent_graph.testing.crash.judging import Violation
from agent_graph.testing.crash.report import CrashFound, CrashReport, Failure, Tally, tally
from tests.testing.crash.test_judging import ACCOUNT, GOOD, PAY, doubtful, events

FEW = Tally(runs=2, attempts=5, kills=3, calls=4, places={"a.b": 2, "c.d": 1}, billed_usd=Decimal("0.1"))
BROKEN = Tally(runs=1, attempts=2, kills=1, repeated=1, broken={"no non-idempotent call run twice": 1}, places={"a.b": 1})
FAILURE = Failure(faults="SIGKILL at failpoint 3", violations=(Violation("finished", "it did not"),), kept="/tmp/run-3")


def test_figures_of_a_run() -> None:
    found = tally(GOOD, (), attempts=3, places=["a.b", "a.b"])
    assert (found.runs, found.attempts, found.kills, found.effects, found.calls, found.repeated) == (1, 3, 2, 2, 1, 0)
    assert (found.billed_usd, found.settled_usd, found.places) == (Decimal("0.02"), Decimal("0.02"), {"a.b": 2})
    twice = tally(events(PAY, PAY), (Violation("x", "y"),), attempts=1, places=[])
    assert (twice.calls, twice.repeated, twice.broken) == (1, 1, {"x": 1})
    assert ACCOUNT.idempotent["look"]


def test_in_doubt_is_told_apart_by_what_happened() -> None:
    assert (
        tally(doubtful(), (), attempts=1, places=[]).in_doubt_done,
        tally(doubtful(events()), (), attempts=1, places=[]).in_doubt_done,
    ) == (1, 0)


def test_reports_add_up() -> None:
    one = CrashReport(seed=1, columns={"a": FEW}, seconds=3)
    other = CrashReport(seed=2, columns={"a": FEW, "b": BROKEN}, failures=(FAILURE,), seconds=5)
    both = one + other
    assert both.total.kills == 7
    assert both.total.places == {"a.b": 5, "c.d": 2}
    assert (both.ok, one.ok, both.seconds) == (False, True, 5)


def test_it_reads_as_a_table_and_a_histogram() -> None:
    text = str(CrashReport(seed=7, columns={"a": FEW, "b": BROKEN}, failures=(FAILURE,), seconds=5))
    assert "seed 7; 4 kills of 7 processes in 5 s" in text
    assert "no non-idempotent call run twice: 1" in text
    assert "a.b       3  ####" in text
    assert "SIGKILL at failpoint 3; files in /tmp/run-3" in text
    assert "finished: it did not" in text
    assert "1 of 3 runs broke an invariant" in text
    rows = CrashReport(seed=7, columns={"a": FEW}).table()
    assert len({row.count("|") for row in rows}) == 1
    assert len({len(row) for row in rows}) == 1


def test_it_crosses_processes() -> None:
    report = CrashReport(seed=7, columns={"a": FEW}, failures=(FAILURE,))
    assert pickle.loads(pickle.dumps(report)) == report
    found = CrashFound(report)
    assert found.report is report
    assert "it did not" in str(found)
