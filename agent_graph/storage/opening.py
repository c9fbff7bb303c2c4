"""Which storage a setting means: a path, ":memory:", an object, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from agent_graph.errors import ConfigError
from agent_graph.storage.port import Redactor, Storage
from agent_graph.storage.sqlite import SqliteStorage

__all__ = ["open_storage"]


def open_storage(
    storage: str | Path | Storage | None,
    *,
    durability: Literal["power", "process"] = "power",
    redact: Redactor | None = None,
) -> Storage:
    """Return the storage that `storage` means: a path, ":memory:", a Storage (as it is), or None for the default place.

    Opens and creates nothing; the first use does. `durability` and `redact` apply to a storage that is made here.

    Raises:
        ConfigError: `storage` is none of these.
    """
    if isinstance(storage, Storage):
        return storage
    if (isinstance(storage, str | Path) and str(storage).strip()) or storage is None:
        return SqliteStorage(storage, durability=durability, redact=redact)
    raise ConfigError(f"storage: a path, a Storage or None is due, not {storage!r}.")
