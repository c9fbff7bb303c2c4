"""A process is killed where a turn ends: whoever takes it up tells the observability backend what the dead one could not.

What users saw: a turn was written down as complete before `record_run` had been called; a kill between the two lost that record for
good, since nobody takes up a turn that is complete. A tool call whose end was on disk, and not yet told, was never told.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.test_resume import kill, victim

pytestmark = pytest.mark.crash

ENDS = [
    "turn.before_conclude",
    "while it is told",
    "turn.record_run_queued",
    "turn.record_run_delivered",
    "turn.before_delivered",
    "turn.before_release",
    "turn.before_return",
]


CALLS = ["while c0.0 is told", "before model 1", "while c1.0 is told", "while c1.1 is told", "before model 2", "turn.before_conclude"]


def told(folder: Path, of: str = "told.log") -> list[str]:
    log = folder / of
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("moment", ENDS)
@pytest.mark.parametrize("how", ["unfinished", "again"])
async def test_the_end_of_a_turn_is_told_at_least_once(tmp_path: Path, moment: str, how: str) -> None:
    kill(tmp_path, moment)
    async with victim.agent_in(tmp_path) as agent:
        if how == "unfinished":
            for run_id in await agent.unfinished():
                await agent.resume(run_id)
        else:
            assert (await agent.run("do it", "r")).status == "complete"
        turns = await agent.storage.turns("default", "r")
    lines = told(tmp_path)
    assert [row.status for row in turns] == ["complete"] * len(turns)
    assert {line.split()[1] for line in lines} == {str(row.key.turn) for row in turns}, "no end of a turn is untold"
    assert len({line for line in lines if line.startswith("r 1 ")}) == 1, "told again, it says the same"


@pytest.mark.parametrize("moment", CALLS)
async def test_the_end_of_a_tool_call_is_told_at_least_once(tmp_path: Path, moment: str) -> None:
    kill(tmp_path, moment)
    async with victim.agent_in(tmp_path) as agent:
        run = await agent.resume("r")
    lines = told(tmp_path, "calls.log")
    assert [call.call_id for call in run.tool_calls] == ["c0.0", "c1.0", "c1.1"]
    assert {line.split()[0] for line in lines} == {"c0.0", "c1.0", "c1.1"}, "no end of a call is untold"
    assert len(set(lines)) == 3, "told again, it says the same"


async def test_killed_twice_what_the_second_could_not_tell_is_told_by_the_third(tmp_path: Path) -> None:
    kill(tmp_path, "while c1.1 is told")
    kill(tmp_path, "while c0.0 is told", "resume")
    async with victim.agent_in(tmp_path) as agent:
        await agent.resume("r")
    assert {line.split()[0] for line in told(tmp_path, "calls.log")} == {"c0.0", "c1.0", "c1.1"}


async def test_the_calls_of_a_killed_turn_are_told_by_whoever_closes_it(tmp_path: Path) -> None:
    kill(tmp_path, "while c0.0 is told")
    async with victim.agent_in(tmp_path, on_unfinished="close") as agent:
        await agent.run("another", "r")
        keys = {
            row.key.turn: [call.call_key for call in await agent.storage.journal(row.key)]
            for row in await agent.storage.turns("default", "r")
        }
    lines = [line.split()[1] for line in told(tmp_path, "calls.log")]
    assert lines[: len(keys[1])] == keys[1], "the closed turn's first"
    assert sorted(lines[len(keys[1]) :]) == sorted(keys[2]), "each once; parallel calls end in any order"
    assert [line.split()[1:3] for line in told(tmp_path)] == [["1", "failed"], ["2", "complete"]]
