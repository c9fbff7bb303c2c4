"""What is done with a call, for everything that a journal may say of it and every word that may be given on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from agent_graph import Done, NotDone, Reject, Unknown
from agent_graph.config import AgentConfig
from agent_graph.decisions import prompt
from agent_graph.resolutions import Resolution
from agent_graph.runtime.asking import doubt_key
from agent_graph.runtime.tool_call import INTERRUPTED, End, JournaledCall, planned
from agent_graph.runtime.turn import Turn
from agent_graph.storage.port import JournalRow, TurnKey


@dataclass
class Rows:
    """The part of a turn in which a call lives."""

    key: TurnKey = field(default_factory=lambda: TurnKey("default", "r", 1))
    journal: dict[str, JournalRow] = field(default_factory=dict)
    resolutions: dict[str, Resolution] = field(default_factory=dict)

    def record(self, row: JournalRow, **changes: Any) -> JournalRow:
        self.journal[row.call_key] = row = replace(row, **changes)
        return row


class Told(JournaledCall[str]):
    """Says what was done. Each run of the tool ends as `runs` says: in this state, with this error."""

    def __init__(
        self, rows: Rows, row: JournalRow, record: Any, runs: list[tuple[End, str]], word: Resolution | None, **config: Any
    ) -> None:
        super().__init__(cast(Turn, rows), row, record, config=AgentConfig.from_mapping(config), tools=self)
        self.did: list[str] = []
        self._runs, self._word = iter(runs), word

    def can_reconcile(self, name: str) -> bool:
        return self._word is not None

    async def reconcile(self, call: Any) -> Any:
        self.did.append("asked the tool")
        return self._word

    async def run(self, attempt: int) -> str | None:
        self.did.append(f"ran {attempt}")
        state, error = next(self._runs)
        self.turn.record(self.row, state=state, attempt=attempt, error=error or None)
        return None if state == "in_doubt" else state

    async def replayed(self) -> str:
        return "replayed"

    def ended(self, state: End, *, result: Any = None, error: str | None = None) -> str:
        self.turn.record(self.row, state=state, error=error)
        return f"{state}: {error if result is None else result}"


def doubt(reason: str) -> str:
    """What a call gives whose outcome the model is told to be unknown."""
    return f"in_doubt: OutcomeUnknown: {prompt.IN_DOUBT} ({reason})"


@pytest.mark.parametrize(
    ("state", "idempotent", "runs", "word", "did", "end"),
    [
        ("planned", False, [("succeeded", "")], None, ["ran 1"], "succeeded"),
        ("planned", False, [("in_doubt", "timed out")], None, ["ran 1"], doubt("timed out")),
        ("planned", True, [("in_doubt", ""), ("succeeded", "")], None, ["ran 1", "ran 2"], "succeeded"),
        ("planned", True, [("in_doubt", "late")] * 3, None, ["ran 1", "ran 2", "ran 3"], doubt("late")),
        ("started", False, [], None, [], doubt(INTERRUPTED)),
        ("started", True, [("succeeded", "")], None, ["ran 2"], "succeeded"),
        ("started", False, [], Done("receipt 17"), ["asked the tool"], "succeeded: receipt 17"),
        ("started", False, [("succeeded", "")], NotDone(), ["asked the tool", "ran 2"], "succeeded"),
        (
            "started",
            False,
            [("in_doubt", ""), ("in_doubt", "")],
            NotDone(),
            ["asked the tool", "ran 2", "asked the tool", "ran 3", "asked the tool"],
            "failed: ToolNotExecuted: it was not done, and no attempt is left.",
        ),
        ("started", False, [], Unknown(), ["asked the tool"], doubt(INTERRUPTED)),
        ("succeeded", False, [], Done("other"), [], "replayed"),
        ("cancelled", True, [], None, [], "replayed"),
    ],
)
async def test_what_the_journal_says_is_done(state: Any, idempotent: bool, runs: Any, word: Any, did: list[str], end: str) -> None:
    rows = Rows()
    row, record = planned(cast(Turn, rows), run_id="r", step=1, index=0, call_id="c", tool="pay", args={"usd": 5}, idempotent=idempotent)
    if state != "planned":
        rows.record(row, state=state, attempt=1)
    call = Told(rows, row, record, runs, word)
    assert await call.settled() == end
    assert call.did == did


@pytest.mark.parametrize(
    ("word", "did", "end"),
    [
        (Done("receipt 17"), [], "succeeded: receipt 17"),
        (Reject("no more"), [], "cancelled: Cancelled: no more"),
        (NotDone(), ["ran 2"], "in_doubt: OutcomeUnknown"),
        (Unknown(), [], "in_doubt: OutcomeUnknown"),
    ],
)
async def test_a_persons_word_is_on_one_attempt(word: Resolution, did: list[str], end: str) -> None:
    """ "It was not done" lets the tool run once more; of that attempt nobody has said anything, and nobody is asked a second time."""
    rows = Rows()
    row, record = planned(cast(Turn, rows), run_id="r", step=1, index=0, call_id="c", tool="pay", args={}, idempotent=False)
    row = rows.record(row, state="in_doubt", attempt=1, error="timed out")
    rows.resolutions[doubt_key(row)] = word
    call = Told(rows, row, record, [("in_doubt", "again")], None, on_doubt="ask")
    assert (await call.settled()).startswith(end)
    assert call.did == did
