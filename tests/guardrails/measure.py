"""Measure the detectors on the labelled corpus beside this file and print the table of docs/guardrails.md.

    python tests/guardrails/measure.py

A find counts only if kind and text are exactly as labelled. The corpus holds what the detectors are known to miss, too.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from agent_graph.guardrails import InjectionHeuristics, Replace
from agent_graph.guardrails.detectors import PII, SECRETS, Detector, scan
from agent_graph.types import AgentRun, ToolCall

CORPUS = Path(__file__).parent / "corpus.jsonl"


def corpus(rail: str) -> list[dict[str, Any]]:
    """Return the labelled texts of one rail."""
    entries = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if entry["rail"] == rail]


def finds(text: str, detectors: tuple[Detector, ...]) -> Counter[tuple[str, str]]:
    """Return what is found in `text`, as (kind, text) with counts."""
    return Counter((match.kind, text[match.start : match.end]) for match in scan(text, detectors))


def compare(rail: str, detectors: tuple[Detector, ...]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return right, wrong and missed finds by kind."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for entry in corpus(rail):
        labelled, found = Counter((kind, text) for kind, text in entry["finds"]), finds(entry["text"], detectors)
        for counter, pairs in ((right, labelled & found), (wrong, found - labelled), (missed, labelled - found)):
            counter.update(kind for kind, _ in pairs.elements())
    return right, wrong, missed


def flagged(text: str) -> bool:
    """Return whether the injection heuristics flag `text` as a tool's result."""
    verdict = asyncio.run(InjectionHeuristics().check("tool_result", ToolCall("t", {}, "c", result=text), AgentRun("r", "q")))
    return isinstance(verdict, Replace)


def injection() -> tuple[int, int, int]:
    """Return right, wrong and missed flags."""
    pairs = [(entry["attack"], flagged(entry["text"])) for entry in corpus("injection")]
    return pairs.count((True, True)), pairs.count((False, True)), pairs.count((True, False))


def row(name: str, right: int, wrong: int, missed: int) -> str:
    """Return a line of the table."""
    precision = right / (right + wrong) if right + wrong else 0.0
    recall = right / (right + missed) if right + missed else 0.0
    return f"| {name} | {right} | {wrong} | {missed} | {precision:.2f} | {recall:.2f} |"


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| detectors | right | wrong | missed | precision | recall |", "|---|---|---|---|---|---|"]
    for rail, detectors in (("pii", PII), ("secrets", SECRETS)):
        right, wrong, missed = compare(rail, detectors)
        lines.append(row(f"**{rail}**, {len(corpus(rail))} texts", right.total(), wrong.total(), missed.total()))
        if rail == "pii":
            lines += [row(kind, right[kind], wrong[kind], missed[kind]) for kind in sorted({d.kind for d in detectors})]
    return "\n".join([*lines, row(f"**injection**, {len(corpus('injection'))} texts", *injection())])


if __name__ == "__main__":
    print(table())
