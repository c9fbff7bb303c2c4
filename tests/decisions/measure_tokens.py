"""Measure the token counts on the texts beside this file and print the table of docs/models.md.

    python tests/decisions/measure_tokens.py            # against the recorded counts
    python tests/decisions/measure_tokens.py --recount  # against tiktoken's now, if its vocabularies are on this machine

Each kind of text is nine messages: the Universal Declaration of Human Rights in four languages, records as a tool returns them, and a
module of this project. `texts.json` has what tiktoken 0.14 counted in each. "Cold" is the estimate before any reply; "anchored" after a
reply to the first three messages has told its usage, for all nine.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.messages.utils import count_tokens_approximately

from agent_graph.decisions.tokens import MESSAGE_TOKENS, Anchor, anchored, estimate_messages
from agent_graph.runtime.vocabulary import exact_counter
from agent_graph.types import Message, MessageRole

TEXTS = Path(__file__).with_name("texts.json")
VOCABULARIES = {"o200k_base": "gpt-5-mini", "cl100k_base": "gpt-4"}
"""A vocabulary, and a model that uses it."""
TOLD = 3
"""How many messages the reply has told the size of."""


@dataclass(frozen=True)
class Measured:
    """One kind of text in one vocabulary."""

    kind: str
    vocabulary: str
    real: int
    approximate: int
    """What langchain-core's count_tokens_approximately says."""
    cold: int
    anchored: int

    def off(self, count: int) -> float:
        """Return by how much of the real count `count` is too high."""
        return (count - self.real) / self.real


def measure(counts: dict[str, dict[str, list[int]]] | None = None) -> list[Measured]:
    """Return the table's lines; `counts` replaces the recorded ones."""
    found = []
    for kind, entry in json.loads(TEXTS.read_text(encoding="utf-8")).items():
        for vocabulary in VOCABULARIES:
            real = [MESSAGE_TOKENS + count for count in (counts[kind] if counts else entry)[vocabulary]]
            messages = [Message(MessageRole.USER, piece) for piece in entry["pieces"]]
            then, now = estimate_messages(messages[:TOLD]), estimate_messages(messages)
            approximate = count_tokens_approximately([HumanMessage(piece) for piece in entry["pieces"]])
            anchor = Anchor(real=sum(real[:TOLD]), estimated=then)
            found.append(Measured(kind, vocabulary, sum(real), approximate, now, anchored(anchor, then, now)))
    return found


def recount() -> dict[str, dict[str, list[int]]]:
    """Return what tiktoken counts now. Raises SystemExit where its vocabularies are not on this machine."""
    counters = {name: exact_counter(model, "openai") for name, model in VOCABULARIES.items()}
    if missing := [name for name, counter in counters.items() if counter is None]:
        raise SystemExit(f'not on this machine: {", ".join(missing)} (see docs/models.md, "Token counts")')
    texts = json.loads(TEXTS.read_text(encoding="utf-8"))
    return {
        kind: {name: [counter(piece) for piece in entry["pieces"]] for name, counter in counters.items() if counter}
        for kind, entry in texts.items()
    }


def table(rows: list[Measured]) -> str:
    """Return the table."""
    lines = ["| text | vocabulary | tokens | LangChain's approximation | cold | anchored |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        figures = " | ".join(f"{row.off(count):+.0%}" for count in (row.approximate, row.cold, row.anchored))
        lines.append(f"| {row.kind} | {row.vocabulary} | {row.real} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure(recount() if "--recount" in sys.argv[1:] else None)))
