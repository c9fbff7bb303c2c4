"""Rows and statements: how `TurnRow`, `LedgerRow`, `JournalRow` and `NoteRow` become SQL, and come back.

Every `put` is an upsert of the whole row. Text passes the redactor (if there is one) and is made storable: SQLite's text is
UTF-8, which has no lone surrogates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from agent_graph.storage.port import Charge, JournalRow, LedgerRow, NoteRow, Redactor, Row, TurnKey, TurnRow

__all__ = [
    "JOURNAL_COLUMNS",
    "LEDGER_COLUMNS",
    "NOTE_COLUMNS",
    "TURN_COLUMNS",
    "input_hash",
    "read_charges",
    "read_journal",
    "read_ledger",
    "read_note",
    "read_turn",
    "statement",
    "storable",
]

_KEY = ("namespace", "run_id", "turn")
_TURN = (
    "agent",
    "input",
    "status",
    "request_id",
    "fingerprint",
    "used_s",
    "result",
    "delivered",
    "parent",
    "started_at",
    "updated_at",
)
_LEDGER = (
    "step",
    "kind",
    "attempt",
    "model",
    "state",
    "bound_nusd",
    "bound_tokens",
    "cost_nusd",
    "tokens",
    "usage",
    "used",
    "charges",
    "used_s",
)
_JOURNAL = (
    "step",
    "position",
    "call_id",
    "tool",
    "args",
    "idempotent",
    "state",
    "attempt",
    "result",
    "error",
    "latency_ms",
    "used_s",
)
_NOTE = ("step", "kind", "body")

TURN_COLUMNS = ", ".join(_KEY + _TURN)
LEDGER_COLUMNS = ", ".join((*_KEY, "entry", *_LEDGER))
JOURNAL_COLUMNS = ", ".join((*_KEY, "call_key", *_JOURNAL))
NOTE_COLUMNS = ", ".join(_KEY + _NOTE)


def _upsert(table: str, keys: Sequence[str], values: Sequence[str], once: Sequence[str] = ()) -> str:
    columns = (*keys, *values, *once)
    updates = ", ".join(f"{name} = excluded.{name}" for name in values)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608 - names from this file only
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}"
    )


_PUT_TURN = _upsert("ag_turns", _KEY, _TURN, once=("input_hash",))
_PUT_LEDGER = _upsert("ag_ledger", (*_KEY, "entry"), _LEDGER)
_PUT_JOURNAL = _upsert("ag_journal", (*_KEY, "call_key"), _JOURNAL)
_PUT_NOTE = f"INSERT INTO ag_notes ({NOTE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - as above


def input_hash(text: str) -> str:
    """Return the hash by which two inputs are told apart (the stored text may have been redacted)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def storable(text: str, redact: Redactor | None) -> str:
    """Return `text` redacted, and with lone surrogates replaced."""
    if redact is not None:
        text = redact(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def statement(row: Row, redact: Redactor | None) -> tuple[str, tuple[Any, ...], int]:
    """Return the SQL that writes `row`, its parameters, and roughly its size in bytes."""
    match row:
        case JournalRow():
            return _put_journal(row, redact)
        case LedgerRow():
            return _put_ledger(row, redact)
        case TurnRow():
            return _put_turn(row, redact)
        case NoteRow():
            body = storable(row.body, redact)
            return _PUT_NOTE, (*_key(row.key), row.step, row.kind, body), 128 + len(body)


def _put_journal(row: JournalRow, redact: Redactor | None) -> tuple[str, tuple[Any, ...], int]:
    args, result = storable(row.args, redact), _optional(row.result, redact)
    values = (
        *_key(row.key), storable(row.call_key, None), row.step, row.index, storable(row.call_id, redact), storable(row.tool, redact),
        args, row.idempotent, row.state, row.attempt, result, _optional(row.error, redact), row.latency_ms, row.used_s,
    )  # fmt: skip
    return _PUT_JOURNAL, values, 256 + len(args) + len(result or "")


def _put_ledger(row: LedgerRow, redact: Redactor | None) -> tuple[str, tuple[Any, ...], int]:
    # A sub-agent's row names its turn there, by which it is found again: a key like those of the row, which are not redacted either.
    usage = _optional(row.usage, None if row.kind == "subagent" else redact)
    values = (
        *_key(row.key), row.entry, row.step, row.kind, row.attempt, storable(row.model, redact), row.state,
        row.bound_nusd, row.bound_tokens, row.cost_nusd, row.tokens, usage, row.used,
        _charges_text(row.charges), row.used_s,
    )  # fmt: skip
    return _PUT_LEDGER, values, 256 + len(row.usage or "")


def _put_turn(row: TurnRow, redact: Redactor | None) -> tuple[str, tuple[Any, ...], int]:
    text, result = storable(row.input, redact), _optional(row.result, redact)
    values = (
        *_key(row.key), storable(row.agent, None), text, row.status, _optional(row.request_id, None), storable(row.fingerprint, redact),
        row.used_s, result, row.delivered, _optional(row.parent, None), row.started_at, row.updated_at, input_hash(row.input),
    )  # fmt: skip
    return _PUT_TURN, values, 256 + len(text) + len(result or "")


def _key(key: TurnKey) -> tuple[str, str, int]:
    return (key.namespace, key.run_id, key.turn)


def _charges_text(charges: Sequence[Charge]) -> str | None:
    if not charges:
        return None
    return storable(json.dumps([[charge.namespace, charge.budget, charge.period] for charge in charges], ensure_ascii=False), None)


def read_charges(text: str | None) -> tuple[Charge, ...]:
    """Return the charges of a ledger row's column."""
    return () if text is None else tuple(Charge(*charge) for charge in json.loads(text))


def _optional(text: str | None, redact: Redactor | None) -> str | None:
    return None if text is None else storable(text, redact)


def read_turn(row: Sequence[Any]) -> TurnRow:
    """Return the turn of a row of TURN_COLUMNS."""
    (
        namespace,
        run_id,
        turn,
        agent,
        text,
        status,
        request_id,
        fingerprint,
        used_s,
        result,
        delivered,
        parent,
        started_at,
        updated_at,
    ) = row
    return TurnRow(
        key=TurnKey(namespace, run_id, turn), agent=agent, input=text, status=status, request_id=request_id, fingerprint=fingerprint,
        used_s=used_s, result=result, delivered=bool(delivered), parent=parent, started_at=started_at, updated_at=updated_at,
    )  # fmt: skip


def read_ledger(row: Sequence[Any]) -> LedgerRow:
    """Return the attempt of a row of LEDGER_COLUMNS."""
    (
        namespace,
        run_id,
        turn,
        entry,
        step,
        kind,
        attempt,
        model,
        state,
        bound_nusd,
        bound_tokens,
        cost_nusd,
        tokens,
        usage,
        used,
        charges,
        used_s,
    ) = row
    return LedgerRow(
        key=TurnKey(namespace, run_id, turn), entry=entry, step=step, kind=kind, attempt=attempt, model=model, state=state,
        bound_nusd=bound_nusd, bound_tokens=bound_tokens, cost_nusd=cost_nusd, tokens=tokens, usage=usage, used=bool(used),
        charges=read_charges(charges), used_s=used_s,
    )  # fmt: skip


def read_journal(row: Sequence[Any]) -> JournalRow:
    """Return the call of a row of JOURNAL_COLUMNS."""
    (
        namespace,
        run_id,
        turn,
        call_key,
        step,
        index,
        call_id,
        tool,
        args,
        idempotent,
        state,
        attempt,
        result,
        error,
        latency_ms,
        used_s,
    ) = row
    return JournalRow(
        key=TurnKey(namespace, run_id, turn), call_key=call_key, step=step, index=index, call_id=call_id, tool=tool, args=args,
        idempotent=bool(idempotent), state=state, attempt=attempt, result=result, error=error, latency_ms=latency_ms, used_s=used_s,
    )  # fmt: skip


def read_note(row: Sequence[Any]) -> NoteRow:
    """Return the note of a row of NOTE_COLUMNS."""
    namespace, run_id, turn, step, kind, body = row
    return NoteRow(key=TurnKey(namespace, run_id, turn), step=step, kind=kind, body=body)
