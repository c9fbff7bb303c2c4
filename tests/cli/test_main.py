"""The four commands, called as a function: what they print, and what they return."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_graph import AgentRun, Ask, Budget, create_production_agent, guardrail
from agent_graph.cli import main
from agent_graph.decisions.prices import price_line
from agent_graph.testing import ScriptedChatModel, call
from agent_graph_adapters.offline import LABEL, demo_tools

PARIS = "What is the weather in Paris?"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command and returns its exit code, what it printed, and what it complained of."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_run_answers_and_says_what_answered(command: Command) -> None:
    code, out, err = command("run", PARIS, "--run-id", "r1")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == lines[-1] == LABEL
    assert lines[1].startswith("model: offline because ")
    assert lines[2] == "limits: 25 steps, 200,000 tokens, $1.00, 2 min 0 s"
    assert lines[3] == "run r1, turn 1"
    assert '  started   weather(city="Paris")' in lines
    assert any(line.startswith("  finished  weather in ") for line in lines)
    assert any("Paris" in line for line in lines[lines.index("") :])


def test_the_account_stands_under_the_answer(command: Command) -> None:
    _, out, _ = command("run", PARIS, "--run-id", "r1")
    (account,) = [line for line in out.splitlines() if line.startswith("complete: ")]
    assert "2 steps, 1 tool call, " in account
    assert "$0.00" in account, "the offline model says itself that it costs nothing"
    assert "kept in .agent_graph/runs.db; see it again: agent-graph show r1" in out


def test_json_is_all_there_is_on_stdout(command: Command) -> None:
    code, out, err = command("run", PARIS, "--run-id", "r1", "--json")
    run = json.loads(out)
    assert (code, run["run_id"], run["status"], run["steps"]) == (0, "r1", "complete", 2)
    assert run["tool_calls"][0]["args"] == {"city": "Paris"}
    assert err.count(LABEL) == 2


def test_a_question_from_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PARIS + "\n"))
    code, out, _ = command("run", "-", "--json")
    assert (code, json.loads(out)["input"]) == (0, PARIS)


def test_a_limit_that_is_reached_is_exit_1(command: Command) -> None:
    code, out, _ = command("run", PARIS, "--max-steps", "1")
    assert code == 1
    assert "failed: 1 step" in out
    assert "error: max_steps: 1 of 1" in out


def test_a_run_that_is_not_there(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    for argv, said in (
        (["show", "nope"], "No run 'nope'"),
        (["delete", "nope"], "No run 'nope'"),
        (["resume", "nope"], "nothing of this name"),
    ):
        code, _, err = command(*argv)
        assert (code, said in err) == (2, True)


def test_the_same_run_id_is_a_conversation(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    code, out, _ = command("run", "What is 17 * 23?", "--run-id", "r1")
    assert code == 0
    assert "run r1, turn 2" in out
    assert "391" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param(["run", "   "], "a question is due", id="no question"),
        pytest.param(["run", PARIS, "--run-id", "a\x07b"], "control character", id="run_id"),
        pytest.param(["run", PARIS, "--max-steps", "-1"], '--max-steps: -1 is negative. "none" is no limit', id="limit"),
        pytest.param(["run", PARIS, "--model", "opneai:gpt-5-mini"], "did you mean 'openai:gpt-5-mini'", id="model"),
        pytest.param(["run", PARIS, "--tools", "nowhere"], "MODULE:NAME", id="tools without a name"),
        pytest.param(["run", PARIS, "--tools", "no_such_module:T"], "cannot be imported", id="tools that are not there"),
        pytest.param(["run", PARIS, "--storage", "."], "storage", id="a folder as storage"),
        pytest.param(["prune", "--older-than", "2999-01-01"], "--older-than: 2999-01-01 00:00:00+00:00 lies in the future", id="age"),
        pytest.param(["nonsense"], "invalid choice", id="command"),
    ],
)
def test_what_cannot_be_is_exit_2_and_one_paragraph(command: Command, argv: list[str], said: str) -> None:
    code, _, err = command(*argv)
    assert code == 2
    assert err.startswith("agent-graph: ")
    assert said.lower() in err.lower()
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_limit_in_usd_that_no_price_can_hold_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    code, _, err = command("run", PARIS, "--model", "openai:gpt-99-huge", "--max-cost-usd", "0.1")
    assert code == 2
    assert "gpt-99-huge: no price is known, so max_cost_usd cannot hold." in err
    assert err.endswith(" in a program; the command takes none, so leave --max-cost-usd out or take another --model.\n")
    assert price_line("gpt-99-huge") in err


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(command: Command, option: str) -> None:
    code, out, _ = command(option)
    assert (code, "agent-graph" in out) == (0, True)


def test_runs_lists_the_newest_first(command: Command) -> None:
    for run_id in ("r1", "r2"):
        command("run", PARIS, "--run-id", run_id)
    code, out, _ = command("runs")
    head, *rows = [line.split(maxsplit=6) for line in out.splitlines()]
    assert code == 0
    assert head == ["RUN", "TURN", "STATUS", "STEPS", "COST", "AGE", "INPUT"]
    assert [row[:5] for row in rows] == [["r2", "1", "complete", "2", "$0.00"], ["r1", "1", "complete", "2", "$0.00"]]
    assert rows[0][6].endswith(PARIS)


def test_runs_as_json(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    _, out, _ = command("runs", "--json", "--limit", "1")
    (row,) = json.loads(out)
    assert (row["run_id"], row["status"], row["unpriced"], row["turn"]) == ("r1", "complete", False, 1)


def test_looking_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("runs")
    assert (code, out.startswith("no runs yet; the first")) == (0, True)
    assert command("runs", "--json")[1] == "[]\n"
    assert command("show", "r1")[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["option", "variable", "default"])
@pytest.mark.parametrize(
    "argv",
    [["prune", "--older-than", "1d"], ["delete", "r"], ["show", "r"], ["resume", "r"], ["resolve", "r", "c", "done"], ["runs"]],
    ids=lambda argv: str(argv[0]),
)
def test_a_storage_that_is_not_there(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], where: str
) -> None:
    """`prune` told that it had deleted 0 runs, `resume` left an empty storage under the misspelt name."""
    if where == "variable":
        monkeypatch.setenv("AGENT_GRAPH_STORAGE", "typo.db")
    code, out, err = command(*argv, *(["--storage", "typo.db"] if where == "option" else []))
    if argv == ["runs"] and where != "option":
        assert (code, err) == (0, ""), "nothing was typed that could be misspelt: nothing has been run yet"
    else:
        name = ".agent_graph/runs.db" if where == "default" else "typo.db"
        assert (code, out) == (2, "")
        assert f"storage {tmp_path / name}: there is no such file" in err
    assert list(tmp_path.iterdir()) == []


def test_show_tells_the_turns(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    command("run", "What is 17 * 23?", "--run-id", "r1")
    code, out, _ = command("show", "r1")
    assert code == 0
    first, second, total = out.split("\n\n")
    assert first.startswith("turn 1 of 2, complete, ")
    assert f"> {PARIS}\n" in first
    assert '  weather(city="Paris")\n    in ' in first
    assert "complete: 2 steps" in first
    assert 'calculator(expression="17 * 23")' in second
    spent = [turn["total_tokens"] for turn in json.loads(command("show", "r1", "--json")[1])["turns"]]
    assert total == f"in all: 2 turns, 4 steps, {sum(spent):,} tokens, $0.00\n", "what a conversation cost stood nowhere"


def test_show_as_json(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    shown: dict[str, Any] = json.loads(command("show", "r1", "--json")[1])
    assert shown["run_id"] == "r1"
    assert [(turn["turn"], turn["status"]) for turn in shown["turns"]] == [(1, "complete")]
    assert shown["turns"][0]["started_at"].endswith("+00:00")


def test_a_storage_of_another_name_is_repeated_in_what_to_type(command: Command, tmp_path: Path) -> None:
    _, out, _ = command("run", PARIS, "--run-id", "r1", "--storage", "other.db")
    assert "see it again: agent-graph show --storage other.db r1" in out
    assert command("show", "--storage", "other.db", "r1")[0] == 0
    assert command("show", "r1")[0] == 2
    assert sorted(path.suffix for path in tmp_path.iterdir() if "-" not in path.suffix) == [".db"]


def test_resuming_what_has_ended_shows_how(command: Command) -> None:
    command("run", PARIS, "--run-id", "r1")
    code, out, _ = command("resume", "r1")
    assert code == 0
    assert "turn 1 had ended already; nothing was asked anew:" in out
    assert "complete: 2 steps" in out


def test_a_turn_that_waits_for_a_person_says_for_what(command: Command) -> None:
    @guardrail(stages=["input"])
    async def look(stage: str, payload: object, run: AgentRun) -> Ask:
        return Ask("is this meant?")

    agent = create_production_agent("offline", demo_tools(), guardrails=[look])
    assert agent.run_sync(PARIS, "r1").status == "running"
    code, out, _ = command("resume", "r1")
    assert code == 1
    assert "turn 1 waits; nothing was asked anew:" in out
    assert "is this meant?" in out
    assert "turn 1 of 1, waiting, " in command("show", "r1")[1]


def test_own_tools(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my_tools_for_test.py").write_text(
        "def weather(city: str) -> str:\n    'Return the weather.'\n    return f'sunny in {city}'\nTOOLS = [weather]\n"
    )
    code, out, _ = command("run", PARIS, "--tools", "my_tools_for_test:TOOLS", "--json")
    assert code == 0
    assert json.loads(out)["tool_calls"][0]["result"] == "sunny in Paris"


def test_a_turn_that_ended_at_a_limit_goes_on_with_more(command: Command) -> None:
    code, _, _ = command("run", PARIS, "--run-id", "r1", "--max-steps", "0", "--json")
    assert code == 1
    code, _, err = command("resume", "r1", "--add-budget", "max_stps=5")
    assert code == 2
    assert err.startswith("agent-graph: --add-budget: 'max_stps' is no limit. Did you mean 'max_steps'?")
    code, out, err = command(
        "resume", "r1", "--max-steps", "0", "--add-budget", "max-steps=5", "--add-budget", "max_cost_usd=0.05", "--json"
    )
    run = json.loads(out)
    assert (code, run["status"], run["turn"], run["steps"]) == (0, "complete", 1, 2), err
    code, _, err = command("resume", "r1", "--add-budget", "max_steps=5")
    assert (code, "at no limit" in err) == (2, True)


# -- whose money it was -----------------------------------------------------------------------------------------------------------


def test_a_namespace_is_looked_into_by_its_name(command: Command) -> None:
    """What middleware and tenants' agents had spent could not be seen: the command knew one namespace, and said "no runs yet"."""
    command("run", PARIS, "--run-id", "r1", "--namespace", "tenant")
    assert command("runs")[1] == "no runs in the namespace 'default'; there are some in others: --namespace tenant\n"
    assert "r1" in command("runs", "--namespace", "tenant")[1]
    code, _, err = command("show", "--namespace", "tenant", "r2")
    assert (code, "`agent-graph runs --namespace tenant` lists those that are." in err) == (2, True)
    code, out, _ = command("resume", "--namespace", "tenant", "r1")
    assert (code, "see it again: agent-graph show --namespace tenant r1" in out) == (0, True)
    assert command("prune", "--older-than", "0s")[1] == "deleted 0 runs\n"
    assert command("delete", "r1")[0] == 2
    assert command("delete", "--namespace", "tenant", "r1")[1] == "deleted r1\n"


def test_what_a_sub_agent_spent_is_said_to_be_in_its_parents_cost(command: Command) -> None:
    """Its run stood in the list like any other, under a name that was cut: the costs added up to more than was spent."""
    research = create_production_agent("offline", name="research")

    async def ask(question: str) -> str:
        """Ask another agent."""
        return str((await research.run(question)).output)

    lead = create_production_agent(ScriptedChatModel([call("ask", question="What is 2 + 3?"), "5."]), [ask])
    lead.run_sync("What is 2 + 3?", "a-name-of-some-length")
    out = command("runs")[1]
    [child] = [row.key.run_id for row in asyncio.run(lead.runs()) if row.parent is not None]
    assert len(child) > 40
    assert child in out
    assert out.endswith("what a sub-agent's run (parent/...) cost is in its parent's cost too\n")
    assert "sub-agent" not in command("runs", "--namespace", "other")[1]


def test_shared_budgets_are_listed_with_what_counts_in_them(command: Command) -> None:
    """How much of a budget was left could be learnt from an error alone."""
    assert command("budgets")[1].startswith("no shared budget was ever used in the namespace")
    model = ScriptedChatModel(["5."], last_forever=True, model_name="m", usage=(1_000, 50))
    for name, per in (("team-a", "total"), ("team-b", "day")):
        budget = Budget(name, max_cost_usd=5, per=per)
        agent = create_production_agent(model, budget=budget, prices={"m": {"input": 1, "output": 4}})
        agent.run_sync("What is 2 + 3?", name)
    code, out, _ = command("budgets")
    header, *rows = [line.split() for line in out.splitlines()]
    assert (code, header) == (0, ["BUDGET", "PERIOD", "COST", "TOKENS"])
    assert [[row[0], *row[2:]] for row in rows] == [["team-a", "$0.0012", "1,050"], ["team-b", "$0.0012", "1,050"]]
    assert rows[0][1] == "total"
    shown = json.loads(command("budgets", "--json")[1])
    assert shown[0] == {"budget": "team-a", "period": "total", "cost_usd": 0.0012, "tokens": 1_050}
    assert shown[1]["period"] == rows[1][1]
    assert datetime.fromisoformat(rows[1][1]).date() >= datetime.now(UTC).date() - timedelta(days=1)
    assert json.loads(command("budgets", "--json", "--namespace", "other")[1]) == []


@pytest.mark.parametrize("argv", [["run", PARIS], ["resume", "r"], ["resolve", "r", "c", "done=1"]])
def test_turns_of_the_middleware_are_not_gone_on_with_by_another_agent(argv: list[str], command: Command) -> None:
    """`show` said to resume one, and that asked another model with other tools."""
    command("run", PARIS)
    code, _, err = command(*argv, "--namespace", "create_agent")
    assert (code, "its own graph goes on with them" in err) == (2, True)
