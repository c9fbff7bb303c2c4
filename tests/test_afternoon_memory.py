"""An afternoon with the starter code: memory and observability."""

from __future__ import annotations

import dataclasses
import json

import pytest

from agent_graph import ObservabilityBackend
from tests.starter import PARIS, QUESTION, Memory, ask, asks, make, roles, said

pytestmark = pytest.mark.usefixtures("at_home")


def test_memory_holds_question_call_result_and_answer_in_order():
    it = make(asks(), "Sunny.")
    ask(it)
    saved = it.memory.saved["run_001"]
    assert roles(saved) == ["user", "assistant", "tool", "assistant"]
    assert [m.content for m in saved] == [QUESTION, "", "sunny in Paris", "Sunny."]


def test_memory_is_saved_for_a_failed_run_too():
    it = make(asks(), ValueError("broken"), config={"retry_attempts": 1})
    ask(it)
    assert roles(it.memory.saved["run_001"])[:3] == ["user", "assistant", "tool"]


class Broken(Memory):
    def __init__(self, **what):
        super().__init__()
        self.what = what

    async def load(self, run_id):
        return self._answer("load", [])

    async def save(self, run_id, messages):
        self._answer("save", None)

    def _answer(self, method, usual):
        answer = self.what.get(method, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_memory_that_cannot_load_ends_the_run_before_any_model_call():
    it = make("Hello.", memory=Broken(load=OSError("no disk")))
    run = ask(it)
    assert run.status == "failed"
    assert "no disk" in run.error
    assert it.llm.requests == []
    assert len(it.obs.runs) == 1


def test_a_memory_that_loads_nothing_at_all_names_what_was_due():
    run = ask(make("Hello.", memory=Broken(load="nothing")))
    assert (run.status, run.error.split(":")[0]) == ("failed", "ContractError")
    assert "MemoryBackend.load" in run.error


def test_a_memory_that_cannot_save_leaves_the_answer_standing():
    run = ask(make("Hello.", memory=Broken(save=OSError("no disk"))))
    assert (run.status, run.output) == ("complete", "Hello.")
    assert any("no disk" in warning for warning in run.warnings)


@pytest.mark.parametrize(
    ("replies", "status", "calls"),
    [
        ((asks(), "Sunny."), "complete", ["c1"]),
        ((said(calls=[("get_weather", PARIS), ("pay", PARIS)]), "Done."), "complete", ["c1", "c2"]),
        ((asks(), ValueError("broken")), "failed", ["c1"]),
    ],
    ids=["one call", "two calls", "failed"],
)
def test_observability_has_been_told_everything_when_run_returns(replies, status, calls):
    it = make(*replies, config={"retry_attempts": 1})
    run = ask(it)
    assert sorted(it.obs.calls) == [(call_id, "run_001") for call_id in calls]
    assert [(r.run_id, r.status, r.steps) for r in it.obs.runs] == [("run_001", status, run.steps)]


def test_observability_that_raises_never_changes_a_run():
    class Raising(ObservabilityBackend):
        def record_run(self, run):
            raise RuntimeError("the collector is down")

        def record_tool_call(self, call, run_id):
            raise RuntimeError("the collector is down")

    run = ask(make(asks(), "Sunny.", obs=Raising()))
    assert (run.status, run.output, run.error) == ("complete", "Sunny.", None)


def test_a_run_is_plain_values_all_the_way_down():
    run = dataclasses.asdict(ask(make(asks(), "Sunny.")))
    assert (run["run_id"], run["status"], run["tool_calls"][0]["result"]) == ("run_001", "complete", "sunny in Paris")
    assert json.loads(json.dumps(run))["output"] == "Sunny."
