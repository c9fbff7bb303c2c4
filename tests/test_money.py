"""The product's word: under any interleaving, cost, failure and crash the provider's own bill never passes the limit.

The provider honours the output cap, and bills no more input than was counted; it keeps its own bill. A crash is taken at an instant
at which a call is under way: all that is committed in the file is copied, everything in memory is thrown away, and new agents go
on over the copy.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import Budget, ProductionAgent
from agent_graph.decisions import prompt
from agent_graph.storage.port import Charge, LedgerRow, TurnKey
from agent_graph.testing import FakeClock
from tests.provider import APIConnectionError, Hangs, InternalServerError, PaidModel, Provider, paid_agent, tool_call

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

# -- what may happen at a call of the provider -----------------------------------------------------------------------------------

TOKENS = st.integers(0, 1_200)
EVENTS = st.one_of(
    st.tuples(st.just("tool"), TOKENS),
    st.tuples(st.just("tool"), TOKENS),
    st.tuples(st.just("answer"), TOKENS),
    st.tuples(st.just("empty"), TOKENS),
    st.tuples(st.just("lost"), TOKENS),
    st.tuples(st.just("refused"), TOKENS),
    st.tuples(st.just("crash"), TOKENS),
)


@dataclass
class World:
    """A provider whose n-th call ends as the n-th event says, and a file that outlives crashes."""

    events: list[tuple[str, int]]
    folder: Path
    provider: Provider = field(default_factory=Provider)
    lives: int = 0
    crashed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    clock: FakeClock = field(default_factory=lambda: FakeClock(auto=True))

    @property
    def file(self) -> Path:
        return self.folder / f"life-{self.lives}.db"

    def model(self, name: str, usd_per_token: str, tool_name: str) -> PaidModel:
        def says(messages: list[BaseMessage], number: int) -> Any:
            self.asked += 1
            what, tokens = self.events[self.asked - 1] if self.asked <= len(self.events) else ("answer", 10)
            match what:
                case "tool":
                    return tool_call(tool_name, self.asked, text=f"{name} {self.asked}"), tokens
                case "lost":
                    return APIConnectionError("lost")
                case "refused":
                    return InternalServerError("refused")
                case "crash":
                    self.crashed.set()
                    return Hangs(asyncio.Event().wait)
                case _:
                    return AIMessage("" if what == "empty" else "done"), tokens

        return PaidModel(model_name=name, provider=self.provider, usd_per_token=Decimal(usd_per_token), says=says)

    async def live(self, begin: Any) -> None:
        """Let `begin(file)` (agents, and the runs they are to make) go on over as many lives as crashes make of it."""
        while True:
            agents, runs = begin(self.file)
            work = asyncio.gather(*(run() for run in runs))
            dies = asyncio.ensure_future(self.crashed.wait())
            await asyncio.wait({work, dies}, return_when=asyncio.FIRST_COMPLETED)
            died = self.crashed.is_set()
            if died:
                self._copy()
                work.cancel()
            dies.cancel()
            await asyncio.gather(work, dies, return_exceptions=True)
            for agent in agents:
                await agent.aclose()
            if not died:
                return
            self.lives += 1
            self.crashed.clear()

    def _copy(self) -> None:
        target = self.folder / f"life-{self.lives + 1}.db"
        with closing(sqlite3.connect(self.file)) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)

    async def accounts(self, agent: ProductionAgent, run_ids: list[str]) -> list[tuple[Decimal, Decimal]]:
        """Return (settled, uncertain) USD of each run, from its rows."""
        sums = []
        for run_id in run_ids:
            rows: list[LedgerRow] = list(await agent.storage.ledger(TurnKey("default", run_id, 1)))
            settled = sum((Decimal(row.cost_nusd) for row in rows), Decimal(0))
            open_ = sum(
                (Decimal(row.bound_nusd) for row in rows if row.state in ("reserved", "unsettled") and row.kind != "landing"), Decimal(0)
            )
            sums.append((settled / 10**9, open_ / 10**9))
        return sums


def agent_over(file: Path, world: World, model: PaidModel, tools: Any, **options: Any) -> ProductionAgent:
    defaults = {"max_cost_usd": 1, "max_steps": 6, "timeout_s": None, "durability": "process"}
    return paid_agent(model, tools, storage=file, clock=world.clock, **{**defaults, **options})


@tool(extras={"idempotent": True})
def look(text: str) -> str:
    """Look."""
    return text


PROPERTY = settings(
    max_examples=max(20, settings.default.max_examples // 5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@PROPERTY
@given(events=st.lists(EVENTS, max_size=14), cents=st.integers(1, 120))
def test_one_run_with_a_cheaper_fallback_never_passes_its_limit(events: Any, cents: int, tmp_path_factory: Any) -> None:
    limit = Decimal(cents) / 100

    async def work() -> None:
        world = World(events, tmp_path_factory.mktemp("world"))

        def begin(file: Path) -> Any:
            main, cheap = world.model("main", "0.0004", "look"), world.model("cheap", "0.0001", "look")
            agent = agent_over(file, world, main, [look], fallbacks=[cheap], max_cost_usd=limit)
            return [agent], [lambda: agent.run("q", "r", request_id="r")]

        await world.live(begin)
        assert world.provider.bill_usd <= limit
        [agent], _ = begin(world.file)
        [(settled, uncertain)] = await world.accounts(agent, ["r"])
        assert settled <= world.provider.bill_usd <= settled + uncertain <= limit
        await agent.aclose()

    asyncio.run(work())


@PROPERTY
@given(events=st.lists(EVENTS, max_size=30), cents=st.integers(10, 150))
def test_eight_runs_on_one_named_budget_never_pass_it(events: Any, cents: int, tmp_path_factory: Any) -> None:
    limit = Decimal(cents) / 100
    names = [f"r{n}" for n in range(8)]

    async def work() -> None:
        world = World(events, tmp_path_factory.mktemp("world"))

        def begin(file: Path) -> Any:
            team = Budget("team-a", max_cost_usd=limit, per="total")
            agents = [agent_over(file, world, world.model("main", "0.0004", "look"), [look], budget=team, max_cost_usd=1) for _ in range(2)]
            return agents, [lambda n=n: agents[n % 2].run("q", names[n], request_id=names[n]) for n in range(8)]  # type: ignore[misc]  # n is bound

        await world.live(begin)
        assert world.provider.bill_usd <= limit
        agents, _ = begin(world.file)
        accounts = await world.accounts(agents[0], names)
        settled, uncertain = (sum((account[at] for account in accounts), Decimal(0)) for at in (0, 1))
        assert settled <= world.provider.bill_usd <= settled + uncertain <= limit
        use = await agents[0].storage.budget_use(Charge("default", "team-a", ""))
        assert Decimal(use.nusd) / 10**9 == settled + uncertain, "no landing is held any more, whoever died with one"
        for agent in agents:
            await agent.aclose()

    asyncio.run(work())


STEPS = st.tuples(
    st.sampled_from(["tool", "tool", "tool", "answer", "refused"]),
    TOKENS,
    st.integers(0, 30),
    st.sampled_from([1, 1, 300, 30_000, 300_000]),
)


@tool(extras={"idempotent": True})
async def find(words: int) -> str:
    """Find so many words."""
    return "word " * words


@PROPERTY
@given(events=st.lists(STEPS, max_size=40), cents=st.integers(10, 300), per=st.sampled_from([0, 200, 1_000]))
def test_a_run_that_spent_of_a_shared_budget_lands(events: Any, cents: int, per: int, tmp_path_factory: Any) -> None:
    """Of runs that competed for the last of a budget, some spent and then ended without an answer.

    Each call of the provider takes as many ticks of the loop as its event says: the runs come to their reservations in any order. Each
    result of the tool has as many words: often more than any landing could be shown.
    """
    limit, world = Decimal(cents) / 100, World([], tmp_path_factory.mktemp("world"))
    team, taken = Budget("team-a", max_cost_usd=limit, max_tokens=per * cents or None, per="total"), iter([*events])

    def says(messages: list[BaseMessage], number: int) -> Any:
        what, tokens, ticks, found = next(taken, ("tool", 900, 3, 1))

        async def late() -> Any:
            for _ in range(ticks):
                await asyncio.sleep(0)
            if what == "refused":
                raise InternalServerError("refused")
            ends = what == "answer" or prompt.LANDING in messages[0].text
            return (AIMessage("done") if ends else tool_call("find", number, words=found)), tokens

        return late()

    async def work() -> None:
        model = PaidModel(model_name="main", provider=world.provider, usd_per_token=Decimal("0.0004"), says=says)
        agents = [agent_over(world.file, world, model, [find], budget=team, max_cost_usd=None) for _ in range(2)]
        runs = await asyncio.gather(*(agents[n % 2].run("q", f"r{n}") for n in range(6)))
        assert world.provider.bill_usd <= limit
        for run in runs:
            assert run.status == "complete" or not run.steps or run.stop_reason == "error", run
        use = await agents[0].storage.budget_use(Charge("default", "team-a", ""))
        assert Decimal(use.nusd) / 10**9 == world.provider.bill_usd, "nothing is held any more"
        for agent in agents:
            await agent.aclose()

    asyncio.run(work())


@PROPERTY
@given(events=st.lists(EVENTS, max_size=24), cents=st.integers(10, 150))
def test_eight_sub_agents_of_one_parent_never_pass_its_limit(events: Any, cents: int, tmp_path_factory: Any) -> None:
    limit = Decimal(cents) / 100

    async def work() -> None:
        world = World(events, tmp_path_factory.mktemp("world"))

        def begin(file: Path) -> Any:
            child = agent_over(file, world, world.model("child", "0.0004", "look"), [look], name="child", max_cost_usd=None)

            @tool(extras={"idempotent": True})
            async def ask(text: str) -> str:
                """Ask the child."""
                return (await child.run(text)).output or "nothing"

            def lead(messages: list[BaseMessage], number: int) -> Any:
                if isinstance(messages[-1], ToolMessage):
                    return AIMessage("all asked"), 10
                calls = [{"name": "ask", "args": {"text": str(n)}, "id": f"c{n}"} for n in range(8)]
                return AIMessage("", tool_calls=calls), 10

            model = PaidModel(model_name="lead", provider=world.provider, usd_per_token=Decimal("0.00001"), says=lead)
            parent = agent_over(file, world, model, [ask], name="lead", max_cost_usd=limit)
            return [parent, child], [lambda: parent.run("q", "p", request_id="p")]

        await world.live(begin)
        assert world.provider.bill_usd <= limit
        agents, _ = begin(world.file)
        [(settled, uncertain)] = await world.accounts(agents[0], ["p"])
        assert settled <= world.provider.bill_usd <= settled + uncertain <= limit
        for agent in agents:
            await agent.aclose()

    asyncio.run(work())


# -- real processes ---------------------------------------------------------------------------------------------------------------

EIGHT = """
import asyncio, os, signal, sys
from decimal import Decimal
from pathlib import Path
from langchain_core.messages import AIMessage
from agent_graph import Budget, create_production_agent
from tests.provider import PaidModel, Provider, tool_call

folder = Path(sys.argv[1])

class Shared(Provider):
    def sell(self, model, usd):
        with (folder / "bill").open("a") as file:
            file.write(f"{usd}\\n")
        if os.environ.get("DIES"):
            os.kill(os.getpid(), signal.SIGKILL)

async def main(name):
    def look(at: int) -> str:
        "Look."
        return "nothing"

    says = lambda messages, number: (tool_call("look", 1, at=1), 1_000)
    model = PaidModel(model_name="m", provider=Shared(), usd_per_token=Decimal("0.0004"), says=says)
    team = Budget("team-a", max_cost_usd=0.50, per="total")
    async with create_production_agent(
        model, [look], prices=model.prices, storage=folder / "runs.db", budget=team, max_output_tokens=300, max_steps=None, max_tokens=None
    ) as agent:
        run = await agent.run("q", name)
        print(run.status, run.stop_reason, run.total_cost_usd, flush=True)

def begun(number):
    pid = os.fork()
    if pid == 0:
        asyncio.run(main(f"r{number}"))
        os._exit(0)
    return pid

def ended(children):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

os.environ["DIES"] = "1"
killed = ended([begun(number) for number in range(2)])
del os.environ["DIES"]
print(killed + ended([begun(number) for number in range(2, 8)]), flush=True)
"""


def test_eight_processes_on_one_named_budget_never_pass_it(tmp_path: Path) -> None:
    """Two of them are killed in the midst of a call, before the six others begin: what they had reserved stays counted."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    *ends, codes = done.stdout.splitlines()
    assert codes.count("-9") == 2, done.stderr
    assert codes.count("0") == 6, done.stderr
    assert {end.split()[0] for end in ends} == {"failed"}
    bills = [Decimal(line) for line in (tmp_path / "bill").read_text().split()]
    assert Decimal(0) < sum(bills) <= Decimal("0.50")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        [(used,)] = connection.execute("SELECT nusd FROM ag_budgets")
    assert sum(bills) <= Decimal(used) / 10**9 <= Decimal("0.50")
