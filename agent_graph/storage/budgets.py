"""Shared budgets: sums that move together with the ledger rows that count in them.

A budget is one row: what is settled, and what is reserved or of unknown end at its bound, summed over every ledger row that names
it. Whoever writes such a row moves the sum by the difference to the row before, in the same transaction; SQLite lets one process
write at a time, so "does it still fit" and "it is reserved" are one step, whoever else asks. A run that is deleted leaves the sum as
it is: the money is spent. What was held for a landing and not spent is given back: by the turn itself, or where a dead one is closed or
deleted, or the turn ends inside which it was begun (which may never have called it again).

Each function here runs in the writer's thread (`use` and `uses` in a reader's), inside its transaction, and depends on the database alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from agent_graph.storage.port import BudgetAnswer, BudgetCap, BudgetUse, Charge, LedgerRow, Redactor
from agent_graph.storage.rows import LEDGER_COLUMNS, read_ledger, statement

__all__ = ["book", "give_back", "reserve", "use", "uses"]

_MOVE = (
    "INSERT INTO ag_budgets (namespace, budget, period, nusd, tokens) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (namespace, budget, period) DO UPDATE SET nusd = nusd + excluded.nusd, tokens = tokens + excluded.tokens"
)


def reserve(connection: sqlite3.Connection, row: LedgerRow, caps: Sequence[BudgetCap], redact: Redactor | None) -> BudgetAnswer:
    """Write `row` if each of `caps` holds it; return whether, and what counts in each budget now."""
    before, after = _counts(_stored(connection, row)), _counts(row)
    more = BudgetUse(after.nusd - before.nusd, after.tokens - before.tokens)
    granted = all(_holds(cap, use(connection, cap.charge), more) for cap in caps)
    if granted:
        book(connection, row, redact)
    return BudgetAnswer(granted, tuple(use(connection, cap.charge) for cap in caps))


def book(connection: sqlite3.Connection, row: LedgerRow, redact: Redactor | None) -> None:
    """Write `row`, and move the budgets in which it counts."""
    stored = _stored(connection, row)
    if stored is not None:
        _move(connection, stored, -1)
    _move(connection, row, +1)
    sql, parameters, _ = statement(row, redact)
    connection.execute(sql, parameters)


def give_back(connection: sqlite3.Connection, namespace: str, run_id: str, turn: int | None = None) -> None:
    """Let nothing be held any more for a landing of this run (of one `turn`; None: of each), and of the turns that were begun inside it."""
    which = "namespace = ? AND run_id = ?"
    values: list[str | int] = [namespace, run_id]
    if turn is not None:  # else the index would not be used for it, and every end of a turn would read the rows of all before it
        which, values = f"{which} AND turn = ?", [*values, turn]
    sql = f"SELECT {LEDGER_COLUMNS} FROM ag_ledger WHERE {which} AND kind = 'landing' AND state = 'reserved'"  # noqa: S608 - constants only
    for found in connection.execute(sql, values).fetchall():
        book(connection, replace(read_ledger(found), state="failed"), None)
    name = "json_extract(usage, '$.run[0]'), json_extract(usage, '$.run[1]'), json_extract(usage, '$.run[2]')"
    sql = f"SELECT {name} FROM ag_ledger WHERE {which} AND kind = 'subagent' AND json_valid(usage)"  # noqa: S608 - constants only
    for below in connection.execute(sql, values).fetchall():
        give_back(connection, *below)


def use(connection: sqlite3.Connection, charge: Charge) -> BudgetUse:
    """Return what counts in a budget."""
    sql = "SELECT nusd, tokens FROM ag_budgets WHERE namespace = ? AND budget = ? AND period = ?"
    found = connection.execute(sql, (charge.namespace, charge.budget, charge.period)).fetchone()
    return BudgetUse(*found) if found else BudgetUse()


def uses(connection: sqlite3.Connection, namespace: str) -> list[tuple[Charge, BudgetUse]]:
    """Return every budget of a namespace, and what counts in it."""
    sql = "SELECT budget, period, nusd, tokens FROM ag_budgets WHERE namespace = ? ORDER BY budget, period DESC"
    found = connection.execute(sql, (namespace,))
    return [(Charge(namespace, budget, period), BudgetUse(nusd, tokens)) for budget, period, nusd, tokens in found]


def _stored(connection: sqlite3.Connection, row: LedgerRow) -> LedgerRow | None:
    sql = f"SELECT {LEDGER_COLUMNS} FROM ag_ledger WHERE namespace = ? AND run_id = ? AND turn = ? AND entry = ?"  # noqa: S608 - constants only
    found = connection.execute(sql, (row.key.namespace, row.key.run_id, row.key.turn, row.entry)).fetchone()
    return None if found is None else read_ledger(found)


def _counts(row: LedgerRow | None) -> BudgetUse:
    if row is None:
        return BudgetUse()
    if row.state in ("reserved", "unsettled"):
        return BudgetUse(row.cost_nusd + row.bound_nusd, row.tokens + row.bound_tokens)
    return BudgetUse(row.cost_nusd, row.tokens)


def _holds(cap: BudgetCap, used: BudgetUse, more: BudgetUse) -> bool:
    """Return whether a cap holds `more`; what is no more is held, also in a budget that is over its cap."""
    if cap.max_nusd is not None and used.nusd + more.nusd > cap.max_nusd and more.nusd > 0:
        return False
    return cap.max_tokens is None or used.tokens + more.tokens <= cap.max_tokens or more.tokens <= 0


def _move(connection: sqlite3.Connection, row: LedgerRow, sign: int) -> None:
    counts = _counts(row)
    for charge in row.charges:
        connection.execute(_MOVE, (charge.namespace, charge.budget, charge.period, sign * counts.nusd, sign * counts.tokens))
