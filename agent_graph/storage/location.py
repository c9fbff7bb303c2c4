"""Where the storage is, if nobody says: next to the work, else with the user, else in a private temporary folder.

1. `$AGENT_GRAPH_STORAGE`: the user named it, so it never falls back; if it cannot be used, that is a StorageError.
2. `./.agent_graph/runs.db`; the folder is made for us alone, and holds a `.gitignore` with `*`.
3. The user's state folder, under a hash of the working directory: two projects do not share their runs.
4. A temporary folder, with a warning: the runs are lost with it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agent_graph.storage.schema import MEMORY

__all__ = ["VARIABLE", "Place", "default_location", "planned_location"]

_log = logging.getLogger("agent_graph.storage")

VARIABLE = "AGENT_GRAPH_STORAGE"
_FILE = "runs.db"


def planned_location(cwd: Path, env: Mapping[str, str]) -> Path:
    """Return the first choice of `default_location`, without looking whether it can be had; creates nothing."""
    named = env.get(VARIABLE)
    return _absolute(named, cwd) if named else cwd / ".agent_graph" / _FILE


def default_location(cwd: Path, env: Mapping[str, str]) -> tuple[Path, str | None]:
    """Return where the storage's file goes, creating its folder if need be, and a warning if the runs will not last there.

    The path that `$AGENT_GRAPH_STORAGE` names is returned as it is: it is the user's, nothing is created for it.
    """
    if env.get(VARIABLE):
        return planned_location(cwd, env), None
    here = cwd / ".agent_graph"
    if _make_folder(here):
        return here / _FILE, None
    digest = hashlib.sha256(os.fsencode(cwd)).hexdigest()[:16]
    state = _state_folder(env) / "agent_graph" / digest
    if _make_folder(state):
        return state / _FILE, None
    private = Path(tempfile.mkdtemp(prefix="agent_graph-"))
    return private / _FILE, (
        f"Runs are kept in the temporary folder {private} and are lost with it, because neither {here} nor {state} can be written. "
        f"Name a place with ${VARIABLE} or storage=."
    )


class Place:
    """The file's path, found out at the first use."""

    def __init__(self, path: str | Path | None, env: Mapping[str, str]) -> None:
        self._cwd = _cwd()  # of now: a later chdir must not move the runs
        self._given = None if path is None else (MEMORY if str(path) == MEMORY else str(self._cwd / Path(path).expanduser()))
        self._env = dict(env) if path is None else {}
        self._found: str | None = None
        self.warning: str | None = None
        """Why what is written there may not last, once that is known."""

    def locate(self) -> str:
        """Return the path, making the default folder if it is that."""
        if self._given is not None:
            return self._given
        if self._found is None or not Path(self._found).parent.is_dir():
            path, self.warning = default_location(self._cwd, self._env)
            self._found = str(path)
            if self.warning:
                _log.warning("%s", self.warning)
        return self._found

    @property
    def name(self) -> str:
        """The path; before the first use, the planned one."""
        return self._given or self._found or str(planned_location(self._cwd, self._env))


def _cwd() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was deleted; an absolute path, or the user's state folder, still serves
        return Path("/nowhere")


def _absolute(path: str | Path, cwd: Path) -> Path:
    return cwd / Path(path).expanduser()


def _state_folder(env: Mapping[str, str]) -> Path:
    if env.get("XDG_STATE_HOME"):
        return Path(env["XDG_STATE_HOME"])
    if os.name == "nt" and env.get("LOCALAPPDATA"):
        return Path(env["LOCALAPPDATA"])
    home = Path(env["HOME"]) if env.get("HOME") else Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    return home / "Library" / "Application Support" if sys.platform == "darwin" else home / ".local" / "state"


def _make_folder(folder: Path) -> bool:
    """Make `folder` (0700, with a `.gitignore`) or find it fit; return whether we can write there."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except FileExistsError:
        return _is_fit(folder)
    except OSError:
        return False
    return True


def _is_fit(folder: Path) -> bool:
    try:
        found, around = folder.stat(), folder.parent.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or not os.access(folder, os.W_OK | os.X_OK):
        return False
    file = folder / _FILE
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        return False
    # In a folder where anybody may create files (/tmp), a folder of this name may be somebody else's trap.
    return not (around.st_mode & stat.S_IWOTH and hasattr(os, "geteuid") and found.st_uid not in {os.geteuid(), 0})
