"""The command as a person has it: a process, a terminal, Ctrl-C, a pipe that closes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_graph_adapters.offline import LABEL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="terminals and signals of POSIX"),
]

COMMAND = [sys.executable, "-m", "agent_graph.cli"]
PARIS = "What is the weather in Paris?"
SLOW_TOOL = '''
import asyncio, os, pathlib
from langchain_core.tools import tool

@tool("weather", extras={"idempotent": True})
async def weather(city: str) -> str:
    """Return the weather in a city."""
    with pathlib.Path("calls").open("a") as calls:
        calls.write(city + "\\n")
    if not pathlib.Path("be quick").exists():
        await asyncio.sleep(60)
    return "18 degrees"

TOOLS = [weather]
'''


def called(folder: Path) -> list[str]:
    calls = folder / "calls"
    return calls.read_text().split() if calls.exists() else []


def run(folder: Path, *argv: str, question: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *argv], cwd=folder, input=question, capture_output=True, text=True, timeout=60, check=False)


def test_a_run_in_a_pipe(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "-", question=PARIS)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == LABEL
    assert "\x1b" not in done.stdout


def read_to_the_end(terminal: int) -> str:
    """Return all that is printed on a terminal until its other end closes."""
    printed = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux: the other end has been closed
            break
        if not piece:
            break
        printed += piece
    return printed.decode()


def test_a_run_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen([*COMMAND, "run", PARIS], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        printed = read_to_the_end(ours)
    os.close(ours)
    assert child.returncode == 0, printed
    assert "asking the model" in printed or "running weather" in printed, "the line at the foot"
    assert "\x1b[?25h" in printed, "the cursor is back"
    assert 'started   weather(city="Paris")' in printed
    assert printed.strip().endswith(LABEL)


def wait_for_the_call(folder: Path, child: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not called(folder):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end, "the tool was never called"
        time.sleep(0.02)


def test_ctrl_c_in_a_slow_tool_and_then_resume(tmp_path: Path) -> None:
    """Whoever stops a run is told how to go on, and going on repeats no step that was done."""
    (tmp_path / "slow_tool.py").write_text(SLOW_TOOL)
    options = ["--tools", "slow_tool:TOOLS", "--storage", "my runs.db"]
    argv = [*COMMAND, "run", PARIS, "--run-id", "r1", *options]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        wait_for_the_call(tmp_path, child)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    line = "agent-graph resume --storage 'my runs.db' --tools slow_tool:TOOLS r1"
    assert line in err
    assert json.loads(run(tmp_path, "runs", "--storage", "my runs.db", "--json").stdout)[0]["status"] == "stopped"

    (tmp_path / "be quick").touch()
    resumed = run(tmp_path, "resume", *options, "r1", "--json")
    account = json.loads(resumed.stdout)
    assert (resumed.returncode, account["status"], account["steps"], account["turn"]) == (0, "complete", 2, 1)
    assert [call["result"] for call in account["tool_calls"]] == ["18 degrees"]
    assert called(tmp_path) == ["Paris", "Paris"], "once before Ctrl-C, once after: the tool may be repeated, and says so"


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "slow_tool.py").write_text(SLOW_TOOL)
    options = ["--tools", "slow_tool:TOOLS"]
    argv = [*COMMAND, "run", PARIS, "--run-id", "r1", *options]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        wait_for_the_call(tmp_path, child)
        child.kill()
    shown = run(tmp_path, "show", "r1")
    assert "turn 1 of 1, running, " in shown.stdout
    assert "go on with it: agent-graph resume r1" in shown.stdout
    (tmp_path / "be quick").touch()
    resumed = run(tmp_path, "resume", *options, "r1")
    assert resumed.returncode == 0, resumed.stderr
    assert "run r1, turn 1, resumed where it was" in resumed.stdout


def test_a_pipe_that_closes_is_no_error(tmp_path: Path) -> None:
    command = " ".join(f"'{word}'" for word in [*COMMAND, "run", PARIS])
    piped = ["sh", "-c", f"{command} | head -n 1"]
    done = subprocess.run(piped, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == LABEL + "\n"
    assert done.stderr == ""


def test_help_answers_at_once(tmp_path: Path) -> None:
    """--help loads no framework: well under the second that LangGraph takes."""
    code = "from agent_graph.cli import main; main(['--help']); import sys; print('langgraph' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("False\n")
