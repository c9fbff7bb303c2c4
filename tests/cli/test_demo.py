"""`agent-graph demo crash`: a real kill, a real resume, and a verdict that could be another."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_graph.cli import main, paying
from agent_graph.cli.demo import _Disk, _judged, _shown, _summary
from agent_graph.types import AgentRun, ToolCall

PAID = {"invoice": "A-17", "key": "k" * 32, "process": 1}
CALL = {"tool": "pay", "args": {"invoice": "A-17"}, "key": "k" * 32, "state": "succeeded"}
RUN = AgentRun("invoices", "pay", total_cost_usd=0.004, status="complete")


def judged(payments: list[dict[str, Any]], *, calls: Any = (CALL,), run: AgentRun = RUN, clean: bool = True) -> Any:
    return _judged(_Disk(payments=payments, calls=calls, replies=2), run, clean=clean)


@pytest.mark.parametrize(
    ("verdict", "holds"),
    [
        (judged([PAID]), True),
        (judged([PAID, PAID]), False),
        (judged([PAID, {**PAID, "key": "other"}], calls=(CALL, {**CALL, "key": "other"})), False),
        (judged([{**PAID, "key": "unheard of"}]), False),
        (judged([PAID], run=AgentRun("invoices", "pay", total_cost_usd=0.002, status="complete")), False),
        (judged([PAID], run=AgentRun("invoices", "pay", total_cost_usd=0.004, status="failed")), False),
        (judged([PAID], clean=False), False),
    ],
    ids=["all is well", "one key twice", "one invoice under two keys", "not in the journal", "a lost bill", "failed", "not killed"],
)
def test_the_verdict(verdict: Any, holds: bool) -> None:
    assert verdict.holds is holds
    assert ("THIS DID NOT HOLD" in _summary(_Disk(payments=[PAID], calls=[CALL], replies=2), verdict)[0]) is not holds


def test_what_is_on_disk_is_shown_side_by_side() -> None:
    lines = _shown(_Disk(payments=[PAID], calls=[{**CALL, "state": "started"}], replies=1))
    assert any("A-17" in line and "process 1" in line for line in lines)
    assert any("pay A-17" in line and "in doubt" in line for line in lines)


async def test_the_bank_pays_each_time_it_is_asked(tmp_path: Path) -> None:
    """It knows no keys and forgives nothing: that nothing is paid twice is the agent's doing."""
    bank = paying.Bank(tmp_path, dies=False)
    for _ in range(2):
        call = await bank.execute(ToolCall("pay", {"invoice": "B-04"}, "c", idempotency_key="k"))
    assert call.result == "receipt 2"
    statement = await bank.execute(ToolCall("statement", {}, "c"))
    assert statement.result == "B-04 paid, B-04 paid"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process that is ended there has an exit code, not a signal")
def test_the_demo_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["demo", "crash", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["killed"]["ended"] == -signal.SIGKILL
    assert [payment["invoice"] for payment in told["killed"]["payments"]] == ["A-17", "B-04"]
    assert [call["state"] for call in told["killed"]["calls"]] == ["succeeded", "started"]
    assert told["end"]["payments"] == told["killed"]["payments"], "nothing was paid after the kill"
    assert [call["state"] for call in told["end"]["calls"]] == ["succeeded", "in_doubt", "succeeded"]
    assert (told["run"]["status"], told["run"]["total_cost_usd"], told["holds"]) == ("complete", 0.008, True)
    assert {"bank.jsonl", "provider.jsonl", "runs.db"} <= {path.name for path in Path(told["folder"]).iterdir()}


@pytest.mark.slow
def test_it_reads_as_a_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["demo", "crash"]) == 0
    out = capfd.readouterr().out
    parts = ["1. a process begins", "is dead", "2. what it left behind", "no end: in doubt", "resumed where it was"]
    parts += ["was not run again", "Both invoices are paid, each once", "Nothing ran twice: 2 payments", "Nothing was lost: $0.008"]
    places = [out.find(part) for part in parts]
    assert places == sorted(places), dict(zip(parts, places, strict=True))
    assert -1 not in places
