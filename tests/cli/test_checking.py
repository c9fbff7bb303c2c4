"""`agent-graph doctor`: what it finds, what it answers, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent_graph.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)


def found(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, list[dict[str, str]]], dict[str, Any]]:
    """Return the exit code, the facts by subject, and all that was told."""
    code = main(["doctor", "--json", *argv])
    told = json.loads(capsys.readouterr().out)
    facts: dict[str, list[dict[str, str]]] = {}
    for fact in told["facts"]:
        facts.setdefault(fact["subject"], []).append(fact)
    return code, facts, told


def test_a_bare_machine_is_sound_and_is_left_as_it_was(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, facts, told = found(capsys)
    assert (code, told["ok"]) == (0, True)
    assert facts["model"][0]["text"].startswith("offline because ")
    assert facts["storage"][0]["text"] == f"{tmp_path}/.agent_graph/runs.db: will be made by the first run"
    assert any("langgraph 1." in fact["text"] for fact in facts["package"])
    assert {promise["holds"] for promise in told["promises"]} <= {"yes", "best effort", "no"}
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_in_plain_words_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--max-cost-usd", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "limits       25 steps, 200,000 tokens, $0.05, 2 min 0 s" in out
    assert "[yes] limits: max_cost_usd = 0.05" in out
    assert out.endswith("an agent can run here\n")


def test_a_key_is_named_and_never_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    code = main(["doctor", "--model", "openai:gpt-5-mini"])
    out = capsys.readouterr().out
    assert code == 0
    assert "set: OPENAI_API_KEY" in out
    assert "LangSmith tracing is on" in out
    assert "per million tokens (genai-prices" in out
    assert "very-secret" not in out


@pytest.mark.parametrize(
    ("argv", "subject", "words"),
    [
        (["--model", "openai:gpt-5-mini"], "model", "OPENAI_API_KEY"),
        (["--model", "opnai:gpt-5-mini"], "model", "did you mean 'openai:gpt-5-mini'"),
        (["--tools", "no_such_module:TOOLS"], "model", "cannot be imported"),
        (["--storage", "missing/folder/runs.db"], "storage", "does not exist; make it"),
        (["--storage", "."], "storage", "it is a directory"),
    ],
)
def test_what_stands_in_the_way_is_named(capsys: pytest.CaptureFixture[str], argv: list[str], subject: str, words: str) -> None:
    code, facts, told = found(capsys, *argv)
    assert (code, told["ok"]) == (1, False)
    [fact] = [fact for fact in facts[subject] if fact["state"] == "problem"]
    assert words in fact["text"]


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_storage_that_others_may_read_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    assert main(["run", "What is 2 + 3?", "--storage", str(file), "--json"]) == 0
    capsys.readouterr()
    assert found(capsys, "--storage", str(file))[1]["storage"][0]["state"] == "ok"
    file.chmod(0o644)
    [fact] = found(capsys, "--storage", str(file))[1]["storage"]
    assert (fact["state"], f"chmod 600 {file}" in fact["text"]) == ("note", True)
