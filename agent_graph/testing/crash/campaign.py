"""A campaign: which faults fall on which runs. One column of the report is one kind of fault.

Everything here runs in the process that forks (`forking.py`), so nothing here opens a thread or the storage.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agent_graph.errors import ConfigError
from agent_graph.testing.crash.evidence import Evidence
from agent_graph.testing.crash.forking import call_in_fork, modules_used_by, run_in_fork
from agent_graph.testing.crash.judging import Violation, judge
from agent_graph.testing.crash.killing import AfterSeconds, AtFailpoint, AtNamed, CancelAt, Fault, Watch, counting_awaits
from agent_graph.testing.crash.report import CrashReport, Failure, Tally, tally
from agent_graph.testing.crash.subject import Subject
from agent_graph.testing.crash.world import World, read_events

__all__ = ["Campaign", "Plan"]

FINISHED, INTERRUPTED = 0, 3
"""Exit codes of an attempt: the task is done; its caller stopped it (a cancellation, Ctrl-C)."""
KEPT = 10
"""The files of so many failing runs are kept."""

Look = Callable[[Evidence], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which faults a campaign consists of; a figure of 0, or False, leaves a kind out."""

    failpoints: bool = True
    """SIGKILL at the n-th failpoint, for every n, a run each."""
    pairs: int = 20
    """SIGKILL at one failpoint and, on resume, at another: so many pairs, drawn by the seed; -1 for all."""
    kills: int = 50
    """Kills at random instants of the loop."""
    kills_per_run: int = 4
    """At most so many of them in one run; how many, the seed draws."""
    awaits: bool = False
    """The caller's task is cancelled at the n-th await, for every n, a run each."""
    signals: Sequence[int] = ()
    """Each of these signals at the n-th failpoint, for every n."""
    named: Sequence[Sequence[str]] = ()
    """Runs whose first attempt dies at the failpoint of the first name, the second at that of the second, and so on."""
    every: int = 1
    """Of "every n", only each so-manyth, beginning at a random one."""


@dataclass(slots=True)
class _Run:
    """One run as it goes on."""

    folder: Path
    attempts: int = 0
    places: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])


class Campaign:
    """Carries out a plan on one subject, and adds up."""

    def __init__(self, subject: Subject, *, seed: int, folder: Path, attempt_s: float, look: Look | None = None) -> None:
        self._subject, self._seed, self._folder, self._attempt_s, self._look = subject, seed, folder, attempt_s, look
        self._luck = random.Random(seed)
        self._watch = Watch()
        self._numbers = itertools.count(1)
        self._failures: list[Failure] = []
        self._columns: dict[str, Tally] = {}
        self._undisturbed: Evidence | None = None

    def carry_out(self, plan: Plan) -> CrashReport:
        """Do everything that `plan` names and return the report."""
        began = time.monotonic()
        self._warm_up()
        self._undisturbed = self._measured()
        points = range(1, self._watch.count + 1)
        first = self._luck.randrange(plan.every) + 1
        each = "every" if plan.every == 1 else f"each {plan.every}th"
        if plan.failpoints:
            for of in ("loop", "writer"):
                self._every(f"SIGKILL at {each} failpoint", partial(AtFailpoint, of=of), itertools.count(first, plan.every))
        for names in plan.named:
            self._named(names)
        if plan.pairs:
            self._pairs(plan.pairs, points)
        if plan.kills:
            self._random(plan.kills, plan.kills_per_run)
        if plan.awaits:
            self._every(f"cancelled at {each} await", CancelAt, itertools.count(first, plan.every))
        for number in plan.signals:
            name = f"{signal.Signals(number).name} at {each} failpoint"
            self._every(name, lambda n, number=number: AtFailpoint(n, number), itertools.count(first, plan.every))  # type: ignore[misc]  # the default binds the loop's own number
        return CrashReport(seed=self._seed, columns=dict(self._columns), failures=tuple(self._failures), seconds=time.monotonic() - began)

    # -- the columns ------------------------------------------------------------------------------------------------------------

    def _every(self, column: str, fault: Callable[[int], Fault], numbers: Iterator[int]) -> None:
        """One run for each n, until a run's fault has nothing left to fall on."""
        for n in numbers:
            if not self._run(column, [fault(n)]).places:
                return

    def _named(self, names: Sequence[str]) -> None:
        if not self._run("SIGKILL at " + ", then ".join(names), [AtNamed(name) for name in names]).places:
            raise ConfigError(f"named: the task never passes {names[0]!r}, so nobody was killed there.")

    def _pairs(self, pairs: int, points: range) -> None:
        every = [(n, m) for n in points for m in points]
        for n, m in every if pairs < 0 else self._luck.sample(every, min(pairs, len(every))):
            self._run("SIGKILL at a failpoint, again on resume", [AtFailpoint(n), AtFailpoint(m)])

    def _random(self, kills: int, per_run: int) -> None:
        loop_s = self._measured_loop_s()
        if not loop_s:
            raise ConfigError("kills at random instants: the program never says where its work begins. Let it call world.begins().")
        fallen = 0
        while fallen < kills:
            wanted = min(self._luck.randint(1, per_run), kills - fallen)
            faults = [AfterSeconds(self._luck.uniform(0, loop_s)) for _ in range(wanted)]
            fallen += len(self._run("SIGKILL at random instants", faults).places)

    # -- one run ----------------------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Import whatever an attempt imports, so that no child has to."""
        folder = self._new_folder()
        for name in modules_used_by(lambda: asyncio.run(self._subject.attempt(World(folder), resume=False)), limit_s=self._attempt_s):
            with suppress(Exception):  # a module that can be imported only under circumstances is left to those who need it
                importlib.import_module(name)
        self._subject.prepare()
        shutil.rmtree(folder)

    def _measured(self) -> Evidence:
        """Return the evidence of a run that nothing disturbs. What it breaks, the harness or the agent breaks without any crash."""
        run, evidence = self._finish(_Run(self._new_folder()), [])
        if evidence is None:
            raise AssertionError(f"the undisturbed run does not finish:\n{self._log(run)}")
        wrong = [*map(str, judge(evidence, evidence)), *_idle(evidence)]
        if wrong:
            raise AssertionError("the undisturbed run is wrong already:\n" + "\n".join(wrong))
        shutil.rmtree(run.folder)
        return evidence

    def _measured_loop_s(self) -> float:
        """Return how long the loop takes, in seconds: the median of three, since the machine may be busy."""
        loops = sorted(self._measured().loop_s for _ in range(3))
        return loops[1]

    def _run(self, column: str, faults: Sequence[Fault]) -> _Run:
        assert self._undisturbed is not None
        run, evidence = self._finish(_Run(self._new_folder()), faults)
        violations = self._judged(run, evidence)
        if evidence is not None:
            counted = tally(evidence, violations, attempts=run.attempts, places=run.places)
            self._columns[column] = self._columns.get(column, Tally()) + counted
        else:
            lost = Tally(runs=1, attempts=run.attempts, kills=len(run.places), broken={"finished": 1})
            self._columns[column] = self._columns.get(column, Tally()) + lost
        keeps = bool(violations) and len(self._failures) < KEPT
        if violations:
            told = ", then ".join(map(str, faults))
            self._failures.append(Failure(faults=told, violations=violations, kept=str(run.folder) if keeps else ""))
        if not keeps:
            shutil.rmtree(run.folder)
        return run

    def _judged(self, run: _Run, evidence: Evidence | None) -> tuple[Violation, ...]:
        assert self._undisturbed is not None
        if evidence is None:
            return tuple(Violation("finished", failure) for failure in run.failures)
        own = () if self._look is None else tuple(Violation("your own", text) for text in self._look(evidence))
        return judge(evidence, self._undisturbed) + own

    def _finish(self, run: _Run, faults: Sequence[Fault]) -> tuple[_Run, Evidence | None]:
        """Let attempts follow one another, each under the next fault and the last under none, until one finishes the task."""
        for fault in [*faults, None]:
            if self._attempt(run, fault) == FINISHED:
                break
            if run.failures:
                return run, None
        loop_s = self._watch.loop_s
        world = World(run.folder, attempt=run.attempts + 1)
        account = call_in_fork(lambda: asyncio.run(self._subject.account(world)), limit_s=self._attempt_s)
        return run, Evidence(events=read_events(world.ledger), account=account, failures=tuple(run.failures), loop_s=loop_s)

    def _attempt(self, run: _Run, fault: Fault | None) -> int:
        run.attempts += 1
        self._watch.reset()
        resume = run.attempts > 1 and self._luck.random() < 0.5
        log = run.folder / f"attempt-{run.attempts}.log"
        ended = run_in_fork(lambda: self._live(run, fault, resume=resume), log=log, limit_s=self._attempt_s)
        if ended < 0 or ended == INTERRUPTED:
            run.places.append(self._watch.place or "the start")
        elif ended != FINISHED:
            run.failures.append(f"attempt {run.attempts} ended by itself: {_last_line(log)}")
        return ended

    def _live(self, run: _Run, fault: Fault | None, *, resume: bool) -> int:
        """Be an attempt: in the child."""
        self._watch.arm(fault)
        world = World(run.folder, attempt=run.attempts, noticed=self._watch.noticed, begins=self._watch.begins)
        try:
            asyncio.run(self._supervised(world, fault, resume=resume))
        except (asyncio.CancelledError, KeyboardInterrupt):
            return INTERRUPTED
        finally:
            self._watch.ends()
        return FINISHED

    async def _supervised(self, world: World, fault: Fault | None, *, resume: bool) -> None:
        if not isinstance(fault, CancelAt):
            return await self._subject.attempt(world, resume=resume)
        return await _cancelled_at(fault.n, self._subject.attempt(world, resume=resume))

    def _new_folder(self) -> Path:
        folder = self._folder / f"run-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def _log(self, run: _Run) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(run.folder.glob("attempt-*.log")))


def _idle(evidence: Evidence) -> Iterator[str]:
    """Yield why nothing is proved by crashes of a run that does not work even without them."""
    for number, turn in enumerate(evidence.account.turns, 1):
        if turn.status in ("failed", "timeout") and not turn.limited:
            yield f"turn {number} ended {turn.status} by itself: an agent that does not work has nothing to lose"
    if not evidence.events:
        yield "no tool and no model told the world anything: call world.effect(), and take world.llm(...) or call world.bill(...)"


async def _cancelled_at(n: int, attempt: Any) -> None:
    """Do `attempt` in a task of its own, and cancel that at the n-th await of this process."""
    loop = asyncio.get_running_loop()
    work: list[asyncio.Task[None]] = []

    def reached(count: int) -> None:
        if count == n and work:
            work[0].cancel()

    loop.set_task_factory(counting_awaits(reached))
    work.append(loop.create_task(attempt))
    await work[0]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
