"""What is read and written in one transaction with a lease: claims, renewals, the fence, deletion.

Each function here runs in the writer's thread, inside its transaction, and depends on the database alone: the writer may roll
a batch back and run them again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from agent_graph.errors import LeaseLost, RunInProgress
from agent_graph.storage import budgets
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.claims import Decision, Past, decide
from agent_graph.storage.leases import Hold, Lease, Owner, is_alive, is_being_taken, this_process
from agent_graph.storage.port import Claim, Redactor, TurnKey, TurnRequest, TurnRow, thread_id_of
from agent_graph.storage.rows import TURN_COLUMNS, input_hash, read_turn, statement, storable

__all__ = ["claim", "delete", "give_back", "guard", "over", "prune", "renew", "run_of", "stop", "unfinished"]

_OUR_TABLES = ("ag_turns", "ag_leases", "ag_journal", "ag_ledger", "ag_notes", "ag_memory", "ag_memory_heads")
_LEASE_COLUMNS = "fence, token, owner, until_monotonic, until_wall, lease_s"


def run_of(thread_id: str) -> tuple[str, str]:
    """Return (namespace, run_id) of a thread_id; the inverse of `thread_id_of`."""
    namespace, separator, run_id = thread_id.partition("\x1f")
    return (namespace, run_id) if separator else ("default", thread_id)


def guard(connection: sqlite3.Connection, attempt: Attempt) -> None:
    """Raise LeaseLost if `attempt` may not write: its fence is not the run's newest, or it has none and somebody alive has."""
    lease = _lease(connection, attempt.namespace, attempt.run_id)
    if attempt.fence:
        if lease is None or lease.fence != attempt.fence:
            raise LeaseLost(
                f"run {attempt.run_id!r}: it was taken over, so nothing of this attempt is recorded any more.",
                run_id=attempt.run_id,
            )
    elif lease is not None and _is_held(lease) and not is_being_taken(lease):
        raise LeaseLost(f"run {attempt.run_id!r}: somebody works on it, and this attempt holds no lease.", run_id=attempt.run_id)


# -- claims ------------------------------------------------------------------------------------------------------------


def claim(connection: sqlite3.Connection, request: TurnRequest, hold: Hold, *, redact: Redactor | None) -> Claim:
    """Decide what `request` may do, and write the turn and the lease where it may run."""
    request = replace(request, fingerprint=storable(request.fingerprint, redact))  # as the one that it is compared with was stored
    lease = _lease(connection, request.namespace, request.run_id)
    alive = lease is not None and _is_held(lease)
    last = _past(connection, request, alive, "ORDER BY turn DESC LIMIT 1", ())
    repeated = awaited = None
    if request.request_id is not None:
        repeated = _past(
            connection,
            request,
            alive,
            "AND request_id = ? ORDER BY turn DESC LIMIT 1",
            (storable(request.request_id, None),),
        )
    if request.awaited is not None:
        awaited = _past(connection, request, alive, "AND turn = ?", (request.awaited,))
    decision = decide(last, request, repeated=repeated, awaited=awaited)
    match decision.outcome:
        case "new":
            number = last.turn.key.turn + 1 if last is not None else 1
            return _begin(connection, request, hold, decision, number, redact)
        case "resume":
            return _go_on(connection, request, hold, decision)
        case outcome:
            return Claim(outcome=outcome, turn=decision.turn, reason=decision.reason)


def _past(connection: sqlite3.Connection, request: TurnRequest, alive: bool, rest: str, values: Sequence[Any]) -> Past | None:
    sql = f"SELECT {TURN_COLUMNS}, input_hash FROM ag_turns WHERE namespace = ? AND run_id = ? {rest}"  # noqa: S608 - constants only
    row = connection.execute(sql, (request.namespace, request.run_id, *values)).fetchone()
    if row is None:
        return None
    *columns, stored_hash = row
    same = request.input is not None and input_hash(request.input) == stored_hash
    return Past(turn=read_turn(columns), alive=alive, same_input=same)


def _begin(
    connection: sqlite3.Connection,
    request: TurnRequest,
    hold: Hold,
    decision: Decision,
    number: int,
    redact: Redactor | None,
) -> Claim:
    closed = decision.turn if decision.close else None
    now = time.time()
    if closed is not None:
        closed = replace(closed, status="closed", updated_at=now)
        _set_status(connection, closed)
        budgets.give_back(connection, request.namespace, request.run_id)
    assert request.input is not None  # `decide` opens a turn only for an input
    turn = TurnRow(
        key=TurnKey(request.namespace, request.run_id, number),
        agent=request.agent,
        input=request.input,
        status="running",
        request_id=request.request_id,
        fingerprint=request.fingerprint,
        parent=request.parent,
        started_at=now,
        updated_at=now,
    )
    sql, parameters, _ = statement(turn, redact)
    connection.execute(sql, parameters)
    return Claim(outcome="new", turn=turn, fence=_take_lease(connection, hold), closed=closed, died=closed is not None and _died(decision))


def _go_on(connection: sqlite3.Connection, request: TurnRequest, hold: Hold, decision: Decision) -> Claim:
    assert decision.turn is not None  # `decide` names the turn that it resumes
    fingerprint = request.fingerprint or decision.turn.fingerprint
    turn = replace(decision.turn, status="running", delivered=False, fingerprint=fingerprint, updated_at=time.time())
    _set_status(connection, turn)
    return Claim(outcome="resume", turn=turn, fence=_take_lease(connection, hold), died=_died(decision))


def _died(decision: Decision) -> bool:
    """Return whether the turn in question was left at work: whoever ends, stops or waits says so in its row."""
    return decision.turn is not None and decision.turn.status == "running"


def _set_status(connection: sqlite3.Connection, turn: TurnRow) -> None:
    connection.execute(
        "UPDATE ag_turns SET status = ?, delivered = ?, fingerprint = ?, updated_at = ? WHERE namespace = ? AND run_id = ? AND turn = ?",
        (
            turn.status,
            turn.delivered,
            turn.fingerprint,
            turn.updated_at,
            turn.key.namespace,
            turn.key.run_id,
            turn.key.turn,
        ),
    )


# -- leases ------------------------------------------------------------------------------------------------------------


def _lease(connection: sqlite3.Connection, namespace: str, run_id: str) -> Lease | None:
    sql = f"SELECT {_LEASE_COLUMNS} FROM ag_leases WHERE namespace = ? AND run_id = ?"  # noqa: S608 - constants only
    row = connection.execute(sql, (namespace, run_id)).fetchone()
    return None if row is None else _read_lease(row)


def _read_lease(row: Sequence[Any]) -> Lease:
    fence, token, owner, until_monotonic, until_wall, lease_s = row
    return Lease(
        fence=fence,
        token=token,
        owner=Owner.from_json(owner),
        until_monotonic=until_monotonic,
        until_wall=until_wall,
        lease_s=lease_s,
    )


def _is_held(lease: Lease) -> bool:
    return is_alive(lease, monotonic=time.monotonic(), wall=time.time())


def _take_lease(connection: sqlite3.Connection, hold: Hold) -> int:
    """Write the lease under a fence that no claim in this file ever had, not even one of a run deleted since."""
    connection.execute("UPDATE ag_meta SET value = value + 1 WHERE name = 'fence'")
    fence: int = connection.execute("SELECT value FROM ag_meta WHERE name = 'fence'").fetchone()[0]
    connection.execute(
        "INSERT OR REPLACE INTO ag_leases (namespace, run_id, fence, token, owner, until_monotonic, until_wall, lease_s) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (hold.namespace, hold.run_id, fence, hold.token, this_process().as_json(), *_until(hold), hold.lease_s),
    )
    return fence


def _until(hold: Hold) -> tuple[float, float]:
    return (time.monotonic() + hold.lease_s, time.time() + hold.lease_s)


def renew(connection: sqlite3.Connection, hold: Hold) -> None:
    """Put the end of a lease off; nothing happens if it is somebody else's by now."""
    connection.execute(
        "UPDATE ag_leases SET until_monotonic = ?, until_wall = ? WHERE namespace = ? AND run_id = ? AND token = ?",
        (*_until(hold), hold.namespace, hold.run_id, hold.token),
    )


def give_back(connection: sqlite3.Connection, hold: Hold) -> None:
    """Free a lease, keeping its fence; nothing happens if it is somebody else's by now."""
    connection.execute(
        "UPDATE ag_leases SET token = NULL WHERE namespace = ? AND run_id = ? AND token = ?",
        (hold.namespace, hold.run_id, hold.token),
    )


def stop(connection: sqlite3.Connection, hold: Hold) -> None:
    """Free the lease of a claim whose caller went away before it had the answer; its turn counts as stopped by its caller."""
    connection.execute(
        "UPDATE ag_turns SET status = 'stopped' WHERE namespace = ?1 AND run_id = ?2 AND status = 'running' "
        "AND EXISTS (SELECT 1 FROM ag_leases WHERE namespace = ?1 AND run_id = ?2 AND token = ?3)",
        (hold.namespace, hold.run_id, hold.token),
    )
    give_back(connection, hold)


# -- housekeeping ------------------------------------------------------------------------------------------------------


def unfinished(connection: sqlite3.Connection, namespace: str, agent: str) -> list[TurnRow]:
    """Return the turns of `agent` that were begun and not ended, and that nobody alive works on."""
    turns = ", ".join(f"t.{name}" for name in TURN_COLUMNS.split(", "))
    leases = ", ".join(f"l.{name}" for name in _LEASE_COLUMNS.split(", "))
    sql = (
        f"SELECT {leases}, {turns} FROM ag_turns t LEFT JOIN ag_leases l ON l.namespace = t.namespace AND l.run_id = t.run_id "  # noqa: S608  our own names; values are bound
        "WHERE t.namespace = ? AND t.agent = ? AND t.status IN ('running', 'stopped') AND t.parent IS NULL ORDER BY t.started_at, t.rowid"
    )
    width = len(_LEASE_COLUMNS.split(", "))
    rows = connection.execute(sql, (namespace, agent)).fetchall()
    return [read_turn(row[width:]) for row in rows if row[0] is None or not _is_held(_read_lease(row[:width]))]


def delete(connection: sqlite3.Connection, namespace: str, run_id: str) -> None:
    """Delete everything of a run, its checkpoints too.

    Raises:
        RunInProgress: somebody alive works on it.
    """
    lease = _lease(connection, namespace, run_id)
    if lease is not None and _is_held(lease):
        raise RunInProgress(f"run {run_id!r} is being worked on, so it cannot be deleted. Wait for it, or stop it.", run_id=run_id)
    budgets.give_back(connection, namespace, run_id)
    with _overwriting(connection):
        for table in _OUR_TABLES:
            connection.execute(f"DELETE FROM {table} WHERE namespace = ? AND run_id = ?", (namespace, run_id))  # noqa: S608 - constants only
        for table in ("checkpoints", "writes"):
            connection.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id_of(namespace, run_id),))  # noqa: S608  constants


@contextlib.contextmanager
def _overwriting(connection: sqlite3.Connection) -> Iterator[None]:
    """Let what is deleted be overwritten with zeros: it is to be gone from the file's bytes too. The WAL follows when it is reset."""
    connection.execute("PRAGMA secure_delete=ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA secure_delete=OFF")


def over(connection: sqlite3.Connection, namespace: str | None, before: float) -> list[tuple[str, str]]:
    """Return (namespace, run_id) of each run that is over, and was last touched before `before`."""
    sql = f"SELECT namespace, run_id FROM ag_turns t WHERE ?1 IS NULL OR namespace = ?1 GROUP BY namespace, run_id HAVING {_OVER}"  # noqa: S608  constants
    return connection.execute(sql, (namespace, before)).fetchall()


_OPEN = "IN ('running', 'waiting', 'stopped')"
_PARENT = (
    "p.namespace = json_extract(t.parent, '$[0]') AND p.run_id = json_extract(t.parent, '$[1]') AND p.turn = json_extract(t.parent, '$[2]')"
)
_OVER = (
    f"MAX(t.updated_at) < ?2 AND SUM(t.status {_OPEN}) = 0 AND "  # noqa: S608 - constants only
    f"SUM(t.parent IS NOT NULL AND EXISTS (SELECT 1 FROM ag_turns p WHERE {_PARENT} AND p.status {_OPEN})) = 0"
)
"""Its turns have ended, and so have those that they are part of: a parent that is resumed takes its sub-agent's end from there."""


def prune(connection: sqlite3.Connection, names: Sequence[tuple[str, str]], before: float) -> list[tuple[str, str]]:
    """Delete those of `names` that are still over, and that nobody alive works on; return them."""
    deleted: list[tuple[str, str]] = []
    for namespace, run_id in names:
        sql = f"SELECT {_OVER} FROM ag_turns t WHERE namespace = ?1 AND run_id = ?3"  # noqa: S608 - constants only
        lease = _lease(connection, namespace, run_id)
        if connection.execute(sql, (namespace, before, run_id)).fetchone()[0] and (lease is None or not _is_held(lease)):
            delete(connection, namespace, run_id)
            deleted.append((namespace, run_id))
    return deleted
