"""`demo crash`: an agent is killed in the middle of a payment, and another process goes on. Nothing of it is staged but the model.

Two real processes, one after the other, on one storage file. The bank's own file and the agent's journal are shown as they are
on disk after the kill and at the end; then they are compared, and the exit code is the verdict.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_graph.cli import paying, words
from agent_graph.runtime.account import to_json

if TYPE_CHECKING:
    from agent_graph.storage.port import JournalRow
    from agent_graph.types import AgentRun

__all__ = ["demo"]

_LIMIT_S = 120.0
_MARK = {"succeeded": "succeeded", "in_doubt": "in doubt: not run again", "started": "started, and no end: in doubt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Disk:
    """What is on disk at one moment."""

    payments: Sequence[dict[str, Any]]
    """The bank's file."""
    calls: Sequence[dict[str, Any]]
    """The agent's journal."""
    replies: int
    """Model replies on the provider's bill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What the two say about each other."""

    repeated: int
    """Payments that were made twice."""
    unknown: int
    """Payments that the journal does not know."""
    billed_usd: float
    accounted_usd: float
    complete: bool

    @property
    def holds(self) -> bool:
        return self.complete and not self.repeated and not self.unknown and abs(self.billed_usd - self.accounted_usd) < 1e-9


def demo(arguments: Namespace) -> int:
    """Show what a crash does; `arguments.which` is "crash", the only one there is."""
    try:
        return _crash(arguments)
    except KeyboardInterrupt:
        return 130


def _crash(arguments: Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="agent-graph-demo-"))
    say = (lambda *lines: None) if arguments.json else _say
    say("An agent pays two invoices. Its process is killed after the second payment has left, before the tool could say so.")
    say("The model is a script; the processes, the kill, the storage and the bank's file are real.", "")

    say("1. a process begins")
    pid, ended = _process(folder, paying.BEGINS, quiet=arguments.json)
    say(f"   process {pid} is dead ({_how(ended)})", "")
    killed = asyncio.run(_on_disk(folder))
    say("2. what it left behind", *_shown(killed), "")

    say("3. another process goes on")
    _, finished = _process(folder, paying.GOES_ON, quiet=arguments.json)
    disk, run = asyncio.run(_on_disk(folder)), asyncio.run(_account(folder))
    say("", f"   {words.printable(run.output or '(no answer)')}", "", "4. what is on disk now", *_shown(disk), "")

    verdict = _judged(disk, run, clean=ended < 0 and finished == 0)
    say(*_summary(disk, verdict), "", *_where(folder))
    if arguments.json:
        told = {"killed": {"process": pid, "ended": ended, **asdict(killed)}, "end": asdict(disk), "verdict": asdict(verdict)}
        print(json.dumps({**told, "holds": verdict.holds, "folder": str(folder), "run": json.loads(to_json(run))}, ensure_ascii=False))
    return 0 if verdict.holds else 1


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def _process(folder: Path, part: str, *, quiet: bool) -> tuple[int, int]:
    """Let a process do its part; return its pid and how it ended."""
    command = [sys.executable, "-m", "agent_graph.cli.paying", str(folder), part]
    output = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, stdout=output) as process:  # noqa: S603  our own module, under our own interpreter
        try:
            return process.pid, process.wait(_LIMIT_S)
        except BaseException:
            process.kill()
            raise


def _how(ended: int) -> str:
    return signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"


async def _on_disk(folder: Path) -> _Disk:
    async with paying.agent_in(folder) as agent:
        turns = await agent.storage.turns(agent.namespace, paying.RUN_ID)
        rows = await agent.storage.journal(turns[-1].key) if turns else []
    return _Disk(
        payments=paying.Bank(folder, dies=False).payments(),
        calls=[_call(row) for row in rows],
        replies=len(paying.lines_of(folder / "provider.jsonl")),
    )


def _call(row: JournalRow) -> dict[str, Any]:
    return {"tool": row.tool, "args": json.loads(row.args), "key": row.call_key, "state": row.state}


async def _account(folder: Path) -> AgentRun:
    async with paying.agent_in(folder) as agent:
        return await agent.get(paying.RUN_ID)


def _judged(disk: _Disk, run: AgentRun, *, clean: bool) -> _Verdict:
    keys, invoices = (Counter(payment[name] for payment in disk.payments) for name in ("key", "invoice"))
    known = {call["key"] for call in disk.calls}
    return _Verdict(
        repeated=max(sum(times - 1 for times in counted.values()) for counted in (keys, invoices)),
        unknown=len(keys.keys() - known),
        billed_usd=round(disk.replies * paying.COST_USD, 9),
        accounted_usd=run.total_cost_usd,
        complete=clean and run.status == "complete",
    )


def _shown(disk: _Disk) -> list[str]:
    bank = [("THE BANK'S FILE", "KEY", "MADE BY"), *((p["invoice"], p["key"][:8], f"process {p['process']}") for p in disk.payments)]
    journal = [
        ("THE AGENT'S JOURNAL", "KEY", "STATE"),
        *((_written(call), str(call["key"])[:8], _MARK.get(str(call["state"]), str(call["state"]))) for call in disk.calls),
    ]
    return [*(f"   {line}" for line in words.table(bank)), "", *(f"   {line}" for line in words.table(journal))]


def _written(call: dict[str, Any]) -> str:
    return f"{call['tool']} {' '.join(str(value) for value in call['args'].values())}".strip()


def _summary(disk: _Disk, verdict: _Verdict) -> list[str]:
    if not verdict.holds:
        return [f"THIS DID NOT HOLD: {asdict(verdict)}"]
    money = f"{words.money(verdict.billed_usd)} billed by the provider, {words.money(verdict.accounted_usd)} in the account"
    return [
        f"Nothing ran twice: {words.counted(len(disk.payments), 'payment')}, each under a key of its own, each known to the journal.",
        f"Nothing was lost: {money} of both processes.",
    ]


def _where(folder: Path) -> list[str]:
    show = words.command_line("show", paying.RUN_ID, ["--storage", str(folder / "runs.db")])
    return [f"look yourself: {show}", f"the bank's file: {folder / 'bank.jsonl'}"]
