"""What the storage's contract is made of: rows and requests with one thing changed, attempts that end, storages that are closed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, ClassVar, ParamSpec

import pytest

from agent_graph.storage.port import (
    Claim,
    JournalRow,
    LedgerRow,
    Row,
    Storage,
    TurnKey,
    TurnRequest,
    TurnRow,
)
from agent_graph.types import Message, MessageRole

__all__ = [
    "WIDEST",
    "Attempt",
    "StorageFixtures",
    "begun",
    "checkpointed",
    "claimed",
    "ended",
    "in_a_loop",
    "journal_row",
    "ledger_row",
    "left",
    "remembered",
    "request",
    "thread",
    "turn_of",
    "turn_row",
    "written",
]

P = ParamSpec("P")
WIDEST = 2**63 - 1


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of an async function: each runs in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Attempt:
    """An attempt at a turn that ends when the test says so."""

    def __init__(self) -> None:
        self.over = False

    def done(self) -> bool:
        """Return whether it is over."""
        return self.over


def request(text: str | None = "hello", run_id: str = "r", **other: Any) -> TurnRequest:
    """Return a request with one thing changed."""
    base = TurnRequest(
        namespace="default", run_id=run_id, agent="agent", input=text, request_id=None, fingerprint="f", on_unfinished="conflict"
    )
    return replace(base, **other)


def journal_row(key: TurnKey, number: int, **other: Any) -> JournalRow:
    """Return a tool call with one thing changed."""
    base = JournalRow(
        key=key, call_key=f"{number:032x}", step=number, index=0, call_id=f"c{number}", tool="t", args="{}", idempotent=False,
        state="started",
    )  # fmt: skip
    return replace(base, **other)


def ledger_row(key: TurnKey, entry: int, **other: Any) -> LedgerRow:
    """Return a model call with one thing changed."""
    return replace(LedgerRow(key=key, entry=entry, step=entry, kind="step", attempt=1, model="m", state="reserved", bound_nusd=7), **other)


def turn_row(run_id: str, number: int, status: Any, at: float, namespace: str = "default", agent: str = "agent") -> TurnRow:
    """Return a turn of `status`, begun and last touched at `at`."""
    return TurnRow(key=TurnKey(namespace, run_id, number), agent=agent, input="", status=status, started_at=at, updated_at=at)


async def begun(storage: Storage, owner: object, **other: Any) -> tuple[TurnRow, int]:
    """Begin a new turn; return it and its fence."""
    claim = await storage.claim(request(**other), owner)
    assert (claim.outcome, claim.turn is None, claim.fence > 0) == ("new", False, True)
    assert claim.turn is not None
    return claim.turn, claim.fence


async def ended(storage: Storage, turn: TurnRow, fence: int, **other: Any) -> TurnRow:
    """End the turn and give its lease back."""
    row = replace(turn, **{"status": "complete", "result": "{}", **other})
    storage.put(row, fence=fence)
    await storage.release(turn.key, fence=fence)
    return row


async def claimed(storage: Storage) -> Claim:
    """Claim the run for the task that runs this."""
    return await storage.claim(request(), asyncio.current_task())


def turn_of(claim: Claim) -> TurnRow:
    """Return the turn of a claim that has one."""
    assert claim.turn is not None
    return claim.turn


async def written(storage: Storage, row: Row, fence: int) -> None:
    """Put `row` and wait until it is on disk."""
    storage.put(row, fence=fence)
    await storage.durable(row.key, fence=fence or None)


async def remembered(storage: Storage, key: TurnKey, text: str) -> None:
    """Save a memory and wait until it is on disk."""
    await storage.save_memory(key.namespace, key.run_id, [Message(MessageRole.USER, text)])
    await storage.durable(key)


async def checkpointed(storage: Storage, key: TurnKey, config: Any) -> str:
    """Put a checkpoint, wait until it is on disk, and return its id."""
    from langgraph.checkpoint.base import empty_checkpoint

    checkpoint = empty_checkpoint()
    await storage.checkpointer.aput(config, checkpoint, {"source": "loop", "step": 1}, {})
    await storage.durable(key)
    return checkpoint["id"]


def thread(run_id: str) -> Any:
    """Return the config of a run's checkpoints."""
    return {"configurable": {"thread_id": run_id, "checkpoint_ns": ""}}


async def left(storage: Storage, key: TurnKey) -> list[int]:
    """Return how much is left of a run: turns, journal, ledger, notes, messages, checkpoints."""
    reads: list[Awaitable[Any]] = [
        storage.turns(key.namespace, key.run_id), storage.journal(key), storage.ledger(key), storage.notes(key),
        storage.load_memory(key.namespace, key.run_id),
    ]  # fmt: skip
    checkpoints = [found async for found in storage.checkpointer.alist(thread(key.run_id))]
    return [*[len(await read) for read in reads], len(checkpoints)]


class StorageFixtures:
    """What the suite stands on: how a storage is opened, and that it is closed."""

    shared: ClassVar[bool] = True
    """Whether two storages can stand over one place; False for one that lives in the memory of its object."""

    @pytest.fixture
    def open_storage(self) -> Callable[[], Storage]:
        """Return what opens a storage: over the same place at each call of one test, over an empty one at the first."""
        raise NotImplementedError("give your suite a fixture named `open_storage`")

    @pytest.fixture
    def opened(self, open_storage: Callable[[], Storage]) -> Iterator[Callable[[], Storage]]:
        """Return what opens a storage that is closed after the test; where it is not `shared`, always the same one."""
        made: list[Storage] = []

        def one() -> Storage:
            if not made or self.shared:
                made.append(open_storage())
            return made[-1]

        yield one
        for storage in made:
            asyncio.run(storage.close())

    @pytest.fixture
    def storage(self, opened: Callable[[], Storage]) -> Storage:
        """Return a storage over an empty place."""
        return opened()
