"""Where a run is kept: the `Storage` port and the SQLite file that implements it."""

from agent_graph.storage.port import (
    Claim,
    JournalRow,
    LedgerRow,
    NoteRow,
    Storage,
    TurnKey,
    TurnRequest,
    TurnRow,
)

__all__ = ["Claim", "JournalRow", "LedgerRow", "NoteRow", "Storage", "TurnKey", "TurnRequest", "TurnRow"]
