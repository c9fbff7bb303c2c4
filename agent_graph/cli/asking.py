"""`run`, `resume` and `resolve`: one turn, shown while it goes on.

Ctrl-C cancels the turn as any caller may: the agent ends it tidily, everything up to that instant is on disk, and
`resume` goes on from there. With --json nothing but the AgentRun goes to standard output; which model answers is then
said on standard error.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from agent_graph.cli import words
from agent_graph.cli.arguments import limits_of, place_options, turn_options
from agent_graph.cli.looking import insist_on_storage, unpriced
from agent_graph.cli.view import QuietView, View, make_view
from agent_graph.config import AgentConfig, validate_run_id
from agent_graph.errors import ConfigError, RunNotFound
from agent_graph.events import Event, RunFinished, RunStarted
from agent_graph.resolutions import FIELDS, KINDS, Resolution, from_json
from agent_graph.runtime.account import to_json
from agent_graph.storage.port import TurnKey
from agent_graph.types import AgentRun

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent

__all__ = ["agent_of", "limits_line", "resolve", "resume", "run"]

Events: TypeAlias = "Callable[[ProductionAgent], AsyncIterator[Event]]"
"""What is asked of the agent: a stream whose last event is RunFinished."""


def run(arguments: Namespace) -> int:
    """Ask a question."""
    question = _question(arguments.question)
    return _take_turn(arguments, lambda agent: agent.stream(question, arguments.run_id))


def resume(arguments: Namespace) -> int:
    """Go on with the unfinished turn of a run; of a run without one, show how its last turn ended."""
    validate_run_id(arguments.run_id)
    insist_on_storage(arguments.storage)
    return _take_turn(arguments, lambda agent: _resumed(agent, arguments))


def resolve(arguments: Namespace) -> int:
    """Write down a person's word on something that the run's turn waits for, and show how the turn goes on."""
    validate_run_id(arguments.run_id)
    word = _word(arguments.outcome)
    insist_on_storage(arguments.storage)
    return _take_turn(arguments, lambda agent: _resolved(agent, arguments, word))


def _word(typed: str) -> Resolution:
    """Return the outcome that was typed: a word, `word=VALUE`, or JSON as `agent.resolve` takes it."""
    kind, has_value, value = typed.partition("=")
    kind = kind.strip().replace("-", "_")
    try:
        if typed.lstrip().startswith("{"):
            return from_json(json.loads(typed))
        if not has_value:
            return from_json(kind)
    except json.JSONDecodeError as error:
        raise ConfigError(f"outcome: {typed!r} is no JSON: {error}.") from error
    except ConfigError as error:
        words = ", ".join(f"{word}={FIELDS[word].upper()}" if word in FIELDS else word for word in KINDS)
        raise ConfigError(f"outcome: {typed!r} is none of {words}. `agent-graph resolve --help` says what they mean.") from error
    field = FIELDS.get(kind)
    if field is None:
        raise ConfigError(f"outcome: {kind!r} takes no value; those that take one: {', '.join(f'{word}=' for word in FIELDS)}.")
    return from_json({"type": kind, field: _value(value) if kind in ("done", "edit") else value})


def _value(typed: str) -> Any:
    try:
        return json.loads(typed)
    except json.JSONDecodeError:
        return typed


async def _resolved(agent: ProductionAgent, arguments: Namespace, word: Resolution) -> AsyncIterator[Event]:
    run = await agent.driver.settle(arguments.run_id, arguments.call_id, word, force=arguments.force)
    if run.pending:
        yield RunFinished(run)
        return
    async with _closing(agent.stream_resume(run.run_id, force=arguments.force)) as events:
        async for event in events:
            yield event


def _question(typed: str) -> str:
    question = sys.stdin.read().strip() if typed == "-" else typed
    if not question.strip():
        raise ConfigError(f"a question is due; {'standard input' if typed == '-' else 'the one given'} is empty.")
    return question


async def _resumed(agent: ProductionAgent, arguments: Namespace) -> AsyncIterator[Event]:
    run_id, more = arguments.run_id, dict(arguments.add_budget) or None
    try:
        async with _closing(agent.stream_resume(run_id, force=arguments.force, add_budget=more)) as events:
            async for event in events:
                yield event
    except RunNotFound:
        yield RunFinished(await agent.get(run_id))  # raises RunNotFound again for a run that never was


def _closing(events: AsyncIterator[Event]) -> aclosing[AsyncGenerator[Event]]:
    """Close the stream, and so stop the turn, at the end of a `with` and not whenever it is collected."""
    return aclosing(cast("AsyncGenerator[Event]", events))


# -- the turn ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Turn:
    """What is known of the turn so far: what a person needs after Ctrl-C, and what is said at its end."""

    run_id: str | None = None
    """None until the turn has been taken."""
    run: AgentRun | None = None
    unpriced: bool = False


def _take_turn(arguments: Namespace, events_of: Events) -> int:
    notes = sys.stderr if arguments.json else sys.stdout
    turn = _Turn()
    try:
        agent = agent_of(arguments)
        label = _label(agent)
        _say(notes, label, agent.model_line, limits_line(agent.config))
        asyncio.run(_follow(agent, events_of, QuietView() if arguments.json else make_view(sys.stdout), turn))
    except KeyboardInterrupt:
        return _interrupted(arguments, turn)
    assert turn.run is not None, "a stream that raised nothing ends with RunFinished"
    if arguments.json:
        print(to_json(turn.run))
    else:
        _say(sys.stdout, *_report(turn.run, turn, arguments, agent.storage_location))
    _say(notes, label)
    return 0 if turn.run.status == "complete" else 1


async def _follow(agent: ProductionAgent, events_of: Events, view: View, turn: _Turn) -> None:
    """Show the turn's events as they come, and note in `turn` what must be known of it."""
    async with agent:
        with view:
            await _show(events_of(agent), view, turn)
        if turn.run is not None:
            key = TurnKey(agent.namespace, turn.run.run_id, turn.run.turn)
            turn.unpriced = unpriced(await agent.storage.ledger(key))


async def _show(stream: AsyncIterator[Event], view: View, turn: _Turn) -> None:
    async with _closing(stream) as events:
        async for event in events:
            if isinstance(event, RunStarted):
                turn.run_id = event.run_id
            elif isinstance(event, RunFinished):
                turn.run = event.run
            view.show(event)


def _report(run: AgentRun, turn: _Turn, arguments: Namespace, location: str) -> list[str]:
    lines = [""]
    if turn.run_id is None:
        lines += [f"turn {run.turn} {'waits' if run.pending else 'had ended already'}; nothing was asked anew:"]
    if run.output:
        lines += [words.printable(run.output), ""]
    lines += words.account(run, unpriced=turn.unpriced)
    lines += words.to_settle(run, turn_options(arguments))
    lines += [f"kept in {_near(location)}; see it again: {words.command_line('show', run.run_id, place_options(arguments))}"]
    return lines


def _near(location: str) -> str:
    """Return a path as it is seen from here."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else location


def _interrupted(arguments: Namespace, turn: _Turn) -> int:
    if turn.run_id is None:
        print("\nstopped before the turn began", file=sys.stderr)
    else:
        line = words.command_line("resume", turn.run_id, turn_options(arguments))
        print(f"\nstopped; everything up to here is kept. Go on with: {line}", file=sys.stderr)
    return 130


def _say(stream: TextIO, *lines: str | None) -> None:
    for line in lines:
        if line is not None:
            print(line, file=stream, flush=True)


# -- the agent ---------------------------------------------------------------------------------------------------------


def agent_of(arguments: Namespace) -> ProductionAgent:
    """Return the agent that the options of a turn describe."""
    from agent_graph.agent import create_production_agent

    tools = _demo_tools(arguments.live) if arguments.tools is None else _tools_named(arguments.tools)
    if arguments.namespace == words.MIDDLEWARE:
        raise ConfigError(f"namespace: the turns in {words.MIDDLEWARE!r} are its middleware's; its own graph goes on with them.")
    return create_production_agent(arguments.model, tools, storage=arguments.storage, namespace=arguments.namespace, **limits_of(arguments))


def _demo_tools(live: bool) -> list[Any]:
    from agent_graph_adapters.offline import demo_tools

    return list(demo_tools(live=live))


def _tools_named(where: str) -> list[Any]:
    """Return the tools that `MODULE:NAME` names, looked for in the current folder first."""
    module, _, name = where.partition(":")
    if not module or not name:
        raise ConfigError(f"--tools: {where!r} is not of the form MODULE:NAME, such as my_tools:TOOLS.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--tools: {where!r} cannot be imported: {error}.") from error
    finally:
        sys.path.pop(0)
    return list(found) if isinstance(found, list | tuple) else [found]


def _label(agent: ProductionAgent) -> str | None:
    """Return the offline model's label, where that is the model."""
    from agent_graph_adapters.offline import LABEL

    return LABEL if agent.governor.model.provider == "offline" else None


def limits_line(config: AgentConfig) -> str:
    """Return the limits of a turn on one line, to be read before the first call."""
    limits = {
        "steps": None if config.max_steps is None else words.counted(config.max_steps, "step"),
        "tokens": None if config.max_tokens is None else words.counted(config.max_tokens, "token"),
        "money": None if config.max_cost_usd is None else words.money(config.max_cost_usd),
        "time": None if config.timeout_s is None else words.duration(config.timeout_s * 1000),
    }
    return "limits: " + ", ".join(f"any {what}" if text is None else text for what, text in limits.items())
