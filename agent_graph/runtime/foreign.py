"""Calling what users wrote: a tool, a memory, a model of theirs.

Two exceptions mean something to asyncio that foreign code does not mean by them. `sys.exit()` in a tool would end the event loop, and
with it every other run of the process; a CancelledError that nobody of ours caused (an inner task was cancelled) would look like the
caller's own cancellation. Both become ordinary errors here, at the port's border.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["called"]


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function(*args)` returns, awaited where it is to be awaited: a port's method may be written without `async`.

    Raises:
        RuntimeError: it called `sys.exit`, or was cancelled from within. Whatever else it raises, and our own cancellation, passes.
    """
    try:
        value = function(*args)
        return await value if inspect.isawaitable(value) else value
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it was cancelled from within") from error
