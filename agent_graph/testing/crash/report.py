"""What a campaign came to: frozen, summable, and readable as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from agent_graph.testing.crash.evidence import Account, Evidence
from agent_graph.testing.crash.judging import INVARIANTS, Violation, billed
from agent_graph.testing.crash.world import Effect

__all__ = ["CrashFound", "CrashReport", "Failure", "Tally", "tally"]

SHOWN = 5
"""So many failing runs are described in the text of a report; `failures` has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The figures of one kind of fault."""

    runs: int = 0
    attempts: int = 0
    """Processes that worked on them."""
    kills: int = 0
    """Those that the fault ended: seen by the parent, not assumed."""
    effects: int = 0
    """Effects in the world."""
    calls: int = 0
    """Calls of non-idempotent tools that touched the world."""
    repeated: int = 0
    """Those of them that did so twice."""
    in_doubt: int = 0
    """Calls that the program said it does not know about."""
    in_doubt_done: int = 0
    """Those of them that had in fact happened."""
    limited: int = 0
    """Runs that a limit ended, or made to land."""
    billed_usd: Decimal = Decimal(0)
    settled_usd: Decimal = Decimal(0)
    uncertain_usd: Decimal = Decimal(0)
    broken: Mapping[str, int] = field(default_factory=dict[str, int])
    """Violations by invariant."""
    places: Mapping[str, int] = field(default_factory=dict[str, int])
    """Where the kills fell: the last place that the process had passed."""

    def __add__(self, other: Tally) -> Tally:
        figures = {name: getattr(self, name) + getattr(other, name) for name in _FIGURES}
        return Tally(
            **figures,
            broken=dict(Counter(self.broken) + Counter(other.broken)),
            places=dict(Counter(self.places) + Counter(other.places)),
        )


_FIGURES = (
    "runs",
    "attempts",
    "kills",
    "effects",
    "calls",
    "repeated",
    "in_doubt",
    "in_doubt_done",
    "limited",
    "billed_usd",
    "settled_usd",
    "uncertain_usd",
)


def tally(evidence: Evidence, violations: Iterable[Violation], *, attempts: int, places: Iterable[str]) -> Tally:
    """Return the figures of one run."""
    fell = list(places)
    account = evidence.account
    effects = [event for event in evidence.events if isinstance(event, Effect)]
    once = Counter((event.key, event.what) for event in effects if not account.idempotent.get(event.tool, False))
    doubtful = {call.key for call in account.calls if call.state == "in doubt"}
    return Tally(
        runs=1,
        attempts=attempts,
        kills=len(fell),
        effects=len(effects),
        calls=len(once),
        repeated=sum(times > 1 for times in once.values()),
        in_doubt=len(doubtful),
        in_doubt_done=len(doubtful & {event.key for event in effects}),
        limited=any(turn.limited for turn in account.turns),
        billed_usd=billed(evidence.events),
        settled_usd=_sum(account, "cost_usd"),
        uncertain_usd=_sum(account, "uncertain_usd"),
        broken=dict(Counter(violation.invariant for violation in violations)),
        places=dict(Counter(fell)),
    )


def _sum(account: Account, name: str) -> Decimal:
    return sum((getattr(turn, name) for turn in account.turns), Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run in which an invariant did not hold."""

    faults: str
    """What was done to it, in order."""
    violations: tuple[Violation, ...]
    kept: str
    """The folder with its storage, its world and the output of each attempt; empty where it was one of too many to keep."""

    def __str__(self) -> str:
        where = f"files in {self.kept}" if self.kept else "files not kept"
        return "\n".join([f"{self.faults}; {where}", *(f"    {violation}" for violation in self.violations)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashReport:
    """What a campaign came to. `print` it: a table, where the kills fell, and what did not hold."""

    seed: int
    """The same seed gives the same faults again, as far as the threads of the program allow."""
    columns: Mapping[str, Tally]
    """By kind of fault."""
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every invariant held in every run."""
        return not self.failures

    @property
    def total(self) -> Tally:
        """The figures of all columns together."""
        return sum(self.columns.values(), Tally())

    def __add__(self, other: CrashReport) -> CrashReport:
        names = [*self.columns, *(name for name in other.columns if name not in self.columns)]
        columns = {name: self.columns.get(name, Tally()) + other.columns.get(name, Tally()) for name in names}
        return CrashReport(
            seed=self.seed, columns=columns, failures=self.failures + other.failures, seconds=max(self.seconds, other.seconds)
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seed {self.seed}; {self.total.kills:,} kills of {self.total.attempts:,} processes in {self.seconds:.0f} s",
                "",
                *self.table(),
                "",
                *self.histogram(),
                *(f"\n{failure}" for failure in self.failures[:SHOWN]),
                "" if self.ok else f"\n{len(self.failures)} of {self.total.runs} runs broke an invariant",
            ]
        ).rstrip()

    def table(self) -> list[str]:
        """Return the figures as the lines of a Markdown table, one row a kind of fault."""
        head = ["fault", "kills / runs", "non-idempotent calls: repeated", "in doubt (had happened)", "USD billed", "settled + uncertain"]
        rows = [head, *(_row(name, column) for name, column in self.columns.items())]
        if len(self.columns) > 1:
            rows.append(_row("all", self.total))
        rows = [[*row, *cells] for row, cells in zip(rows, self._broken(len(rows) - 1), strict=True)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
        return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]

    def _broken(self, rows: int) -> list[list[str]]:
        tallies = [*self.columns.values(), self.total][:rows]
        return [["violations"], *([_breaks(tally.broken)] for tally in tallies)]

    def histogram(self) -> list[str]:
        """Return where the kills fell, the most frequent place first."""
        places = sorted(self.total.places.items(), key=lambda place: (-place[1], place[0]))
        if not places:
            return ["nothing was killed"]
        width, most = max(len(name) for name, _ in places), places[0][1]
        lines = [f"  {name.ljust(width)}  {count:>6,}  {'#' * max(1, round(40 * count / most))}" for name, count in places]
        return ["where the kills fell, after:", *lines]


def _row(name: str, tally: Tally) -> list[str]:
    return [
        name,
        f"{tally.kills:,} / {tally.runs:,}",
        f"{tally.calls:,}: {tally.repeated:,}",
        f"{tally.in_doubt:,} ({tally.in_doubt_done:,})",
        f"{tally.billed_usd:.4f}",
        f"{tally.settled_usd:.4f} + {tally.uncertain_usd:.4f}",
    ]


def _breaks(broken: Mapping[str, int]) -> str:
    return "; ".join(f"{name}: {broken[name]:,}" for name in INVARIANTS if broken.get(name)) or "0"


class CrashFound(AssertionError):
    """A crash test found an invariant broken. `.report` says which, and where the files of the runs are."""

    def __init__(self, report: CrashReport) -> None:
        super().__init__(str(report))
        self.report = report
