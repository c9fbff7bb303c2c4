"""What the callers of one server and model share in this process: a circuit breaker and a retry budget (`decisions/retry.py`)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from agent_graph.decisions.retry import Breaker, RetryBudget

__all__ = ["Circuit", "circuit_of"]


@dataclass(slots=True)
class Circuit:
    """What the callers of one server share."""

    breaker: Breaker = field(default_factory=Breaker)
    budget: RetryBudget = field(default_factory=RetryBudget)
    callers: int = 0

    def count(self, change: int) -> None:
        """Count a caller that comes (1) or goes (-1)."""
        with _circuits_lock:  # callers may be in several threads, and a lost count would never be found again
            self.callers += change


_circuits: dict[tuple[str, str], Circuit] = {}
_circuits_lock = threading.Lock()


def circuit_of(key: tuple[str, str]) -> Circuit:
    """Return what the callers of one server and model share in this process."""
    known = _circuits.get(key)
    if known is not None:
        return known
    with _circuits_lock:
        return _circuits.setdefault(key, Circuit())
