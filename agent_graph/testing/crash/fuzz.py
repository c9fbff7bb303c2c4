"""crash_fuzz: the harness as one function."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent_graph.errors import ConfigError, did_you_mean
from agent_graph.failpoints import NAMES
from agent_graph.testing.crash.campaign import Campaign, Plan
from agent_graph.testing.crash.evidence import Evidence
from agent_graph.testing.crash.forking import call_in_fork
from agent_graph.testing.crash.report import CrashFound, CrashReport
from agent_graph.testing.crash.subject import AgentSubject, Subject
from agent_graph.testing.crash.world import World

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent

__all__ = ["crash_fuzz", "fuzz"]

SHARED_MEMORY = Path("/dev/shm")
"""A killed process loses nothing of the page cache, so a file in memory is as strict a test as one on disk, and much faster."""


def crash_fuzz(
    make_agent: Callable[[World], ProductionAgent | Awaitable[ProductionAgent]],
    task: str | Sequence[str],
    *,
    failpoints: bool = True,
    pairs: int = 20,
    kills: int = 50,
    kills_per_run: int = 4,
    awaits: bool = False,
    signals: Sequence[int] = (),
    named: Sequence[Sequence[str]] = (),
    every: int = 1,
    stream: bool = False,
    seed: int | None = None,
    look: Callable[[Evidence], Iterable[str]] | None = None,
    keep: Path | str | None = None,
    attempt_s: float = 60.0,
) -> CrashReport:
    """Kill the processes of an agent at its work, again and again, and return the report; raise where an invariant is broken.

    ```python
    def make_agent(world):
        def pay(invoice: str) -> str:
            \"\"\"Pay an invoice.\"\"\"
            world.effect()
            return f"{invoice} is paid"

        model = world.llm([call("pay", invoice="A-17"), "Paid."], cost_usd=0.001)
        return create_production_agent(model, tools=[pay])

    def test_nothing_is_paid_twice(crash_fuzz):
        print(crash_fuzz(make_agent, "Pay the invoice A-17."))
    ```

    Args:
        make_agent: called once in each process; returns the agent, whose tools call `world.effect()` at the instant at which they
            touch the world, and whose model is `world.llm(...)`, `world.chat_model(...)` or one that calls `world.bill(...)`.
        task: the turn's input, or several, one turn each.
        failpoints: SIGKILL at the n-th failpoint, for every n.
        pairs: SIGKILL at one failpoint and again at another on resume: so many pairs, drawn by the seed; -1 for all.
        kills: so many kills at random instants of the loop.
        kills_per_run: at most so many of them in one run.
        awaits: cancel the caller's task at the n-th await, for every n.
        signals: send each of these (`signal.SIGINT`, `signal.SIGTERM`) at the n-th failpoint, for every n.
        named: runs at given failpoints: `[("tool.after_effect", "claim.after")]` kills the first process at the one and the second
            at the other. `agent_graph.failpoints.NAMES` lists which there are.
        every: of each "every n", try only each so-manyth.
        stream: whether the agent is asked by `stream` and `stream_resume` instead of `run` and `resume`, as a chat window does.
        seed: draws the faults; None for a new one. It is in the report.
        look: your own judge: takes the evidence of a run and returns what is wrong with it, in plain words.
        keep: the folder into which the files of failing runs are moved; None for a new one in the temporary folder.
        attempt_s: an attempt that takes longer hangs: its stack is in its log, and the run has failed.

    Raises:
        CrashFound: an invariant did not hold; `.report` has the runs and where their files are.
        AssertionError: the undisturbed run is wrong already.
        ConfigError: this platform cannot fork, or a setting cannot be; also where a run of `named` passes its first failpoint
            never, and so proves nothing.
    """
    plan = Plan(
        failpoints=failpoints,
        pairs=-1 if pairs == -1 else _count("pairs", pairs),
        kills=_count("kills", kills),
        kills_per_run=max(1, _count("kills_per_run", kills_per_run)),
        awaits=awaits,
        signals=tuple(signals),
        named=_named(named),
        every=_count("every", every, least=1),
    )
    if not (attempt_s > 0):
        raise ConfigError(f"attempt_s: {attempt_s!r}; seconds above 0 are due.")
    subject = AgentSubject(make_agent, (task,) if isinstance(task, str) else tuple(task), stream=stream)
    report = fuzz(subject, plan, seed=seed, look=look, keep=keep, attempt_s=attempt_s)
    if not report.ok:
        raise CrashFound(report)
    return report


def fuzz(
    subject: Subject,
    plan: Plan,
    *,
    seed: int | None = None,
    look: Callable[[Evidence], Iterable[str]] | None = None,
    keep: Path | str | None = None,
    attempt_s: float = 60.0,
) -> CrashReport:
    """Do the same to any subject, and return the report whatever is in it: another program is measured, not asserted."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="agent-graph-crash-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
    campaign = Campaign(subject, seed=seed, folder=folder, attempt_s=attempt_s, look=look)
    try:
        report = call_in_fork(lambda: campaign.carry_out(plan))
        if not report.ok:
            report = _kept(report, Path(tempfile.mkdtemp(prefix="agent-graph-crash-")) if keep is None else Path(keep))
    finally:
        shutil.rmtree(folder)
    return report


def _kept(report: CrashReport, where: Path) -> CrashReport:
    """Move the files of the failing runs to where they survive, and say so in the report."""
    where.mkdir(parents=True, exist_ok=True)
    failures = [replace(failure, kept=failure.kept and shutil.move(failure.kept, str(where))) for failure in report.failures]
    return replace(report, failures=tuple(failures))


def _named(runs: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return the failpoints of each run, all of which there are: a kill at a misspelt one would never fall."""
    if isinstance(runs, str) or any(isinstance(names, str) or not names for names in runs):
        raise ConfigError(f'named: {runs!r}; a list with a list of failpoints for each run is due: [("tool.after_effect", "claim.after")].')
    for name in (name for names in runs for name in names):
        if name not in NAMES:
            raise ConfigError(f"named: {name!r} is no failpoint.{did_you_mean(name, NAMES, most=3)} All of them: {', '.join(NAMES)}.")
    return tuple(tuple(names) for names in runs)


def _count(name: str, value: int, *, least: int = 0) -> int:
    if type(value) is not int or value < least:
        raise ConfigError(f"{name}: {value!r}; a whole number from {least} is due.")
    return value
