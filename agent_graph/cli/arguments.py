"""What may be typed after `agent-graph`. Importing this costs argparse and nothing else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from agent_graph.errors import ConfigError

__all__ = ["limits_of", "parse", "place_options", "turn_options"]

NAMESPACE = "default"

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
    """Return the parsed arguments; `.command` is the name of one of `commands.COMMANDS`.

    Raises:
        ConfigError: they cannot be understood.
        SystemExit: with code 0, after --help or --version.
    """
    return _parser().parse_args(argv)


def limits_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the limits that were typed, under the names that `AgentConfig` gives them; "none" is None: no limit."""
    names = ("max_steps", "max_tokens", "max_cost_usd", "timeout_s")
    return {name: value[0] for name in names if (value := getattr(arguments, name)) is not None}


def place_options(arguments: argparse.Namespace) -> list[str]:
    """Return the options that lead to the same storage and namespace again; nothing where none was named."""
    storage = [] if arguments.storage is None else ["--storage", arguments.storage]
    return storage + ([] if arguments.namespace == NAMESPACE else ["--namespace", arguments.namespace])


def turn_options(arguments: argparse.Namespace) -> list[str]:
    """Return the options of a turn as they were typed: what goes on with it should go on under the same."""
    options = place_options(arguments)
    for name in ("model", "tools", "max_steps", "max_tokens", "max_cost_usd", "timeout_s"):
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
    _add_resolve(commands)
    _add_runs(commands)
    _add_show(commands)
    _add_budgets(commands)
    _add_delete(commands)
    _add_prune(commands)
    _add_doctor(commands)
    _add_demo(commands)
    return parser


def _add_run(commands: Any) -> None:
    command = commands.add_parser("run", help="answer a question, with tools")
    command.add_argument("question", metavar="QUESTION", help='what to ask; "-" reads it from standard input')
    command.add_argument("--run-id", metavar="RUN_ID", help="the conversation to go on with, or a name for a new one")
    _add_agent_options(command)


def _add_resume(commands: Any) -> None:
    command = commands.add_parser("resume", help="go on with a turn that was stopped or whose process died, or that ended at a limit")
    command.add_argument("run_id", metavar="RUN_ID")
    command.add_argument(
        "--add-budget",
        type=_addition,
        action="append",
        default=[],
        metavar="LIMIT=AMOUNT",
        help="what to add to a limit of this turn, such as max_cost_usd=0.05 or max_steps=5; it then goes on if it ended there",
    )
    _add_force(command)
    _add_agent_options(command)


_OUTCOMES = """\
outcomes of a call whose end is in doubt:
  done, done=RESULT   it happened; RESULT is what the tool would have returned (JSON, or else a text)
  not_done            it did not happen: the call may run again
  unknown             nobody can tell: the model is told so, and the call is not run again
  reject, reject=WHY  it shall not run; the model is told
of something that a guardrail asked about: approve, edit=VALUE, reject, reject=WHY, respond=TEXT"""


def _add_resolve(commands: Any) -> None:
    command = commands.add_parser(
        "resolve",
        help="give your word on a call that a turn waits for, and let the turn go on",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("run_id", metavar="RUN_ID")
    command.add_argument("call_id", metavar="CALL_ID", help="the call_id that `agent-graph show RUN_ID` names")
    command.add_argument("outcome", metavar="OUTCOME", help="one of those below")
    _add_force(command)
    _add_agent_options(command)


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="go on even if the tools are not those that it was begun with")


def _add_runs(commands: Any) -> None:
    command = commands.add_parser("runs", help="list the runs in the storage, newest first, each by its newest turn")
    command.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N runs (default 20)")
    _add_common_options(command)


def _add_show(commands: Any) -> None:
    command = commands.add_parser("show", help="show the turns of a run: questions, tool calls, answers, cost")
    command.add_argument("run_id", metavar="RUN_ID")
    _add_common_options(command)


def _add_budgets(commands: Any) -> None:
    command = commands.add_parser("budgets", help="list the shared budgets, and what counts in each: spent, reserved, of unknown end")
    _add_common_options(command)


def _add_delete(commands: Any) -> None:
    command = commands.add_parser("delete", help="delete everything of a run, finished or not")
    command.add_argument("run_id", metavar="RUN_ID")
    _add_common_options(command)


def _add_prune(commands: Any) -> None:
    command = commands.add_parser("prune", help="delete the runs that are over and were last touched long ago")
    command.add_argument(
        "--older-than",
        type=_age,
        required=True,
        metavar="AGE",
        help='such as "30d", "12h", "90min", "0s"; or a date (UTC), such as 2026-01-31',
    )
    _add_common_options(command)


def _add_doctor(commands: Any) -> None:
    command = commands.add_parser("doctor", help="see whether an agent could run here, and what would hold; asks no model")
    _add_agent_options(command)


def _add_demo(commands: Any) -> None:
    command = commands.add_parser("demo", help="see what is promised: `demo crash` kills an agent in the middle of a payment")
    command.add_argument("which", choices=["crash"], metavar="crash", help="offline, in a folder of its own, in about ten seconds")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _add_agent_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="MODEL", help='such as "openai:gpt-5-mini"; "offline" for the offline model')
    command.add_argument("--tools", metavar="MODULE:NAME", help="a list of tools instead of the three demo tools")
    command.add_argument("--live", action="store_true", help="let the demo weather tool ask a weather service on the internet")
    command.add_argument("--max-steps", type=_limit(int), metavar="N", help="model replies of the turn")
    command.add_argument("--max-tokens", type=_limit(int), metavar="N", help="input and output tokens of the turn")
    command.add_argument("--max-cost-usd", type=_limit(Decimal), metavar="USD", help="spend no more than this on the turn")
    command.add_argument("--timeout-s", type=_limit(float), metavar="SECONDS", help="working time of the turn")
    _add_common_options(command)


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--storage", metavar="PATH", help="default $AGENT_GRAPH_STORAGE, else ./.agent_graph/runs.db")
    command.add_argument(
        "--namespace", default=NAMESPACE, metavar="NAME", help='of an agent that was given one; "create_agent" for what middleware wrote'
    )
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


def _addition(text: str) -> tuple[str, Decimal]:
    """Read "max_steps=5"; which limits there are, the agent knows."""
    key, _, amount = text.partition("=")
    try:
        number = Decimal(amount)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form LIMIT=AMOUNT, such as max_cost_usd=0.05") from error
    return key.strip().replace("-", "_"), number


_UNITS_S = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _age(text: str) -> timedelta | datetime:
    """Read an age ("30d") or a date."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?) ?(s|min|h|d|w)", text.strip())
    try:
        if found is not None:
            return timedelta(seconds=float(found[1]) * _UNITS_S[found[2]])
        date = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no age such as "30d", "12h" or "90min", and no date') from error
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1 is due")
    return number
