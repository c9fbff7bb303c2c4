"""A process dies inside a tool of somebody's `create_agent`; another goes on. Judged by a ledger outside the program."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

VICTIM = Path(__file__).with_name("victim.py")

pytestmark = pytest.mark.crash


def run(folder: Path, journaled: str, mode: str, dies_at: str = "never") -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(VICTIM), str(folder), journaled, mode, dies_at]
    return subprocess.run(arguments, timeout=100, capture_output=True, text=True, check=False)


def killed_and_resumed(folder: Path, journaled: str, mode: str, dies_at: str) -> tuple[Counter[str], str]:
    """Return how often each effect happened, and what the resumed agent answered."""
    dead = run(folder, journaled, mode, dies_at)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    resumed = run(folder, journaled, mode)
    assert resumed.returncode == 0, resumed.stderr
    lines = (folder / "effects.log").read_text().splitlines()
    assert len(set(lines)) == len({line.split()[0] for line in lines}), "each call has one key, whichever process made it"
    return Counter(line.split()[0] for line in lines), resumed.stdout


def test_a_payment_is_made_twice_without_the_journal(tmp_path: Path) -> None:
    effects, _ = killed_and_resumed(tmp_path, "nothing", "async", "after payment")
    assert effects["pay"] == 2


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_payment_is_made_once_with_it(tmp_path: Path, mode: str) -> None:
    effects, answer = killed_and_resumed(tmp_path, "journal", mode, "after payment")
    assert effects["pay"] == 1
    assert "outcome of this call is unknown" in answer, "the model is told"


def test_a_payment_that_may_or_may_not_have_been_made_is_not_guessed(tmp_path: Path) -> None:
    effects, answer = killed_and_resumed(tmp_path, "journal", "async", "before payment")
    assert effects["pay"] == 0
    assert "outcome of this call is unknown" in answer


def test_an_idempotent_call_is_made_again_under_its_key(tmp_path: Path) -> None:
    effects, answer = killed_and_resumed(tmp_path, "journal", "sync", "after note")
    assert effects["note"] == 2
    assert "noted" in answer
