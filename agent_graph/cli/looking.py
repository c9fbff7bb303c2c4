"""`runs`, `show` and `budgets`: what is in the storage. No model is chosen, no graph built, no storage made where none is.

A file that was named and is not there is a mistake, and said to be one: `prune` on a misspelt path would otherwise tell every night
that it had deleted nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_graph.cli import words
from agent_graph.cli.arguments import place_options
from agent_graph.config import validate_run_id
from agent_graph.errors import RunNotFound, StorageError
from agent_graph.runtime.account import stored_run, to_json, usd
from agent_graph.types import AgentRun

if TYPE_CHECKING:
    from agent_graph.storage.port import BudgetUse, Charge, LedgerRow, Storage, TurnRow

__all__ = ["budgets", "insist_on_storage", "opened", "runs", "show", "unknown", "unpriced"]

UNFINISHED = ("running", "stopped")
MOST_RUN_ID = 255
MOST_LOOKED_AT = 1_000
"""Runs that are looked through for other namespaces."""


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
    """List the runs, newest first, each by its newest turn."""
    seen, elsewhere = asyncio.run(_newest(arguments))
    if arguments.json:
        print(json.dumps([_as_json(turn) for turn in seen], ensure_ascii=False))
    elif seen:
        print("\n".join(words.table([_HEAD, *(_row(turn, time.time()) for turn in seen)])))
        if any(turn.row.parent is not None for turn in seen):
            print("\nwhat a sub-agent's run (parent/...) cost is in its parent's cost too")
    elif elsewhere:
        print(f"no runs in the namespace {arguments.namespace!r}; there are some in others: --namespace {', '.join(elsewhere)}")
    else:
        print('no runs yet; the first: agent-graph run "What is the weather in Paris?"')
    return 0


_HEAD = ("RUN", "TURN", "STATUS", "STEPS", "COST", "AGE", "INPUT")


def _row(turn: _Seen, now: float) -> tuple[str, ...]:
    run = turn.run
    cost = words.money(run.total_cost_usd, unpriced=turn.unpriced and not run.total_cost_usd)
    return (
        words.one_line(run.run_id, MOST_RUN_ID),  # a name that is cut cannot be typed
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
    turns = asyncio.run(_turns(arguments, run_id))
    if not turns:
        raise unknown(run_id, arguments)
    if arguments.json:
        print(json.dumps({"run_id": run_id, "turns": [_as_json(turn) for turn in turns]}, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_described(turn, len(turns), time.time())) for turn in turns))
        if len(turns) > 1:
            print(f"\nin all: {_total(turns)}")
        if turns[-1].status in UNFINISHED and arguments.namespace != words.MIDDLEWARE:
            print(f"\ngo on with it: {words.command_line('resume', run_id, place_options(arguments))}")
        for line in words.to_settle(turns[-1].run, place_options(arguments)):
            print(line)
    return 0


def budgets(arguments: Namespace) -> int:
    """List the shared budgets. How much each may hold is not known here: the programs say it that name them."""
    found = asyncio.run(_budgets(arguments))
    if arguments.json:
        print(json.dumps([_budget_as_json(charge, use) for charge, use in found], ensure_ascii=False))
    elif found:
        rows = [(words.one_line(charge.budget, MOST_RUN_ID), charge.period or "total", *_amounts(use)) for charge, use in found]
        print("\n".join(words.table([("BUDGET", "PERIOD", "COST", "TOKENS"), *rows])))
    else:
        where = f"in the namespace {arguments.namespace!r}"
        print(f"no shared budget was ever used {where}; an agent shares one by budget=Budget(...): docs/budgets.md")
    return 0


def _amounts(use: BudgetUse) -> tuple[str, str]:
    return words.money(usd(use.nusd)), f"{use.tokens:,}"


def _budget_as_json(charge: Charge, use: BudgetUse) -> dict[str, Any]:
    return {"budget": charge.budget, "period": charge.period or "total", "cost_usd": float(usd(use.nusd)), "tokens": use.tokens}


def unknown(run_id: str, arguments: Namespace) -> RunNotFound:
    """Return the error for a run that is not there."""
    command = shlex.join(["agent-graph", "runs", *place_options(arguments)])
    return RunNotFound(f"No run {run_id!r} is in the storage. `{command}` lists those that are.", run_id=run_id)


def _total(turns: Sequence[_Seen]) -> str:
    runs = [turn.run for turn in turns]
    parts = [
        words.counted(len(runs), "turn"),
        words.counted(sum(run.steps for run in runs), "step"),
        words.counted(sum(run.total_tokens for run in runs), "token"),
        words.money(
            sum(Decimal(str(run.total_cost_usd)) for run in runs),
            unpriced=any(turn.unpriced for turn in turns),
            uncertain_usd=sum(Decimal(str(run.cost_uncertain_usd)) for run in runs),
        ),
    ]
    return ", ".join(parts)


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


async def _newest(arguments: Namespace) -> tuple[list[_Seen], list[str]]:
    """Return the runs of the namespace; where it has none, the namespaces that have."""
    path = arguments.storage
    if path is None and absent_location(path) is not None:
        return [], []
    async with opened(path) as storage:
        seen = [await _seen(storage, row) for row in await storage.runs(arguments.namespace, limit=arguments.limit)]
        others = [] if seen else await storage.runs(None, limit=MOST_LOOKED_AT)
        return seen, sorted({row.key.namespace for row in others})


async def _budgets(arguments: Namespace) -> Sequence[tuple[Charge, BudgetUse]]:
    if arguments.storage is None and absent_location(None) is not None:
        return []
    async with opened(arguments.storage) as storage:
        return await storage.budgets(arguments.namespace)


async def _turns(arguments: Namespace, run_id: str) -> list[_Seen]:
    async with opened(arguments.storage) as storage:
        return [await _seen(storage, row) for row in await storage.turns(arguments.namespace, run_id)]


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
