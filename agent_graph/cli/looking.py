"""`runs` and `show`: what is in the storage. No model is chosen, no graph built, no storage made where none is.

A file that was named and is not there is a mistake, and said to be one: `prune` on a misspelt path would otherwise tell every night
that it had deleted nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_graph.cli import words
from agent_graph.cli.arguments import storage_option
from agent_graph.config import validate_run_id
from agent_graph.errors import RunNotFound, StorageError
from agent_graph.runtime.account import stored_run, to_json
from agent_graph.types import AgentRun

if TYPE_CHECKING:
    from agent_graph.storage.port import LedgerRow, Storage, TurnRow

__all__ = ["NAMESPACE", "insist_on_storage", "opened", "runs", "show", "unpriced"]

NAMESPACE = "default"
UNFINISHED = ("running", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A turn as the storage has it."""

    row: TurnRow
    run: AgentRun
    unpriced: bool
    """Whether one of its model calls had no price."""

    @property
    def status(self) -> str:
        """The AgentRun's status, or what the row knows better (stopped, waiting, closed)."""
        return self.row.status


def runs(arguments: Namespace) -> int:
    """List the runs, newest first."""
    seen = asyncio.run(_newest(arguments.storage, arguments.limit))
    if arguments.json:
        print(json.dumps([_as_json(turn) for turn in seen], ensure_ascii=False))
    elif seen:
        print("\n".join(words.table([_HEAD, *(_row(turn, time.time()) for turn in seen)])))
    else:
        print('no runs yet; the first: agent-graph run "What is the weather in Paris?"')
    return 0


_HEAD = ("RUN", "TURN", "STATUS", "STEPS", "COST", "AGE", "INPUT")


def _row(turn: _Seen, now: float) -> tuple[str, ...]:
    run = turn.run
    cost = words.money(run.total_cost_usd, unpriced=turn.unpriced and not run.total_cost_usd)
    return (
        words.one_line(run.run_id, 40),
        str(run.turn),
        turn.status,
        str(run.steps),
        cost,
        words.age(now - turn.row.updated_at),
        words.one_line(run.input, 48),
    )


def show(arguments: Namespace) -> int:
    """Show every turn of one run."""
    run_id = validate_run_id(arguments.run_id)
    turns = asyncio.run(_turns(arguments.storage, run_id))
    if not turns:
        raise RunNotFound(f"No run {run_id!r} is in the storage. `agent-graph runs` lists those that are.", run_id=run_id)
    if arguments.json:
        print(json.dumps({"run_id": run_id, "turns": [_as_json(turn) for turn in turns]}, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_described(turn, len(turns), time.time())) for turn in turns))
        if turns[-1].status in UNFINISHED:
            print(f"\ngo on with it: {words.command_line('resume', run_id, storage_option(arguments))}")
        for line in words.to_settle(turns[-1].run, storage_option(arguments)):
            print(line)
    return 0


def _described(turn: _Seen, of: int, now: float) -> list[str]:
    run = turn.run
    age = words.age(now - turn.row.updated_at)
    lines = [f"turn {run.turn} of {of}, {turn.status}, {age}{'' if age == 'now' else ' ago'}"]
    lines += [f"> {line}" for line in words.printable(run.input).splitlines()]
    for call in run.tool_calls:
        lines += [f"  {words.call_text(call)}", f"    {words.outcome(call)}"]
    lines += [words.printable(run.output)] if run.output else []
    return lines + words.account(run, unpriced=turn.unpriced, status=turn.status)


def _as_json(turn: _Seen) -> dict[str, Any]:
    return {
        **json.loads(to_json(turn.run)),
        "status": turn.status,
        "unpriced": turn.unpriced,
        "started_at": _utc(turn.row.started_at),
        "updated_at": _utc(turn.row.updated_at),
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


async def _newest(path: str | None, limit: int) -> list[_Seen]:
    if path is None and absent_location(path) is not None:
        return []
    async with opened(path) as storage:
        return [await _seen(storage, row) for row in await storage.runs(NAMESPACE, limit=limit)]


async def _turns(path: str | None, run_id: str) -> list[_Seen]:
    async with opened(path) as storage:
        return [await _seen(storage, row) for row in await storage.turns(NAMESPACE, run_id)]


@asynccontextmanager
async def opened(path: str | None) -> AsyncIterator[Storage]:
    """Open the storage that is there: looking should not leave a folder behind. Raises StorageError where there is none."""
    from agent_graph.storage.opening import open_storage

    insist_on_storage(path)
    storage = open_storage(path)
    try:
        yield storage
    finally:
        await storage.close()


def insist_on_storage(path: str | None) -> None:
    """Raise StorageError where no storage is: what a command should find there, it does not begin."""
    location = absent_location(path)
    if location is not None:
        raise StorageError(
            f"storage {location}: there is no such file, so nothing is kept there. "
            "Name the one that is meant with --storage PATH; `agent-graph run` makes a new one."
        )


def absent_location(path: str | None) -> str | None:
    """Return where the storage would be, if it is not there; None if it is."""
    from agent_graph.storage.location import VARIABLE
    from agent_graph.storage.opening import open_storage

    location = open_storage(path).location  # opens and creates nothing
    named = path is not None or bool(os.environ.get(VARIABLE))
    # Where nothing can be written here, the default place is elsewhere, and only opening it tells where.
    return location if not Path(location).exists() and (named or os.access(Path.cwd(), os.W_OK)) else None


async def _seen(storage: Storage, row: TurnRow) -> _Seen:
    """Return a turn with its account: the stored one, or for an unfinished turn the one that its rows give."""
    ledger = await storage.ledger(row.key)
    run = await stored_run(storage, row)
    return _Seen(row=row, run=run, unpriced=unpriced(ledger))


def unpriced(ledger: Sequence[LedgerRow]) -> bool:
    """Return whether a model call had no price: one that is settled, or whose bill is unknown."""
    return any(row.usage is not None and json.loads(row.usage).get("unpriced") is True for row in ledger)
