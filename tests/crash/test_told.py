"""A process is killed where a turn ends: whoever takes it up tells the observability backend what the dead one could not.

What users saw: a turn was written down as complete before `record_run` had been called; a kill between the two lost that record for
good, since nobody takes up a turn that is complete.
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


def told(folder: Path) -> list[str]:
    log = folder / "told.log"
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
