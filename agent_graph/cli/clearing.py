"""`delete` and `prune`: what takes runs out of the storage. No model is chosen, no storage made where none is."""

from __future__ import annotations

import asyncio
import json
import time
from argparse import Namespace
from collections.abc import Sequence

from agent_graph.cli import words
from agent_graph.cli.looking import opened, unknown
from agent_graph.config import cutoff, validate_run_id

__all__ = ["delete", "prune"]


def delete(arguments: Namespace) -> int:
    """Delete everything of one run."""
    run_id = validate_run_id(arguments.run_id)
    asyncio.run(_delete(arguments, run_id))
    print(json.dumps({"deleted": [run_id]}, ensure_ascii=False) if arguments.json else f"deleted {words.printable(run_id)}")
    return 0


async def _delete(arguments: Namespace, run_id: str) -> None:
    async with opened(arguments.storage) as storage:
        if not await storage.turns(arguments.namespace, run_id):
            raise unknown(run_id, arguments)
        await storage.delete(arguments.namespace, run_id)


def prune(arguments: Namespace) -> int:
    """Delete the runs that are over and were last touched before `--older-than`."""
    deleted = asyncio.run(_prune(arguments))
    if arguments.json:
        print(json.dumps({"deleted": deleted}, ensure_ascii=False))
    else:
        print("\n".join([f"deleted {words.counted(len(deleted), 'run')}", *(f"  {words.one_line(run_id, 100)}" for run_id in deleted)]))
    return 0


async def _prune(arguments: Namespace) -> Sequence[str]:
    before = cutoff(arguments.older_than, time.time())
    async with opened(arguments.storage) as storage:
        return [run_id for _, run_id in await storage.prune(before=before, namespace=arguments.namespace)]
