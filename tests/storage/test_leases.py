"""Who is alive: the process, the clock, the attempt; and the thread that renews."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from agent_graph.storage import leases
from agent_graph.storage.leases import Hold, Keeper, Lease, Owner, is_alive, this_process

ME = this_process()
NOW = 1_000.0


def lease(owner: Owner, *, left_monotonic: float = 10, left_wall: float = 10, token: str | None = "t") -> Lease:
    return Lease(
        fence=1, token=token, owner=owner, until_monotonic=NOW + left_monotonic, until_wall=NOW + left_wall, lease_s=30
    )  # fmt: skip


def alive(one: Lease) -> bool:
    return is_alive(one, monotonic=NOW, wall=NOW)


def test_an_owner_survives_its_row() -> None:
    assert Owner.from_json(ME.as_json()) == ME
    assert Owner.from_json("damaged").pid == 0
    assert Owner.from_json('{"pid": 1, "other": 2}').pid == 0


def test_a_lease_given_back_is_free() -> None:
    assert not alive(lease(_parent(), token=None))


def _parent() -> Owner:
    """Another process that is certainly alive."""
    pid = os.getppid()
    found = leases._process(pid)
    assert found is not None
    return replace(ME, pid=pid, start=found[0])


def test_a_living_process_is_believed_until_its_lease_has_run_out() -> None:
    assert alive(lease(_parent()))
    assert not alive(lease(_parent(), left_monotonic=-1))


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_wall_clock_that_jumps_neither_steals_nor_prolongs(jump_s: float) -> None:
    assert alive(lease(_parent(), left_wall=jump_s))
    assert not alive(lease(_parent(), left_monotonic=-1, left_wall=jump_s))


def test_another_boots_lease_runs_out_by_the_wall_clock_and_never_lasts_longer_than_it_can() -> None:
    elsewhere = replace(ME, boot="another", pid=1)
    assert alive(lease(elsewhere, left_monotonic=-1))
    assert not alive(lease(elsewhere, left_wall=-1))
    assert not alive(lease(elsewhere, left_wall=3600))  # the clock was set back: it cannot have been renewed in the future


def test_another_containers_process_cannot_be_looked_up_and_is_believed() -> None:
    assert alive(lease(replace(ME, space="pid:[1]", pid=2**22 + 1)))


def test_a_process_that_is_gone_is_dead_at_once() -> None:
    process = subprocess.Popen(["sleep", "60"])
    found = leases._process(process.pid)
    assert found is not None
    owner = replace(ME, pid=process.pid, start=found[0])
    assert alive(lease(owner))
    assert not alive(lease(replace(owner, start=str(int(found[0]) - 1))))  # the pid was given to a younger process
    process.kill()
    while leases._process(process.pid)[1] not in "ZX":  # type: ignore[index]  # it is not reaped yet
        time.sleep(0.01)
    assert not alive(lease(owner))
    process.wait()
    assert not alive(lease(owner))


@pytest.mark.skipif(os.name != "posix", reason="os.kill(pid, 0) ends processes elsewhere")
def test_without_proc_the_pid_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_identity", lambda pid: Owner(pid, "", "", "", "host"))
    assert alive(lease(Owner(os.getppid(), "", "", "", "host")))
    assert not alive(lease(Owner(2**22 + 1, "", "", "", "host")))
    assert alive(lease(Owner(2**22 + 1, "", "", "", "another host")))
    assert not alive(lease(Owner(2**22 + 1, "", "", "", "another host"), left_wall=-1))


def test_inside_this_process_the_registry_decides() -> None:
    unknown = replace(lease(ME), token="nobody's")
    assert not alive(unknown)
    keeper = Keeper(renew=lambda hold: None, give_back=lambda hold: None)
    owner = threading.Event()
    hold = Hold("n", "r", owner=owner, lease_s=30)
    keeper.announce(hold)
    held = lease(ME, left_monotonic=-1, left_wall=-1)
    assert alive(replace(held, token=hold.token))  # its time is over, but its attempt is not
    del owner
    assert not alive(replace(held, token=hold.token))
    keeper.drop(hold)
    assert hold.token not in leases._holds


async def test_a_hold_lapses_with_its_task_but_not_while_it_runs() -> None:
    ended = asyncio.Event()
    task = asyncio.create_task(ended.wait())
    hold = Hold("n", "r", owner=task, lease_s=30)
    assert not hold.has_lapsed()
    ended.set()
    await task
    assert hold.has_lapsed()


def test_a_hold_lapses_with_its_loop() -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    hold = Hold("n", "r", owner=future, lease_s=30)
    assert not hold.has_lapsed()
    loop.close()
    assert hold.has_lapsed()


def test_an_owner_without_weak_references_holds_until_it_is_released() -> None:
    assert not Hold("n", "r", owner=7, lease_s=30).has_lapsed()


def test_the_keeper_renews_in_time_and_gives_back_what_has_lapsed() -> None:
    renewed: list[float] = []
    given_back = threading.Event()
    keeper = Keeper(renew=lambda hold: renewed.append(time.monotonic()), give_back=lambda hold: given_back.set())

    class Attempt:
        pass

    attempt: Any = Attempt()
    keeper.keep(Hold("n", "r", owner=attempt, lease_s=0.6))
    began = time.monotonic()
    while len(renewed) < 3 and time.monotonic() - began < 20:
        time.sleep(0.02)
    assert len(renewed) >= 3
    assert renewed[0] - began >= 0.19  # a third of the lease, not all the time
    attempt = None
    assert given_back.wait(10)
    keeper.stop()


def test_a_stopped_keeper_gives_everything_back() -> None:
    given_back: list[Hold] = []
    keeper = Keeper(renew=lambda hold: None, give_back=given_back.append)
    hold = Hold("n", "r", owner=threading.current_thread(), lease_s=30)
    keeper.announce(hold)
    keeper.keep(hold)
    keeper.stop()
    assert given_back == [hold]
    assert hold.token not in leases._holds
