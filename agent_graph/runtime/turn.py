"""One turn, live: its account, its clock, and its rows.

How it works
    A Turn is what stands between the graph's nodes and the storage while a turn runs. It keeps the AgentRun in step with the rows:
    each model call is a ledger row that is *reserved* before the call and *settled* after it (`ledger.py`), each tool call a journal
    row that is *started* before and *succeeded* or *failed* after. Rows are queued in order; `durable()` is the barrier before an
    effect. A turn that was begun inside a tool of another is its child: it has no more time than its parent has left for that tool.

What must stay true
    1. No figure of the AgentRun is changed but together with the row that says so; after a crash the rows give it again.
    2. Settled and uncertain money are kept apart: `total_cost_usd` is exact, `cost_uncertain_usd` bounds the rest.
    3. Time is working time: what earlier processes used is carried over, an outage costs nothing.
"""

from __future__ import annotations

import contextlib
import json
from bisect import insort
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import SystemMessage

from agent_graph import resolutions
from agent_graph.decisions.budget import Limits, Spent, landing_share_s
from agent_graph.messages import Conversion, current_conversion
from agent_graph.runtime.account import NANO, is_over, rebuild, to_result, used_s
from agent_graph.runtime.clock import Stopwatch
from agent_graph.runtime.counter import Learned
from agent_graph.runtime.ledger import Ledger
from agent_graph.runtime.turn_account import TurnAccount
from agent_graph.storage.port import JournalRow, LedgerRow, NoteRow, Storage, TurnKey, TurnRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from agent_graph.config import AgentConfig, Budget
    from agent_graph.events import Event
    from agent_graph.ports import Clock
    from agent_graph.resolutions import Resolution
    from agent_graph.types import AgentRun, ToolCall

__all__ = ["ADDED", "RESOLUTION", "Turn", "current_turn", "kept_back"]

ADDED = "add_budget"
"""Kind of the note that holds what was added to the limits: `{"max_cost_usd": "0.5"}`."""
RESOLUTION = "resolution"
"""Kind of the note that holds a person's word: `{"key", "outcome"}`."""
KEPT_BACK = "kept_back"
"""Kind of the note that says whether a call's end is kept from the observability backend: `{"call_key", "kept"}`."""

current_turn: ContextVar[Turn | None] = ContextVar("agent_graph_turn", default=None)
"""The turn that the running task works for; None where an underscore method is called alone."""


class Turn:
    """A turn that is being worked on, by one task at a time (its tool calls run in parallel)."""

    def __init__(
        self,
        *,
        agent: Any,
        row: TurnRow,
        fence: int,
        storage: Storage,
        clock: Clock,
        system: str,
        parent: Turn | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.agent = agent
        self.row = row
        self.key: TurnKey = row.key
        self.fence = fence
        self.storage = storage
        self.clock = clock
        self.system = system
        """The system prompt."""
        self.config: AgentConfig = agent.config
        self.parent = parent
        """The turn inside whose tool this one was begun."""
        self._watch = Stopwatch(clock, row.used_s)
        self.account: TurnAccount = TurnAccount(
            key=row.key,
            fence=fence,
            storage=storage,
            agent=row.agent,
            budget=budget,
            parent=None if parent is None else parent.account,
            used_s=self._watch.used_s,
            now=clock.time,
        )
        self.ledger: Ledger = Ledger(self.account)
        self.limit(Limits.of(self.config))
        self.deadline_at: float | None = None
        """Seconds since the epoch at which the turn must be over, whatever its working time."""
        self.run: AgentRun = rebuild(row, (), ())
        self.journal: dict[str, JournalRow] = {}
        """The tool calls by their keys, each as it was last written."""
        self._order: list[tuple[int, int, str]] = []
        self.results: dict[str, ToolCall] = {}
        """The calls that are over, by their keys, with their original results."""
        self.kept_back: set[str] = set()
        """Of these, the keys of those that nobody may be told of before a person has looked at the result."""
        self.artifacts: dict[str, Any] = {}
        """What a tool gave beside its result, for the application, until its message is made."""
        self.resolutions: dict[str, Resolution] = {}
        """What people have said, by what they were asked about."""
        self.conversion = Conversion()
        self.learned = Learned()
        self._system_message: SystemMessage | None = None
        self.loaded = False
        """Whether the memory has been loaded: before that, what there is must not replace it."""
        self.saved_messages: tuple[int, str | None] | None = None
        """What was saved last: how many messages, and the id of the last."""
        self.direct = False
        """Whether another graph drives the turn, not `run()` (hosting.py)."""
        self.owner: object = None
        """Whoever holds the lease lives as long as this does."""
        self.sink: Callable[[Event], None] | None = None
        """Who listens."""
        self.busy = 0
        """How many nodes work for the turn just now."""

    def restore(self, journal: Sequence[JournalRow], ledger: Sequence[LedgerRow], notes: Sequence[NoteRow]) -> None:
        """Take up the account where the rows leave it. What was reserved and never settled is uncertain from now on."""
        words = [json.loads(note.body) for note in notes if note.kind == RESOLUTION]
        self.resolutions = {word["key"]: resolutions.from_json(word["outcome"]) for word in words}
        for note in notes:
            if note.kind == ADDED:
                self.limit(_raised(self.limits, json.loads(note.body)))
        self.run = rebuild(self.row, journal, ledger)
        self.run.warnings = list(dict.fromkeys(json.loads(note.body)["text"] for note in notes if note.kind == "warning"))
        self.journal = {row.call_key: row for row in journal}
        self._order = sorted((row.step, row.index, row.call_key) for row in journal)
        self.results = dict(zip((row.call_key for row in journal if is_over(row)), self.run.tool_calls, strict=True))
        self.kept_back = kept_back(notes)
        self._watch.before_s = used_s(self.row, journal, ledger)
        self.account.restore(ledger)

    def limit(self, limits: Limits) -> None:
        """Let `limits` hold."""
        self.limits = self.account.limits = limits

    def add_budget(self, amounts: Mapping[str, Any]) -> None:
        """Queue a note of what is added to the limits, and let it count."""
        self.limit(_raised(self.limits, amounts))
        self.note(ADDED, {key: str(amount) for key, amount in amounts.items()}, step=self.run.steps)

    # -- time -----------------------------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Begin to count working time: after imports, opening the storage and the lease, and after waiting for a person."""
        self._watch.start()

    def pause_clock(self) -> None:
        """Stop counting: waiting for a person is no working time."""
        self._watch.pause()

    @property
    def used_s(self) -> float:
        """Working time used so far, in seconds, earlier processes included."""
        return self._watch.used_s()

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the turn's time is over (0 when it is), or None without a limit."""
        left = self._own_time_s()
        above = None if self.parent is None else self.parent.work_time_s
        if above is not None:
            left.append(above)
        return max(0.0, min(left)) if left else None

    @property
    def overtime_s(self) -> float:
        """Seconds for which the turn's own time has been over; 0 before that, and where nothing limits it."""
        return max(0.0, -min(self._own_time_s(), default=0.0))

    def _own_time_s(self) -> list[float]:
        left = [] if self.limits.timeout_s is None else [self.limits.timeout_s - self.used_s]
        if self.deadline_at is not None:
            left.append(self.deadline_at - self.clock.time())
        return left

    @property
    def work_time_s(self) -> float | None:
        """Seconds that one call of a model, a tool or a rail may take at most: what is left, less what a landing needs.

        All that is left before the first step, when there is nothing yet to answer from, and in the landing itself.
        """
        left = self.time_left_s
        return left if left is None or self.run.landed is not None or not self.account.sums.steps else max(0.0, left - self.landing_share_s)

    @property
    def landing_share_s(self) -> float:
        """Seconds that are kept for a landing."""
        windows = [] if self.limits.timeout_s is None else [self.limits.timeout_s]
        if self.deadline_at is not None:
            windows.append(max(0.0, self.deadline_at - self.row.started_at))
        if self.parent is not None and self.parent.limits.timeout_s is not None:
            windows.append(self.parent.limits.timeout_s)
        return landing_share_s(min(windows)) if windows else 0.0

    @property
    def is_late(self) -> bool:
        """Whether no time is left for a landing after another call."""
        left = self.time_left_s
        return left is not None and left <= self.landing_share_s

    def time_is_up(self) -> str:
        """Return the text of the time limit's violation."""
        self.refresh()
        if self.limits.timeout_s is not None and self.used_s >= self.limits.timeout_s:
            return f"timeout_s: {self.used_s:.2f} of {self.limits.timeout_s:g}"
        if self.parent is not None and not self.parent.work_time_s and self.parent.work_time_s is not None:
            return f"timeout_s: run {self.parent.key.run_id!r}, which began this one, has no time left"
        if self.deadline_at is None and self.limits.timeout_s is not None:  # the loop's clock was a little ahead of ours
            return f"timeout_s: {self.limits.timeout_s:g} s are over"
        return f"timeout_s: deadline_at was reached after {self.used_s:.2f} s"

    # -- the account ------------------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spent:
        """What has been spent, as the limits see it."""
        return self.account.spent_after(self.account.sums.steps, self.used_s)

    def refresh(self) -> AgentRun:
        """Bring the AgentRun's figures up to date and return it."""
        run, sums = self.run, self.account.sums
        run.steps = sums.steps
        run.total_tokens = sums.tokens
        run.total_cost_usd = sums.cost_nusd / NANO
        run.cost_uncertain_usd = sums.uncertain_nusd / NANO
        run.latency_ms = self.used_s * 1000
        return run

    def reserve(self, *, step: int, kind: Any, attempt: int, model: str, bound_usd: Decimal, bound_tokens: int) -> int:
        """Queue the reservation of an attempt that the caller has admitted; return its entry number. Await `durable()` before the call."""
        return self.ledger.enter(step=step, kind=kind, attempt=attempt, model=model, bound_usd=bound_usd, bound_tokens=bound_tokens)

    def settle(self, entry: int, *, cost_usd: Decimal, tokens: int, usage: Mapping[str, Any], model: str, used: bool) -> bool:
        """Book what an attempt really cost; `used` says that its reply became a step. Return whether its bound covered it."""
        covered = self.ledger.settle(entry, cost_usd=cost_usd, tokens=tokens, usage=usage, model=model, used=used)
        self.refresh()
        return covered

    def unbilled(self, entry: int, reason: str) -> None:
        """Book that an attempt failed and cost nothing: the provider refused it."""
        self.ledger.unbilled(entry, reason)
        self.refresh()

    def unsettle(self, entry: int, reason: str) -> None:
        """Book that the bill of an attempt is unknown: its bound stays counted."""
        self.ledger.unsettle(entry, reason)
        self.refresh()

    def record(self, row: JournalRow, **changes: Any) -> JournalRow:
        """Queue a journal row, with `changes`, remember it and return it as it is now."""
        row = replace(row, used_s=self.used_s, **changes)
        if row.call_key not in self.journal:
            insort(self._order, (row.step, row.index, row.call_key))
        self.journal[row.call_key] = row
        self.put(row)
        return row

    def finished(self, row: JournalRow, call: ToolCall, **changes: Any) -> JournalRow:
        """Queue the end of a tool call, the row with `changes`, and enter it into the account; `call` keeps the original result."""
        row = self.record(row, **changes)
        known, kept = row.call_key in self.results, row.call_key in self.kept_back
        self.results[row.call_key] = call
        if not known and self._order[-1][2] == row.call_key:
            self.run.tool_calls.append(call)
        else:
            self.run.tool_calls = [self.results[key] for _, _, key in self._order if key in self.results]
        if kept:
            self._keep_back(row, kept=False)
        if kept or not known:
            self.agent.recorder.tool_call(call, self.key.run_id)
        return row

    def keep_back(self, row: JournalRow) -> None:
        """Let nobody be told of this call, whose end is about to be on record, until `finished` says that its result may be seen."""
        if row.call_key not in self.kept_back:
            self._keep_back(row, kept=True)

    def _keep_back(self, row: JournalRow, *, kept: bool) -> None:
        (self.kept_back.add if kept else self.kept_back.discard)(row.call_key)
        self.note(KEPT_BACK, {"call_key": row.call_key, "kept": kept}, step=row.step)

    def tell_again(self) -> None:
        """Tell of the calls that were over when the process died that worked on them: what it had told is not known."""
        for key, call in self.results.items():
            if key not in self.kept_back:
                self.agent.recorder.tool_call(call, self.key.run_id)

    def newest_first(self) -> Iterator[JournalRow]:
        """Yield the journal by (step, index), from its end."""
        return (self.journal[key] for _, _, key in reversed(self._order))

    def note(self, kind: str, body: Mapping[str, Any], *, step: int) -> None:
        """Queue a note: a decision worth keeping."""
        self.put(NoteRow(key=self.key, step=step, kind=kind, body=json.dumps(body, default=str, ensure_ascii=False)))

    def warn(self, text: str, *, step: int = 0) -> None:
        """Enter a warning into the account, once."""
        if text not in self.run.warnings:
            self.run.warnings.append(text)
            self.note("warning", {"text": text}, step=step)

    # -- the storage ------------------------------------------------------------------------------------------------------------

    def put(self, row: LedgerRow | JournalRow | NoteRow | TurnRow) -> None:
        """Queue `row` under this turn's fence."""
        self.storage.put(row, fence=self.fence)

    async def durable(self) -> None:
        """The barrier: return when everything queued so far is on disk, for the turns above this one too."""
        await self.account.durable()

    def put_turn(self, status: Any, *, result: bool, delivered: bool = False) -> None:
        """Queue the turn's own row with a new status; one that does not run holds nothing, before it is said so (nobody may look later)."""
        if status != "running":
            self.account.give_back()
        self.row = replace(
            self.row,
            status=status,
            used_s=self.used_s,
            result=to_result(self.run) if result else None,
            delivered=delivered,
            updated_at=self.clock.time(),
        )
        self.put(self.row)

    # -- who listens --------------------------------------------------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether anybody listens."""
        return self.sink is not None

    def emit(self, event: Event) -> None:
        """Hand `event` to whoever streams this turn."""
        if self.sink is not None:
            self.sink(event)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While a node works for this turn, the specification's methods know it."""
        token, conversion = current_turn.set(self), current_conversion.set(self.conversion)
        self.busy += 1
        if self._watch.is_paused:
            self.start_clock()
        try:
            yield
        finally:
            self.busy -= 1
            current_conversion.reset(conversion)
            current_turn.reset(token)

    def system_message(self, text: str) -> SystemMessage:
        """Return the system message of `text`: the same object for the same text, so that it is converted and counted once."""
        if self._system_message is None or self._system_message.content != text:
            self._system_message = SystemMessage(text, id="lc_system")
        return self._system_message


def kept_back(notes: Sequence[NoteRow]) -> set[str]:
    """Return the keys of the calls whose end is on record and still kept from the observability backend."""
    words = [json.loads(note.body) for note in notes if note.kind == KEPT_BACK]
    last = {word["call_key"]: word["kept"] for word in words}
    return {key for key, kept in last.items() if kept}


def _raised(limits: Limits, amounts: Mapping[str, Any]) -> Limits:
    """Return `limits` with `amounts` (numbers, or what a note keeps of them) added; no limit stays none."""
    raised: dict[str, Any] = {}
    for key, amount in amounts.items():
        limit = getattr(limits, key)
        if limit is not None:
            raised[key] = limit + type(limit)(amount)
    return replace(limits, **raised)
