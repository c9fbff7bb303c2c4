"""`doctor`: whether an agent could run here, what would hold then, and what stands in the way. Calls no model, makes no file."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import stat
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent_graph.cli import words
from agent_graph.cli.asking import agent_of, limits_line
from agent_graph.errors import AgentGraphError, pip_line

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.storage.port import Storage

__all__ = ["doctor"]

PACKAGES = (
    "agent-graph-runtime", "langgraph", "langgraph-checkpoint-sqlite", "langchain-core", "langchain-openai", "langchain", "genai-prices",
    "langsmith",
)  # fmt: skip
OPTIONAL = frozenset({"langchain"})
KEYS = ("AGENT_GRAPH_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY", "AGENT_GRAPH_STORAGE")
"""Whether these are set matters; what they hold is never printed."""
TRACING = ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something found out about the surroundings."""

    state: Literal["ok", "note", "problem"]
    subject: str
    text: str


def doctor(arguments: Namespace) -> int:
    """Print what was found; return 1 where an agent could not run, or a limit that was typed could not hold."""
    facts = list(_surroundings(os.environ))
    agent, found = _agent(arguments)
    facts += [*found, _storage(arguments.storage, os.environ)]
    promises = [] if agent is None else agent.guarantees()
    sound = all(fact.state != "problem" for fact in facts)
    if arguments.json:
        told = {"ok": sound, "facts": [asdict(fact) for fact in facts], "promises": [asdict(promise) for promise in promises]}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print("\n".join(words.table([(fact.state, fact.subject, words.printable(fact.text)) for fact in facts])))
        if promises:
            print("\nwhat holds, and how far (agent.guarantees()):")
            print("\n".join(f"  {words.printable(str(promise))}" for promise in promises))
        print("\nan agent can run here" if sound else "\nan agent cannot run here as it is: see the problems above")
    return 0 if sound else 1


def _surroundings(env: Mapping[str, str]) -> Iterator[Fact]:
    yield Fact("ok", "python", f"{platform.python_version()} on {platform.system()}")
    for package in PACKAGES:
        try:
            yield Fact("ok", "package", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            text = f"{package} is not installed: {pip_line(package)}"
            yield Fact("note" if package in OPTIONAL else "problem", "package", text)
    named = [key for key in KEYS if env.get(key, "").strip()]
    yield Fact("ok", "environment", f"set: {', '.join(named)}" if named else f"none of {', '.join(KEYS)} is set")
    if any(env.get(key, "").lower() in ("1", "true") for key in TRACING):
        yield Fact("note", "tracing", "LangSmith tracing is on: inputs and outputs of every run are sent there")


def _agent(arguments: Namespace) -> tuple[ProductionAgent | None, list[Fact]]:
    """Return the agent that `run` would make with these options, or None, and what there is to say of it."""
    try:
        agent = agent_of(arguments)
    except AgentGraphError as error:
        return None, [Fact("problem", "model", words.as_typed(str(error)))]
    facts = [
        Fact("ok", "model", agent.model_line.removeprefix("model: ")),
        Fact("ok", "limits", limits_line(agent.config).removeprefix("limits: ")),
    ]
    return agent, [*facts, *_prices(agent)]


def _prices(agent: ProductionAgent) -> Iterator[Fact]:
    for candidate in agent.governor.candidates:
        price = agent.governor.prices.price_of(candidate.name, provider=candidate.provider, base_url=candidate.base_url)
        if price is not None:
            unit = price.price
            text = f"{candidate.name}: ${unit.input:f} in, ${unit.output:f} out per million tokens ({unit.source} {unit.version})".replace(
                " )", ")"
            )
            yield Fact("ok", "price", text)
        elif candidate.provider != "offline":
            yield Fact("note", "price", f"{candidate.name}: none is known, so max_cost_usd does not limit it")


def _storage(named: str | None, env: Mapping[str, str]) -> Fact:
    from agent_graph.storage.location import VARIABLE
    from agent_graph.storage.opening import open_storage

    storage = open_storage(named)
    path = Path(storage.location)
    if not path.exists():
        return _absent(path, falls_back=named is None and not env.get(VARIABLE))
    try:
        asyncio.run(_read(storage))
    except AgentGraphError as error:
        return Fact("problem", "storage", words.as_typed(str(error)))
    if not os.access(path, os.W_OK):
        return Fact("problem", "storage", f"{path}: it cannot be written to")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Fact("note", "storage", f"{path}: other users of this machine may read it; chmod 600 {path}")
    return Fact("ok", "storage", f"{path}: can be read and written")


async def _read(storage: Storage) -> None:
    try:
        await storage.runs(limit=1)
    finally:
        await storage.close()


def _absent(path: Path, *, falls_back: bool) -> Fact:
    folder = next(parent for parent in path.parents if parent.exists())
    writable = os.access(folder, os.W_OK | os.X_OK)
    if falls_back:
        where = f"{path}: will be made by the first run" if writable else f"{folder} cannot be written to: another place will be taken"
        return Fact("ok" if writable else "note", "storage", where)
    if not writable:
        return Fact("problem", "storage", f"{path}: it is not there, and {folder} cannot be written to; name another place")
    if folder != path.parent:
        return Fact("problem", "storage", f"{path}: its folder {path.parent} does not exist; make it, or name another place")
    return Fact("ok", "storage", f"{path}: will be made by the first run")
