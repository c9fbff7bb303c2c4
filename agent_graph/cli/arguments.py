"""What may be typed after `agent-graph`. Importing this costs argparse and nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from agent_graph.errors import ConfigError

__all__ = ["limits_of", "parse", "storage_option", "turn_options"]

_EPILOG = """\
Without a key in the environment a small offline model answers, labelled as such: the loop, the limits and the storage
are the real ones. With OPENAI_API_KEY or OPENAI_BASE_URL, or with --model, a language model does: docs/quickstart.md.

exit codes: 0 complete; 1 failed or out of time; 2 the command or a setting cannot be used; 130 stopped by Ctrl-C, and
can be resumed"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "allow_abbrev": False})  # a limit that is spelt half may be another one tomorrow

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.format_usage().strip()}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; `.command` is "run", "runs", "show" or "resume".

    Raises:
        ConfigError: they cannot be understood.
        SystemExit: with code 0, after --help or --version.
    """
    return _parser().parse_args(argv)


def limits_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the limits that were typed, under the names that `AgentConfig` gives them; "none" is None: no limit."""
    names = ("max_steps", "max_cost_usd", "timeout_s")
    return {name: value[0] for name in names if (value := getattr(arguments, name)) is not None}


def storage_option(arguments: argparse.Namespace) -> list[str]:
    """Return the option that leads to the same storage again; nothing where none was named."""
    return [] if arguments.storage is None else ["--storage", arguments.storage]


def turn_options(arguments: argparse.Namespace) -> list[str]:
    """Return the options of a turn as they were typed: what goes on with it should go on under the same."""
    options = storage_option(arguments)
    for name in ("model", "tools", "max_steps", "max_cost_usd", "timeout_s"):
        value = getattr(arguments, name)
        if value is not None:
            text = str(value[0] if isinstance(value, tuple) else value)
            options += [f"--{name.replace('_', '-')}", text.lower() if text == "None" else text]
    return options + ["--live"] * arguments.live


def _parser() -> argparse.ArgumentParser:
    from agent_graph import __version__

    parser = _Parser(
        prog="agent-graph",
        description="Run an AI agent whose budgets are hard and whose every step is kept.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"agent-graph {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_resume(commands)
    _add_runs(commands)
    _add_show(commands)
    return parser


def _add_run(commands: Any) -> None:
    command = commands.add_parser("run", help="answer a question, with tools")
    command.add_argument("question", metavar="QUESTION", help='what to ask; "-" reads it from standard input')
    command.add_argument("--run-id", metavar="RUN_ID", help="the conversation to go on with, or a name for a new one")
    _add_agent_options(command)


def _add_resume(commands: Any) -> None:
    command = commands.add_parser("resume", help="go on with a turn that was stopped or whose process died")
    command.add_argument("run_id", metavar="RUN_ID")
    _add_agent_options(command)


def _add_runs(commands: Any) -> None:
    command = commands.add_parser("runs", help="list the runs in the storage, newest first")
    command.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N runs (default 20)")
    _add_common_options(command)


def _add_show(commands: Any) -> None:
    command = commands.add_parser("show", help="show the turns of a run: questions, tool calls, answers, cost")
    command.add_argument("run_id", metavar="RUN_ID")
    _add_common_options(command)


def _add_agent_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="MODEL", help='such as "openai:gpt-5-mini"; "offline" for the offline model')
    command.add_argument("--tools", metavar="MODULE:NAME", help="a list of tools instead of the three demo tools")
    command.add_argument("--live", action="store_true", help="let the demo weather tool ask a weather service on the internet")
    command.add_argument("--max-steps", type=_limit(int), metavar="N", help="model replies of the turn")
    command.add_argument("--max-cost-usd", type=_limit(Decimal), metavar="USD", help="spend no more than this on the turn")
    command.add_argument("--timeout-s", type=_limit(float), metavar="SECONDS", help="working time of the turn")
    _add_common_options(command)


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--storage", metavar="PATH", help="default $AGENT_GRAPH_STORAGE, else ./.agent_graph/runs.db")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _limit(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any]]:
    """A limit's reader. It returns a 1-tuple, so that "none" (no limit) and an option not given stay two things."""

    def read(text: str) -> tuple[Any]:
        if text.lower() == "none":
            return (None,)
        try:
            return (kind(text),)
        except (ValueError, InvalidOperation) as error:
            raise argparse.ArgumentTypeError(f'{text!r} is no number; "none" means no limit') from error

    return read


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1 is due")
    return number
