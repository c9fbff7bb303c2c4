"""Where the storage is if nobody says, and what `storage=` may be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent_graph.errors import ConfigError, StorageError
from agent_graph.storage import location
from agent_graph.storage.location import default_location
from agent_graph.storage.opening import open_storage
from agent_graph.storage.sqlite import SqliteStorage


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing behind in the machine's temporary folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def test_next_to_the_work_in_a_folder_of_its_own(cwd: Path, env: dict[str, str]) -> None:
    assert default_location(cwd, env) == (cwd / ".agent_graph" / "runs.db", None)
    folder = cwd / ".agent_graph"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    assert not (folder / "runs.db").exists()


def test_a_folder_that_is_there_is_left_as_it_is(cwd: Path, env: dict[str, str]) -> None:
    folder = cwd / ".agent_graph"
    folder.mkdir(mode=0o755)
    assert default_location(cwd, env) == (folder / "runs.db", None)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert list(folder.iterdir()) == []


def test_a_named_path_is_the_users_and_nothing_is_made_for_it(cwd: Path, env: dict[str, str]) -> None:
    assert default_location(cwd, {**env, "AGENT_GRAPH_STORAGE": "mine/x.db"}) == (cwd / "mine" / "x.db", None)
    assert default_location(cwd, {**env, "AGENT_GRAPH_STORAGE": "/abs/x.db"}) == (Path("/abs/x.db"), None)
    assert list(cwd.iterdir()) == []


def test_where_the_work_cannot_be_written_the_users_state_folder_serves_each_project_apart(cwd: Path, env: dict[str, str]) -> None:
    (cwd / ".agent_graph").write_text("a file is in the way")
    path, warning = default_location(cwd, env)
    assert warning is None
    assert path.parent.parent == Path(env["XDG_STATE_HOME"]) / "agent_graph"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    other = cwd.parent / "other"
    other.mkdir()
    (other / ".agent_graph").touch()
    assert default_location(other, env)[0].parent != path.parent
    assert default_location(cwd, env)[0] == path


def test_where_nothing_can_be_written_a_private_temporary_folder_serves_with_a_warning(cwd: Path, env: dict[str, str]) -> None:
    for place in (cwd / ".agent_graph", Path(env["XDG_STATE_HOME"])):
        place.touch()
    path, warning = default_location(cwd, env)
    assert path.parent.parent == Path(tempfile.gettempdir())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert warning is not None
    assert str(path.parent) in warning
    assert "AGENT_GRAPH_STORAGE" in warning


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make somebody else's folder")
def test_a_strangers_folder_where_anybody_may_write_is_not_trusted(cwd: Path, env: dict[str, str]) -> None:
    cwd.chmod(0o1777)
    trap = cwd / ".agent_graph"
    trap.mkdir()
    os.chown(trap, 12345, 12345)
    assert default_location(cwd, env)[0].parent != trap
    cwd.chmod(0o755)
    assert default_location(cwd, env)[0].parent == trap  # nobody but the folder's owner can have made it


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_state_folder_is_the_platforms(env: dict[str, str], platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    home = {"HOME": env["HOME"]}
    expected = {"linux": ".local/state", "darwin": "Library/Application Support"}[platform]
    assert location._state_folder(home) == Path(env["HOME"]) / expected


async def test_the_default_place_is_found_at_the_first_use_not_before(cwd: Path, env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cwd)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)
    storage = open_storage(None)
    assert storage.location == str(cwd / ".agent_graph" / "runs.db")
    assert list(cwd.iterdir()) == []
    monkeypatch.chdir(cwd.parent)  # a later chdir must not move the runs
    assert await storage.turns("default", "r") == []
    assert storage.location == str(cwd / ".agent_graph" / "runs.db")
    assert Path(storage.location).is_file()
    await storage.close()


async def test_the_warning_is_logged_once_and_stands_in_the_promises(
    cwd: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for place in (cwd / ".agent_graph", Path(env["XDG_STATE_HOME"])):
        place.touch()
    monkeypatch.chdir(cwd)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", env["XDG_STATE_HOME"])
    storage = SqliteStorage()
    for _ in range(3):
        await storage.turns("default", "r")
    assert len([record for record in caplog.records if "temporary" in record.getMessage()]) == 1
    assert [line for line in storage.promises if "temporary" in line]
    await storage.close()


async def test_a_path_that_the_user_named_never_falls_back(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_GRAPH_STORAGE", str(cwd / "missing" / "runs.db"))
    monkeypatch.chdir(cwd)
    for storage in (open_storage(None), open_storage("missing/runs.db"), open_storage(cwd / "missing" / "runs.db")):
        with pytest.raises(StorageError, match="does not exist"):
            await storage.turns("default", "r")
        await storage.close()
    assert list(cwd.iterdir()) == []


async def test_what_storage_may_be(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cwd)
    given = SqliteStorage(cwd / "x.db")
    assert open_storage(given) is given
    assert open_storage("a.db").location == str(cwd / "a.db")
    assert open_storage(":memory:").location == ":memory:"
    assert open_storage(Path("~/b.db")).location == str(Path("~/b.db").expanduser())
    for wrong in ("", "  ", 7, b"a.db"):
        with pytest.raises(ConfigError, match="storage"):
            open_storage(wrong)  # type: ignore[arg-type]  # what a user may pass all the same
    assert list(cwd.iterdir()) == []


def test_memory_ends_with_its_storage_and_two_are_apart() -> None:
    import asyncio

    from agent_graph.types import Message, MessageRole

    async def play() -> None:
        one, two = open_storage(":memory:"), open_storage(":memory:")
        await one.save_memory("default", "r", [Message(MessageRole.USER, "x")])
        assert len(await one.load_memory("default", "r")) == 1
        assert await two.load_memory("default", "r") == []
        assert "memory" in one.promises[0]
        await one.close()
        await two.close()

    asyncio.run(play())


GONE = """
import os, sys
os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
from agent_graph.storage.sqlite import SqliteStorage
print(SqliteStorage("/abs/x.db").location)
"""


def test_a_working_directory_that_was_deleted_stops_nobody_with_a_path(tmp_path: Path, child: Any) -> None:
    process: subprocess.Popen[str] = child(GONE, tmp_path / "gone")
    assert process.communicate(timeout=60)[0].strip() == "/abs/x.db"
