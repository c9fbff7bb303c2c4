"""crash_fuzz as a user calls it: settings that cannot be, agents that cannot be tested, and an agent that must fail."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from agent_graph import ConfigError, ProductionAgent, ToolCall
from agent_graph.testing import CrashFound, FakeTools, ListObservability, ScriptedLLM, World, call
from agent_graph.testing.crash import crash_fuzz as from_the_package
from agent_graph.testing.crash.fuzz import crash_fuzz

TOOLS = [{"name": "pay", "idempotent": False}]
NOTHING: dict[str, Any] = {"failpoints": False, "pairs": 0, "kills": 0}

pytestmark = pytest.mark.slow


class Tools:
    def __init__(self, world: World, times: int = 1) -> None:
        self._world, self._times = world, times

    async def execute(self, call: ToolCall) -> ToolCall:
        for _ in range(self._times):
            self._world.effect()
        call.result = "paid"
        return call


def agent_of(world: World, tools: Any = None, **options: Any) -> ProductionAgent:
    model = world.llm([call("pay", invoice="A-17"), "Paid."], cost_usd=0.001)
    return ProductionAgent(model, TOOLS, tools or Tools(world), None, ListObservability(), {}, **options)  # type: ignore[arg-type]  # no memory is the default one


class WithoutMarks(ProductionAgent):
    """An agent whose non-idempotent tools are taken for idempotent: the mutation that a crash test has to find."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_idempotent = lambda name: True


def test_an_agent_that_keeps_its_word_passes() -> None:
    report = crash_fuzz(agent_of, "Pay A-17.", failpoints=False, pairs=2, kills=4, seed=1)
    assert report.ok
    assert report.total.kills >= 5
    assert "SIGKILL at random instants" in str(report)


def test_several_turns_are_several_payments() -> None:
    def make(world: World) -> ProductionAgent:
        replies = [call("pay", invoice="A-17"), "Paid.", call("pay", invoice="A-17"), "Paid again."]
        return ProductionAgent(world.llm(replies), TOOLS, Tools(world), None, ListObservability(), {})  # type: ignore[arg-type]  # see above

    report = crash_fuzz(make, ["Pay A-17.", "Pay A-17."], seed=2, failpoints=False, pairs=0, kills=6)
    assert report.ok
    assert report.total.calls == 2 * report.total.runs


def test_a_broken_agent_is_found_and_its_files_are_kept(tmp_path: Path) -> None:
    """Taken for idempotent by mistake: the journal lets the payment run again."""

    def make(world: World) -> ProductionAgent:
        model = world.llm([call("pay", invoice="A-17"), "Paid."])
        return WithoutMarks(model, TOOLS, Tools(world), None, ListObservability(), {})  # type: ignore[arg-type]  # see above

    with pytest.raises(CrashFound, match="no non-idempotent call run twice: pay: 2 effects") as raised:
        crash_fuzz(make, "Pay A-17.", pairs=0, kills=0, every=3, seed=1, keep=tmp_path / "kept")
    failure = raised.value.report.failures[0]
    assert {"runs.db", "world.jsonl", "attempt-1.log"} <= {path.name for path in Path(failure.kept).iterdir()}
    assert Path(failure.kept).parent == tmp_path / "kept"


def test_an_agent_that_is_wrong_without_any_crash_is_said_to_be() -> None:
    with pytest.raises(AssertionError, match="the undisturbed run is wrong already:\nno non-idempotent call run twice: pay: 2 effects"):
        crash_fuzz(lambda world: agent_of(world, Tools(world, times=2)), "Pay A-17.", **NOTHING)


def test_an_agent_that_raises_without_any_crash_is_said_to() -> None:
    def make(world: World) -> ProductionAgent:
        raise KeyError("no such setting")

    with pytest.raises(KeyError, match="no such setting"):
        crash_fuzz(make, "Pay A-17.", **NOTHING)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda world: agent_of(world, storage=":memory:"), "outside this run's folder"),
        (lambda world: agent_of(world, storage=world.folder.parent / "shared.db"), "outside this run's folder"),
        (lambda world: FakeTools(), "make_agent returned FakeTools; a ProductionAgent was due"),
    ],
)
def test_an_agent_that_cannot_be_tested_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        crash_fuzz(make, "Pay A-17.", **NOTHING)


@pytest.mark.parametrize("wrong", [{"kills": -1}, {"kills": True}, {"kills": 1.5}, {"kills_per_run": "3"}, {"every": -1}])
def test_a_setting_that_cannot_be_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        crash_fuzz(agent_of, "Pay A-17.", **wrong)


@pytest.mark.parametrize("priced", [False, True], ids=["tells its cost", "has a price"])
def test_a_chat_model_with_and_without_a_price(priced: bool) -> None:
    """Without `prices=` the undisturbed run was called wrong: billed 0.004 USD, of which the account knew nothing."""

    def make(world: World) -> ProductionAgent:
        model = world.chat_model([call("pay", invoice="A-17"), "Paid."], cost_usd=0.002, tells_cost=not priced)
        prices = {"scripted": {"input": 1, "output": 10}} if priced else {}
        return ProductionAgent(model, TOOLS, Tools(world), None, ListObservability(), {}, prices=prices)  # type: ignore[arg-type]  # a chat model is taken too; no memory

    report = crash_fuzz(make, "Pay A-17.", **{**NOTHING, "pairs": 2}, seed=1)
    assert report.ok
    assert report.total.kills > 0


def streaming(world: World, *, model: Any = None, unseen: bool = False) -> ProductionAgent:
    """An agent with a chat model; `unseen`: its tool asks the model too, behind the agent's back."""
    model = model or world.chat_model([call("pay", invoice="A-17"), "It is paid."], cost_usd=0.002)

    class Asking(Tools):
        async def execute(self, call: ToolCall) -> ToolCall:
            if unseen:
                async for _ in model.astream([HumanMessage("May I?")]):
                    pass
            return await super().execute(call)

    return ProductionAgent(model, TOOLS, Asking(world), None, ListObservability(), {})  # type: ignore[arg-type]  # a chat model is taken too; no memory


def test_an_agent_that_streams_is_killed_too() -> None:
    report = crash_fuzz(streaming, "Pay A-17.", stream=True, failpoints=False, pairs=2, kills=3, named=[("model.before_call",)], seed=4)
    assert report.ok
    assert report.total.kills >= 4
    assert report.total.billed_usd > 0


def test_a_streamed_call_that_nobody_accounts_for_is_found() -> None:
    """Streamed calls were not billed, so that no invariant of money could fail for an agent that streams."""
    with pytest.raises(AssertionError, match=r"billed 0\.006 USD; the account knows of 0\.004"):
        crash_fuzz(lambda world: streaming(world, unseen=True), "Pay A-17.", **NOTHING, stream=True)


def test_a_streamed_call_that_is_accounted_for_twice_is_found() -> None:
    def make(world: World) -> ProductionAgent:
        twice = AIMessage("It is paid.", response_metadata={"cost_usd": "0.004"})
        return streaming(world, model=world.chat_model([call("pay", invoice="A-17"), twice], cost_usd=0.002))

    with pytest.raises(AssertionError, match=r"settled 0\.006 USD of 0\.004 billed: money was counted that nobody charged"):
        crash_fuzz(make, "Pay A-17.", **NOTHING, stream=True)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([("tool.after_efect",)], "'tool.after_efect' is no failpoint. Did you mean 'tool.after_effect' or "),
        (["tool.after_effect"], "a list with a list of failpoints for each run is due"),
        ("tool.after_effect", "a list with a list of failpoints for each run is due"),
        ([()], "a list with a list of failpoints for each run is due"),
        ([("budget.called",)], "the task never passes 'budget.called', so nobody was killed there"),
    ],
    ids=str,
)
def test_a_kill_that_could_never_fall_is_refused(named: Any, says: str) -> None:
    """A typo was silently green: the run went to its end, and nobody was killed."""
    with pytest.raises(ConfigError, match=f"named: .*{re.escape(says)}"):
        crash_fuzz(agent_of, "Pay A-17.", **NOTHING, named=named)


def test_the_fixture_is_the_function(crash_fuzz: Any) -> None:
    assert crash_fuzz.func is from_the_package
    assert crash_fuzz(agent_of, "Pay A-17.", **NOTHING).total.kills == 0


def test_the_judge_of_the_caller_is_asked(tmp_path: Path) -> None:
    def look(evidence: Any) -> list[str]:
        return ["the invoice is not booked"] if evidence.account.turns[0].output == "Paid." else []

    with pytest.raises(CrashFound, match="your own: the invoice is not booked"):
        crash_fuzz(agent_of, "Pay A-17.", **{**NOTHING, "pairs": 1}, look=look, keep=tmp_path)


def test_nothing_is_left_behind_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[crash_fuzz.__module__], "SHARED_MEMORY", tmp_path)  # `crash.fuzz` is the function
    crash_fuzz(agent_of, "Pay A-17.", **{**NOTHING, "pairs": 1})
    with pytest.raises(ConfigError):
        crash_fuzz(lambda world: agent_of(world, storage=":memory:"), "Pay A-17.", **NOTHING)
    with pytest.raises(AssertionError):
        crash_fuzz(lambda world: agent_of(world, Tools(world, times=2)), "Pay A-17.", **NOTHING)
    assert list(tmp_path.iterdir()) == []


def test_an_agent_that_does_not_work_proves_nothing() -> None:
    """It was found to lose nothing, having done nothing."""

    def broken(world: World) -> ProductionAgent:
        model = world.llm([ValueError("a bug")], cost_usd=0.001)
        config = {"retry_attempts": 1}
        return ProductionAgent(model, TOOLS, Tools(world), None, ListObservability(), config)  # type: ignore[arg-type]  # see above

    with pytest.raises(AssertionError, match="ended failed by itself"):
        crash_fuzz(broken, "Pay A-17.", **NOTHING)


def test_a_world_that_hears_nothing_proves_nothing() -> None:
    def silent(world: World) -> ProductionAgent:
        model = ScriptedLLM(["I did nothing."])
        return ProductionAgent(model, [], FakeTools({}), None, ListObservability(), {})  # type: ignore[arg-type]  # see above

    with pytest.raises(AssertionError, match="told the world anything"):
        crash_fuzz(silent, "Do nothing.", **NOTHING)


@pytest.mark.parametrize("setting", [{"pairs": -5}, {"every": 0}, {"attempt_s": -1}, {"kills": True}], ids=str)
def test_settings_that_cannot_be(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        crash_fuzz(agent_of, "Pay A-17.", **{**NOTHING, **setting})
