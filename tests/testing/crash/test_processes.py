"""Children: what they return, how they end, where a fault falls."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from agent_graph import ConfigError, failpoints
from agent_graph.failpoints import failpoint
from agent_graph.testing.crash.forking import ChildFailed, call_in_fork, modules_used_by, run_in_fork
from agent_graph.testing.crash.killing import LOOP_BEGINS, AfterSeconds, AtFailpoint, AtNamed, Fault, Watch, counting_awaits


def test_what_a_child_returns_and_raises_comes_back() -> None:
    assert call_in_fork(os.getpid) != os.getpid()
    with pytest.raises(ConfigError, match="wrong") as raised:
        call_in_fork(lambda: (_ for _ in ()).throw(ConfigError("wrong")))
    assert "In a child process" in raised.value.__notes__[0]


def test_what_cannot_be_pickled_is_told_as_text() -> None:
    class LocalError(Exception):
        pass

    def fails() -> None:
        raise LocalError("local")

    with pytest.raises(ChildFailed, match="LocalError: local"):
        call_in_fork(fails)


def test_a_child_that_dies_says_so() -> None:
    with pytest.raises(ChildFailed, match="ended with -9"):
        call_in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_runs_no_exit_handlers_and_keeps_its_output_to_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    assert run_in_fork(lambda: print("hello") or 7, log=log, limit_s=60) == 7
    assert log.read_text() == "hello\n"
    assert capfd.readouterr().out == ""


def test_an_attempt_that_raises_is_told_from_one_that_is_killed(tmp_path: Path) -> None:
    assert run_in_fork(lambda: 1 // 0, log=tmp_path / "log", limit_s=60) == 1
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


def test_one_that_hangs_leaves_its_stack(tmp_path: Path) -> None:
    assert run_in_fork(lambda: time.sleep(600) or 0, log=tmp_path / "log", limit_s=0.2) == 1
    assert "Timeout" in (tmp_path / "log").read_text()


def test_modules_are_found_out_and_not_imported_here() -> None:
    def act() -> None:
        import this  # noqa: F401  an easter egg that nothing else imports; it prints

    assert "this" in modules_used_by(act, limit_s=60)


# -- where a fault falls ----------------------------------------------------------------------------------------------------


def under(fault: Fault | None, log: Path) -> tuple[int, Watch]:
    watch = Watch()

    def work() -> int:
        watch.arm(fault)
        for name in ("claim.before", LOOP_BEGINS, "model.before_call", "model.after_call"):
            failpoint(name)
        while isinstance(fault, AfterSeconds):
            watch.noticed("at.work")
        watch.ends()
        return 0

    return run_in_fork(work, log=log, limit_s=60), watch


@pytest.mark.parametrize(("n", "place"), [(1, "claim.before"), (2, LOOP_BEGINS), (4, "model.after_call")])
def test_killed_at_the_nth_failpoint(tmp_path: Path, n: int, place: str) -> None:
    ended, watch = under(AtFailpoint(n), tmp_path / "log")
    assert (ended, watch.place, watch.count) == (-signal.SIGKILL, place, n)


def test_past_the_last_failpoint_nothing_is_killed(tmp_path: Path) -> None:
    ended, watch = under(AtFailpoint(5), tmp_path / "log")
    assert (ended, watch.count) == (0, 4)
    assert watch.loop_s > 0


def test_killed_at_a_failpoint_by_its_name(tmp_path: Path) -> None:
    ended, watch = under(AtNamed("model.before_call"), tmp_path / "log")
    assert (ended, watch.place) == (-signal.SIGKILL, "model.before_call")


def test_the_timer_kills_without_a_handler(tmp_path: Path) -> None:
    ended, watch = under(AfterSeconds(0.01), tmp_path / "log")
    assert (ended, watch.place) == (-signal.SIGALRM, "at.work")


def test_failpoints_of_all_threads_count(tmp_path: Path) -> None:
    watch = Watch()

    def work() -> int:
        watch.arm(None)
        threads = [threading.Thread(target=lambda: [failpoint("a.b") for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 0

    assert run_in_fork(work, log=tmp_path / "log", limit_s=60) == 0
    assert watch.count == 2_000


def test_here_no_failpoint_was_armed() -> None:
    assert failpoints._hook is None


# -- awaits -----------------------------------------------------------------------------------------------------------------


async def test_every_suspension_of_every_task_counts() -> None:
    reached: list[int] = []
    loop = asyncio.get_running_loop()

    async def inner(value: str) -> str:
        await asyncio.sleep(0)
        return value

    async def outer() -> list[str]:
        await asyncio.sleep(0)
        return list(await asyncio.gather(inner("a"), inner("b")))

    loop.set_task_factory(counting_awaits(reached.append))
    try:
        assert await loop.create_task(outer()) == ["a", "b"]
    finally:
        loop.set_task_factory(None)
    assert reached == [1, 2, 3, 4]
