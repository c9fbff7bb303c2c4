"""`resolve`: a person's word on a call in doubt, typed; and `show`, which says what to type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_graph import AgentRun, Ask, create_production_agent, guardrail
from agent_graph.cli import main
from agent_graph_adapters.offline import demo_tools

PARIS = "What is the weather in Paris?"
TOOLS = """
from langchain_core.tools import tool

@tool(extras={"idempotent": False})
def weather(city: str) -> str:
    "Return the weather in a city."
    raise ConnectionError("the line went dead")

@tool(extras={"idempotent": True})
def clock() -> str:
    "Return the time."
    return "noon"

TOOLS, MORE = [weather], [weather, clock]
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in a folder of its own and returns its exit code, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def in_doubt(command: Command, tmp_path: Path) -> AgentRun:
    """A turn that waits for somebody to say what became of its call."""
    (tmp_path / "tools_in_doubt.py").write_text(TOOLS)
    namespace: dict[str, Any] = {}
    exec(TOOLS, namespace)
    agent = create_production_agent("offline", namespace["TOOLS"], on_doubt="ask", storage=tmp_path / ".agent_graph" / "runs.db")
    (tmp_path / ".agent_graph").mkdir()
    run = agent.run_sync(PARIS, "r")
    assert [entry["tool_name"] for entry in run.pending] == ["weather"]
    return run


def test_a_word_settles_a_doubt_and_the_turn_goes_on(command: Command, in_doubt: AgentRun) -> None:
    [entry] = in_doubt.pending
    _, shown, _ = command("show", "r")
    [line] = [line for line in shown.splitlines() if line.startswith("settle it: ")]
    assert shlex.split(line.removeprefix("settle it: "))[:4] == ["agent-graph", "resolve", "r", entry["call_id"]]
    assert "done, not_done, unknown, reject" in line

    code, out, _ = command("resolve", "r", entry["call_id"], "done=sunny in Paris", "--tools", "tools_in_doubt:TOOLS")
    assert code == 0
    assert "resumed where it was" in out
    turn = json.loads(command("show", "r", "--json")[1])["turns"][0]
    assert (turn["status"], turn["tool_calls"][0]["result"]) == ("complete", "sunny in Paris")


@pytest.mark.parametrize(
    ("typed", "result"),
    [
        ('done={"celsius": 21}', {"celsius": 21}), ("done", None), ('{"type": "done", "result": [1]}', [1]), ("done=", ""), ("done=7", 7),
    ],
)  # fmt: skip
def test_what_may_be_typed(command: Command, in_doubt: AgentRun, typed: str, result: Any) -> None:
    code, out, _ = command("resolve", "r", in_doubt.pending[0]["call_id"], typed, "--tools", "tools_in_doubt:TOOLS", "--json")
    assert code == 0
    assert json.loads(out)["tool_calls"][0]["result"] == result


def test_nobody_knows(command: Command, in_doubt: AgentRun) -> None:
    code, out, _ = command("resolve", "r", in_doubt.pending[0]["call_id"], "unknown", "--tools", "tools_in_doubt:TOOLS", "--json")
    assert code == 0
    assert "OutcomeUnknown" in json.loads(out)["tool_calls"][0]["error"]


def test_a_word_is_refused_with_other_tools_and_nothing_of_it_is_kept(command: Command, in_doubt: AgentRun) -> None:
    """It was kept, and could not be taken back: a forgotten --tools made "it was not done" stand, and the payment was made again."""
    call_id = in_doubt.pending[0]["call_id"]
    code, _, err = command("resolve", "r", call_id, "not_done", "--tools", "tools_in_doubt:MORE")
    assert code == 2
    assert "added: clock" in err
    assert "Resume it with --force to go on all the same." in err
    assert json.loads(command("show", "r", "--json")[1])["turns"][0]["status"] == "waiting"
    assert command("resolve", "r", call_id, "done=fine", "--tools", "tools_in_doubt:TOOLS")[0] == 0
    assert json.loads(command("show", "r", "--json")[1])["turns"][0]["tool_calls"][0]["result"] == "fine"


def test_force_goes_on_with_other_tools(command: Command, in_doubt: AgentRun) -> None:
    call_id = in_doubt.pending[0]["call_id"]
    assert command("resolve", "r", call_id, "done=fine", "--tools", "tools_in_doubt:MORE", "--force")[0] == 0
    assert json.loads(command("show", "r", "--json")[1])["turns"][0]["tool_calls"][0]["result"] == "fine"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["r", "nope", "done"], "waits for nobody's word; what waits: 'CALL'"),
        (["other", "c", "done"], "nothing of this name"),
        (["r", "CALL", "approve"], "'approve' makes no sense"),
        (["r", "CALL", "nonsense"], "'nonsense' is none of done=RESULT, not_done, unknown, approve, edit=VALUE"),
        (["r", "CALL", "respond"], "'respond' is none of done=RESULT"),
        (["r", "CALL", "unknown=1"], "takes no value"),
        (["r", "CALL", "{nonsense"], "is no JSON"),
        (["r", "CALL", '{"type": 1}'], "is none of done=RESULT, not_done"),
    ],
)
def test_a_word_that_makes_no_sense(command: Command, in_doubt: AgentRun, typed: list[str], said: str) -> None:
    call_id = in_doubt.pending[0]["call_id"]
    argv = [call_id if word == "CALL" else word for word in typed]
    code, _, err = command("resolve", *argv, "--tools", "tools_in_doubt:TOOLS")
    assert code == 2
    assert said.replace("CALL", call_id) in err
    assert json.loads(command("show", "r", "--json")[1])["turns"][0]["status"] == "waiting", "nothing is lost"


def test_a_guardrails_question_is_not_answered_without_it(command: Command) -> None:
    @guardrail(stages=["input"])
    async def look(stage: str, payload: object, run: AgentRun) -> Ask:
        return Ask("is this meant?")

    agent = create_production_agent("offline", demo_tools(), guardrails=[look])
    [entry] = agent.run_sync(PARIS, "r").pending
    code, _, err = command("resolve", "r", entry["call_id"], "reject=not meant")
    assert (code, "'look' asked" in err) == (2, True), "the command has no such guardrail"


def test_a_turn_that_is_over_waits_for_nothing(command: Command) -> None:
    command("run", PARIS, "--run-id", "r")
    code, _, err = command("resolve", "r", "c1", "done")
    assert (code, "what waits: nothing" in err) == (2, True)
