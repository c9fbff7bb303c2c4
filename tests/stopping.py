"""Stopping a process that has a storage open, as when its container is paused."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path


def stop(pid: int, file: Path) -> None:
    """Stop the process at an instant at which it is not writing to `file`.

    In the midst of a transaction it would keep the file's lock for as long as it is stopped. Its writer has a thread of its own,
    so that a transaction may be under way wherever the loop stands.
    """
    deadline = time.monotonic() + 60
    while True:
        os.kill(pid, signal.SIGSTOP)
        if not is_locked(file):
            return
        assert time.monotonic() < deadline, f"process {pid} never lets go of {file}"
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def is_locked(file: Path) -> bool:
    """Return whether somebody is in the midst of a transaction that writes."""
    with contextlib.closing(sqlite3.connect(file, timeout=0.05, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return True
        connection.execute("ROLLBACK")
        return False
