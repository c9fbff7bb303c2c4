"""The Storage port: one place, one writer, one order.

How it works
    A storage keeps six kinds of record: LangGraph's checkpoints, turns, the journal of tool calls, the ledger of model calls,
    notes (verdicts and other decisions), and the default memory. Everything is *queued* in one FIFO and written in that order;
    `put` never waits. Whoever is about to touch the world awaits `durable()`: everything queued so far (by anybody) is then
    on disk. So pure work never waits for the disk, and yet no effect leaves whose record did not commit.

What must stay true
    1. Records become durable in the order in which they were queued; a crash keeps a prefix.
    2. A write that failed reaches its caller's next `put` or `durable` of that turn as NotDurable, and every later one: sticky.
    3. A turn has at most one writer: `claim` hands out a lease with a fence; a row under an older fence is refused (LeaseLost).
    4. Nothing of it belongs to an event loop: any loop, any thread, several at once.
    5. What enters has passed the redaction hook; no registered secret is in the bytes of any file.
    6. Integers of rows hold 64 bits. Text may be any str: what the database cannot hold (lone surrogates, say) is replaced.

`agent_graph.testing.StorageContract` is all of this as tests, and docs/storage.md says how to write another storage.

Keys are (namespace, run_id, turn). The agent's name is a column, by which `unfinished` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent_graph.types import Message

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = [
    "BudgetAnswer",
    "BudgetCap",
    "BudgetUse",
    "Charge",
    "Claim",
    "JournalRow",
    "LedgerRow",
    "NoteRow",
    "Redactor",
    "Row",
    "Storage",
    "TurnKey",
    "TurnRequest",
    "TurnRow",
    "thread_id_of",
]

Redactor: TypeAlias = Callable[[str], str]
"""Takes text that is about to be written and returns it without secrets; must keep JSON valid (it sees JSON text)."""


@dataclass(frozen=True, slots=True)
class TurnKey:
    """Which turn: the first three columns of every row."""

    namespace: str
    run_id: str
    turn: int
    """From 1."""

    @property
    def thread_id(self) -> str:
        """LangGraph's name of the run."""
        return thread_id_of(self.namespace, self.run_id)


def thread_id_of(namespace: str, run_id: str) -> str:
    """Return LangGraph's thread_id: the run_id itself, outside the default namespace with that before it."""
    return run_id if namespace == "default" else f"{namespace}\x1f{run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """A turn as stored. Updated by `put`: the whole row is written each time."""

    key: TurnKey
    agent: str
    """The agent's name."""
    input: str
    status: Literal["running", "waiting", "stopped", "complete", "failed", "timeout", "closed"]
    """running: its owner works on it, or died; waiting: for a person; stopped: by its caller; the rest are ends."""
    request_id: str | None = None
    fingerprint: str = ""
    """What the tools were that it was begun with (`decisions/fingerprints.py`); a resume compares."""
    used_s: float = 0.0
    """Working time used so far, in seconds."""
    result: str | None = None
    """The AgentRun as JSON once the turn has ended (or waits)."""
    delivered: bool = False
    """Whether `run()` returned the result to its caller."""
    parent: str | None = None
    """The turn inside whose tool this one was begun, as JSON `[namespace, run_id, turn]`; None for one that stands alone."""
    started_at: float = 0.0
    """Seconds since the epoch."""
    updated_at: float = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether it is over: a new input begins the next turn."""
        return self.status in {"complete", "failed", "timeout", "closed"}


@dataclass(frozen=True, slots=True)
class Charge:
    """A shared budget in which a ledger row counts."""

    namespace: str
    budget: str
    """Its name."""
    period: str
    """The day that the row was reserved on, "2026-11-25" (UTC); "" for a budget of all time."""


@dataclass(frozen=True, slots=True)
class BudgetCap:
    """How much may count in a shared budget; None is no limit."""

    charge: Charge
    max_nusd: int | None
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What counts in a shared budget: settled, and what is reserved or of unknown end at its bound."""

    nusd: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """Whether a reservation fitted, and what counts in each of its budgets now."""

    granted: bool
    uses: tuple[BudgetUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One attempt at one model call, or one sub-agent. `put` with the same (key, entry) replaces the row.

    A sub-agent's row holds its sums, which grow while it runs: `cost_nusd` and `tokens` what is settled, the bounds what is not.
    """

    key: TurnKey
    entry: int
    """From 1, in the order of reservation within the turn."""
    step: int
    """The step it was made for; 0 outside the loop's steps."""
    kind: Literal["step", "summary", "judge", "subagent", "landing"]
    """What the call is for; "subagent": a turn begun inside this one's tools; "landing": no call, but what is held for one in the shared
    budgets of `charges`, and counts in those alone."""
    attempt: int
    """From 1 within its call."""
    model: str
    state: Literal["reserved", "settled", "unsettled", "failed"]
    """failed: the attempt ended with an error and the bill is known (settled amounts are in cost_nusd)."""
    bound_nusd: int
    """Upper bound, in nano-USD, while the bill is unknown."""
    bound_tokens: int = 0
    cost_nusd: int = 0
    """Settled cost in nano-USD."""
    tokens: int = 0
    """Input + output, as settled."""
    usage: str | None = None
    """JSON of the usage as reported, with unit prices, matched model id, source and version of the price."""
    used: bool = False
    """Whether the reply became a step of the loop."""
    charges: tuple[Charge, ...] = ()
    """The shared budgets in which it counts."""
    used_s: float = 0.0
    """Working time of the turn when this was written, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One tool call. `put` with the same (key, call_key) replaces the row."""

    key: TurnKey
    call_key: str
    """The idempotency key: 32 hexadecimal digits."""
    step: int
    index: int
    """Position of the call in its reply, from 0."""
    call_id: str
    tool: str
    args: str
    """Canonical JSON."""
    idempotent: bool
    state: Literal["planned", "started", "succeeded", "failed", "in_doubt", "rejected", "cancelled"]
    attempt: int = 0
    result: str | None = None
    """JSON, made storable."""
    error: str | None = None
    latency_ms: float = 0.0
    used_s: float = 0.0
    """Working time of the turn when this was written, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRow:
    """A decision worth keeping: a guardrail's verdict, a compression, a landing, a warning. Append-only."""

    key: TurnKey
    step: int
    kind: str
    body: str
    """JSON."""


Row: TypeAlias = TurnRow | LedgerRow | JournalRow | NoteRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What `claim` is asked."""

    namespace: str
    run_id: str
    agent: str
    input: str | None
    """None: resume whatever is unfinished (RunNotFound where nothing is)."""
    request_id: str | None
    fingerprint: str
    on_unfinished: Literal["conflict", "close"]
    force: bool = False
    """Resume even though the fingerprint differs."""
    reopen: bool = False
    """Resume a turn that ended at a limit (`add_budget`)."""
    settles: bool = False
    """Take up a turn that waits for a person, to write a word down; and no other."""
    awaited: int | None = None
    """The turn that the caller waits for, after `busy`: once it has ended, its result is the answer, delivered or not."""
    lease_s: float = 30.0
    """How long the lease holds without renewal, in seconds."""
    parent: str | None = None
    """`TurnRow.parent` of a new turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What `claim` answers. `outcome`:

    new        a new turn was opened and leased        resume     an unfinished turn is ours again: go on
    stored     nothing to do: `turn.result` is it      waiting    the turn waits for a person: `turn.result` says for what
    busy       a live owner works on it, same input    conflict   unfinished or busy with another input; same request_id, other input
    not_found  nothing to resume                       changed    the fingerprint differs and `force` was not set
    """

    outcome: Literal["new", "resume", "stored", "waiting", "busy", "conflict", "not_found", "changed"]
    turn: TurnRow | None = None
    """The turn in question (for `new` and `resume`: ours)."""
    fence: int = 0
    """Proof of the lease; 0 without one."""
    closed: TurnRow | None = None
    """The turn that was closed to make way for this one, if any; its status is already "closed"."""
    died: bool = False
    """Whether whoever worked on the turn that goes on, or that was closed, left it without a word: killed, or taken over."""
    reason: str = ""
    """For conflict and changed: what exactly differs, in plain words."""


class Storage(ABC):
    """The port. Methods marked *queued* return at once; async ones may be awaited from any event loop."""

    @property
    @abstractmethod
    def checkpointer(self) -> BaseCheckpointSaver[Any]:
        """LangGraph's saver over the same file and the same queue; its writes return once queued."""

    # -- who may run ------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def claim(self, request: TurnRequest, owner: object) -> Claim:
        """Decide in one transaction what `request` may do, and take the lease where it may run.

        `owner` is the attempt (an object that lives as long as it, say its task): the lease is renewed from a thread until
        `release`, and lapses when the object is collected, or the task is done, or its loop is closed. A lease whose owner's
        process is dead is taken over at once.

        Raises:
            StorageError: the storage cannot be opened or read.
            NotDurable: the lease could not be committed.
        """

    @abstractmethod
    async def release(self, key: TurnKey, *, fence: int) -> None:
        """Give the lease back once everything queued for the turn is on disk; never raises LeaseLost."""

    # -- writing ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def put(self, row: Row, *, fence: int) -> None:
        """Queue `row` (*queued*). Raises NotDurable or LeaseLost if an earlier write of this turn failed."""

    @abstractmethod
    def reserve(self, row: LedgerRow, *, fence: int, caps: Sequence[BudgetCap]) -> Awaitable[BudgetAnswer]:
        """Queue `row` (*queued*); it is written if each budget of `caps` holds it beside what counts there already, else not.

        Decided and written in one transaction, whoever else reserves in this or another process. A row that is there already is
        replaced, and only the difference has to fit; one that asks for no more is granted.
        `row.charges` are those of `caps`. What a `put` of the row makes of it later
        (settled, failed) moves its budgets in that same transaction; a row that is left as it is counts for ever, but one of kind
        "landing": it counts until its run is deleted, a claim closes its turn, or its turn ends; or the like befalls the turn of which it
        is part (`TurnRow.parent`), where that has a row of it ("subagent"). The answer
        comes once committed; await `durable` before acting on it.

        Raises:
            NotDurable, LeaseLost: as for `put`. StorageError: it could not be decided.
        """

    @abstractmethod
    async def budget_use(self, charge: Charge) -> BudgetUse:
        """Return what counts in a shared budget now; nothing in one that nobody has used."""

    @abstractmethod
    async def budgets(self, namespace: str) -> Sequence[tuple[Charge, BudgetUse]]:
        """Return the shared budgets that were ever used, and what counts in each; by name, of each the newest day first."""

    @abstractmethod
    async def durable(self, key: TurnKey, *, fence: int | None = None) -> None:
        """Return when everything queued so far, by anybody, is on disk.

        `fence`: of the claim that asks; None: whoever writes for the run in this storage.

        Raises:
            NotDurable: it is not on disk, or an earlier write of this turn failed.
            LeaseLost: the claim is not the run's newest any more.
        """

    # -- reading (each sees all that this process has queued) ----------------------------------------------------------------

    @abstractmethod
    async def turns(self, namespace: str, run_id: str) -> Sequence[TurnRow]:
        """Return the turns of a run in order; empty for an unknown run."""

    @abstractmethod
    async def journal(self, key: TurnKey) -> Sequence[JournalRow]:
        """Return the tool calls of a turn by (step, index)."""

    @abstractmethod
    async def ledger(self, key: TurnKey) -> Sequence[LedgerRow]:
        """Return the attempts at model calls of a turn by entry."""

    @abstractmethod
    async def notes(self, key: TurnKey) -> Sequence[NoteRow]:
        """Return the notes of a turn in order."""

    @abstractmethod
    async def unfinished(self, namespace: str, agent: str) -> Sequence[TurnRow]:
        """Return this agent's turns that were begun and not ended, and that nobody alive works on (`running`, `stopped`).

        Not those with a parent: they are taken up again by its resume.
        """

    @abstractmethod
    async def runs(self, namespace: str | None = None, *, limit: int = 50) -> Sequence[TurnRow]:
        """Return the newest turn of each run, newest first."""

    # -- the default memory ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def load_memory(self, namespace: str, run_id: str) -> list[Message]:
        """Return the saved messages of a run; an empty list for an unknown one."""

    @abstractmethod
    async def save_memory(self, namespace: str, run_id: str, messages: Sequence[Message]) -> None:
        """Queue the whole list; only what differs from the last saved list is written. Durable with the next barrier."""

    # -- housekeeping -----------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def delete(self, namespace: str, run_id: str) -> None:
        """Delete everything of a run, its checkpoints and its memory too; one that is not there is no error.

        Raises:
            RunInProgress: somebody alive works on it.
        """

    @abstractmethod
    async def prune(self, *, before: float, namespace: str | None = None) -> Sequence[tuple[str, str]]:
        """Delete every run that is over and was last touched before `before` (seconds since the epoch).

        Over: each of its turns has ended, and so has the parent of each that has one; and nobody alive works on it.
        `namespace` None: of all namespaces.

        Returns:
            (namespace, run_id) of each run that was deleted.
        """

    @abstractmethod
    async def close(self) -> None:
        """Write what is queued and close; a second call does nothing. Never hangs."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the storage is, as a person would name it (a path, or ":memory:")."""

    @property
    @abstractmethod
    def promises(self) -> Sequence[str]:
        """What this storage survives, one plain sentence each, for `guarantees()`."""
