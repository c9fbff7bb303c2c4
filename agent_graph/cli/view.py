"""What a person sees while a turn runs: plain lines, or a line that lives at the foot of a terminal.

Both views print the same lasting lines (`words.event_line`), so that a log of a pipe and a scroll-back of a terminal
read alike. The terminal's view has one more line, redrawn eight times a second and gone at the end: what is running,
since when.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Protocol, Self

from agent_graph.cli import words
from agent_graph.events import (
    Event,
    RunStarted,
    StepFinished,
    TextDelta,
    ToolFinished,
    ToolStarted,
)

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

__all__ = ["Foot", "PlainView", "QuietView", "TerminalView", "View", "make_view"]


class View(AbstractContextManager["View"], Protocol):
    """Shows a turn's events as they come, between its `with` and the end of it."""

    def show(self, event: Event) -> None:
        """Show `event`."""


def make_view(stream: IO[str]) -> View:
    """Return the view that suits `stream`: a live one for a terminal."""
    return TerminalView(stream) if stream.isatty() else PlainView(stream)


class QuietView:
    """Shows nothing: for --json."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None

    def show(self, event: Event) -> None:
        """Take no notice."""


class PlainView(QuietView):
    """One line an event, flushed at once: for pipes, files and logs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        line = words.event_line(event)
        if line is not None:
            print(line, file=self._stream, flush=True)


class TerminalView:
    """The same lines in colour, above a line that says what is going on now."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(file=stream, highlight=False)
        self._foot = Foot()
        self._spinner = Spinner("dots")
        self._live = Live(console=self._console, get_renderable=self._render_foot, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Print the event's line, if it has one, and update the line at the foot."""
        from rich.text import Text

        self._foot.note(event)
        line = words.event_line(event)
        if line is not None:
            self._console.print(Text(line, style=_STYLES.get(type(event), "")), soft_wrap=True)

    def _render_foot(self) -> RenderableType:
        from rich.text import Text

        self._spinner.update(text=Text(self._foot.line(), style="dim", no_wrap=True, overflow="ellipsis"))
        return self._spinner


_STYLES: dict[type, str] = {RunStarted: "dim", StepFinished: "cyan", ToolStarted: "dim"}


class Foot:
    """The line at the foot: the tools that run, or the model's words as they come, and for how long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._tools: dict[str, str] = {}
        self._text = ""

    def note(self, event: Event) -> None:
        """Take `event` into account."""
        match event:
            case ToolStarted(call=call):
                self._tools[call.call_id] = words.call_text(call, 40)
            case ToolFinished(call=call):
                self._tools.pop(call.call_id, None)
            case TextDelta(text=text, restarts=restarts):
                self._text = "" if restarts else (self._text + text)[-400:]
                return
            case _:
                self._text = ""
        self._since = self._clock()

    def line(self) -> str:
        """Return what is going on, in a few words, and for how long."""
        if self._tools:
            what = "running " + ", ".join(self._tools.values())
        else:
            what = words.one_line(self._text[-60:], 60) or "asking the model"
        return f"{what} · {self._clock() - self._since:.1f} s"
