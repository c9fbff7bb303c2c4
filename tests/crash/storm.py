"""The fault matrix, its nightly column: `make storm`. Prints the seed, the figures, and stock LangGraph beside them.

    make storm KILLS=10000 PAIRS=1000 JOBS=2 SEED=7

Each job is a process with a share of the kills and a seed of its own (SEED, SEED + 1, ...); the first also goes through every
failpoint, every await and every signal. Exit code 1 where our agent broke an invariant, or where stock LangGraph broke none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that the jobs find `tests`

from agent_graph.testing.crash import CrashReport, Plan, fuzz
from agent_graph.testing.crash.subject import AgentSubject, Subject
from tests.crash.scenario import TASK, make_agent
from tests.crash.stock import StockSubject


def subject_named(name: str) -> Subject:
    return AgentSubject(make_agent, (TASK,)) if name == "agent_graph" else StockSubject()


def job(name: str, seed: int, plan: Plan) -> CrashReport:
    if name == "agent_graph":
        return fuzz(subject_named(name), plan, seed=seed)
    with tempfile.TemporaryDirectory() as nowhere:  # that it breaks invariants is known; nobody will look at the files
        report = fuzz(subject_named(name), plan, seed=seed, keep=nowhere)
    return replace(report, failures=tuple(replace(failure, kept="") for failure in report.failures))


def share(plan: Plan, jobs: int, number: int) -> Plan:
    """Return what job `number` does of `plan`."""
    first = number == 0
    return Plan(
        failpoints=plan.failpoints and first,
        pairs=plan.pairs if plan.pairs < 0 and first else max(0, plan.pairs) // jobs,
        kills=plan.kills // jobs + (plan.kills % jobs if first else 0),
        kills_per_run=plan.kills_per_run,
        awaits=plan.awaits and first,
        signals=plan.signals if first else (),
    )


def storm(name: str, plan: Plan, *, seed: int, jobs: int) -> CrashReport:
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(job, name, seed + number, share(plan, jobs, number)) for number in range(jobs)]
        return reduce(add, [done.result() for done in shares])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=10_000, help="at random instants")
    options.add_argument("--pairs", type=int, default=1_000, help="of failpoints; -1 for all")
    options.add_argument("--stock-kills", type=int, default=400, help="at random instants, of stock LangGraph")
    options.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options.add_argument("--seed", type=int, default=None)
    chosen = options.parse_args()
    seed = random.SystemRandom().randrange(2**31) if chosen.seed is None else chosen.seed

    every = Plan(pairs=chosen.pairs, kills=chosen.kills, awaits=True, signals=(signal.SIGINT, signal.SIGTERM))
    ours = storm("agent_graph", every, seed=seed, jobs=chosen.jobs)
    print(f"agent_graph\n\n{ours}\n", flush=True)
    if not chosen.stock_kills:
        return 0 if ours.ok else 1
    stock = storm("stock", Plan(failpoints=False, pairs=0, kills=chosen.stock_kills), seed=seed, jobs=chosen.jobs)
    print(f'stock LangGraph: create_agent, AsyncSqliteSaver, durability="sync"\n\n{stock}')
    return 0 if ours.ok and not stock.ok else 1


if __name__ == "__main__":
    sys.exit(main())
