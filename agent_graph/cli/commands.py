"""Which function does which command."""

from argparse import Namespace
from collections.abc import Callable, Mapping

from agent_graph.cli import asking, checking, clearing, demo, looking

__all__ = ["COMMANDS"]

COMMANDS: Mapping[str, Callable[[Namespace], int]] = {
    "run": asking.run,
    "resume": asking.resume,
    "resolve": asking.resolve,
    "runs": looking.runs,
    "show": looking.show,
    "budgets": looking.budgets,
    "delete": clearing.delete,
    "prune": clearing.prune,
    "doctor": checking.doctor,
    "demo": demo.demo,
}
