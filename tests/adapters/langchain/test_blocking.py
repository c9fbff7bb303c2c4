"""Threads that end with the program, and loops that are not blocked."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

from agent_graph_adapters.langchain.blocking import in_thread, run_alone

word: ContextVar[str] = ContextVar("word", default="nothing")


async def test_the_context_goes_along_and_what_is_set_there_stays_there() -> None:
    def work() -> str:
        before = word.get()
        word.set("changed")
        return before

    word.set("said")

    assert await in_thread(work, name="work") == "said"
    assert word.get() == "said"


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
async def test_what_is_raised_there_is_raised_here(error: BaseException) -> None:
    def work() -> None:
        raise error

    waiting = in_thread(work, name="work")

    with pytest.raises(type(error)) as raised:
        await waiting

    assert raised.value is error


async def test_stop_iteration_does_not_hang_the_caller() -> None:
    """A future refuses to hold a StopIteration: a tool that called next() on an empty iterator was waited for forever."""
    with pytest.raises(RuntimeError, match="first raised StopIteration") as raised:
        await in_thread(lambda: next(iter([])), name="first")

    assert isinstance(raised.value.__cause__, StopIteration)


async def test_a_caller_that_is_cancelled_does_not_wait() -> None:
    leave = threading.Event()
    task = asyncio.create_task(in_thread(leave.wait, name="slow"))
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leave.set()


def test_a_tool_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = """
        import asyncio, threading
        from agent_graph_adapters.langchain.blocking import in_thread

        async def main():
            try:
                await asyncio.wait_for(in_thread(threading.Event().wait, name="hangs"), 0.05)
            except TimeoutError:
                print("timed out")

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("timed out\n", "")


def test_alone_it_runs_on_one_loop_each_time() -> None:
    """A client that was used in one call is used again in the next."""

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert run_alone(loop(), instead="loop") is run_alone(loop(), instead="loop")


async def test_inside_a_loop_it_refuses() -> None:
    async def answer() -> int:
        return 42

    with pytest.raises(RuntimeError, match=r"await answer\(\) instead"):
        run_alone(answer(), instead="answer")
