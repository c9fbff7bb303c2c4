"""The command `agent-graph`: run, resume, resolve, runs, show, budgets, delete, prune, doctor, demo.

`main` maps what can happen to an exit code: 0 complete, 1 failed or out of time, 2 a command or setting that cannot be
used, 130 stopped by Ctrl-C (the turn stays resumable), 141 nobody reads our output any more. Heavy imports happen
inside functions, so that `--help` and `runs` answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["main"]

UNUSABLE, INTERRUPTED, NOBODY_READS = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Args:
        argv: what was typed after `agent-graph`; None takes it from `sys.argv`.
    """
    from agent_graph.cli.arguments import parse
    from agent_graph.errors import AgentGraphError

    _accept_any_text()
    try:
        code = _command(parse(None if argv is None else list(argv)))
        sys.stdout.flush()  # a pipe that nobody reads breaks here, not at exit
        return code
    except SystemExit as end:  # argparse, after --help or --version
        return end.code if isinstance(end.code, int) else 0
    except AgentGraphError as error:
        from agent_graph.cli.words import as_typed

        print(f"agent-graph: {as_typed(str(error))}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:
        _stop_writing()
        return NOBODY_READS


def _command(arguments: Namespace) -> int:
    from agent_graph.cli import commands

    return commands.COMMANDS[arguments.command](arguments)


def _accept_any_text() -> None:
    """Let no character of an answer fail on a terminal whose encoding lacks it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a stream that a test or a notebook put there may have none
        if reconfigure is not None:
            reconfigure(errors="replace")


def _stop_writing() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit is quiet too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
