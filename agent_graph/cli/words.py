"""How the command line says things: amounts, times, calls, accounts. Pure text in, pure text out.

Whatever came from a model, a tool or a user passes `printable` before it reaches a terminal: an escape sequence in a
tool's result could otherwise recolour, clear or re-title the window. A cost is shown only where there was a price:
"unpriced" is not zero.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from agent_graph.events import (
    Event,
    GuardrailVerdict,
    RunFinished,
    RunStarted,
    StepFinished,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from agent_graph.types import AgentRun, ToolCall

__all__ = [
    "MIDDLEWARE",
    "account",
    "age",
    "as_typed",
    "call_text",
    "command_line",
    "counted",
    "duration",
    "event_line",
    "money",
    "one_line",
    "outcome",
    "printable",
    "table",
    "to_settle",
]

MIDDLEWARE = "create_agent"
"""The namespace in which the middleware of `agent_graph_adapters.langchain` keeps its turns."""

_SPOKEN: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\bforce=True", "--force"),
    (r"\bUse None for no limit", '"none" is no limit'),
    (r"\badd_budget\b", "--add-budget"),
    (r"^(max_steps|max_tokens|max_cost_usd|timeout_s|older_than|tools|namespace): ", lambda found: f"--{found[1].replace('_', '-')}: "),
    (r"\bor storage=", "or --storage"),
    (r'\bor let such a turn be closed \(on_unfinished="close"\)', "or take another --run-id"),
    (r", or on_unknown_price='warn'\.?$", " in a program; the command takes none, so leave --max-cost-usd out or take another --model."),
)
"""What errors say in Python's words, and what the command has instead."""
_MICRO = Decimal("0.000001")
_CUT = "…"


def printable(text: str) -> str:
    """Return `text` with every control character but line feed and tab, and every lone surrogate, replaced by "�"."""
    return "".join(c if c in "\n\t" or not _is_control(ord(c)) else "�" for c in text)


def _is_control(code: int) -> bool:
    return code < 0x20 or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF


def as_typed(text: str) -> str:
    """Return an error's text in the words of the command line: flags where it names keywords of Python."""
    for python, typed in _SPOKEN:
        text = re.sub(python, typed, text)
    return text


def one_line(text: str, width: int) -> str:
    """Return `text` on one line of at most `width` characters, cut with "…"."""
    line = " ".join(printable(text[: 4 * width]).split())  # a tool's result may be huge, and its head is enough
    return line if len(line) <= width else line[: width - 1] + _CUT


def counted(number: int, noun: str) -> str:
    """Return `"1 step"` or `"1,204 tokens"`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def money(usd: float | Decimal, *, unpriced: bool = False, uncertain_usd: float | Decimal = 0) -> str:
    """Return an amount of USD to a millionth.

    Args:
        unpriced: whether a call had no price: that is said, and never looks like zero.
        uncertain_usd: upper bound of calls whose bill is not known.
    """
    spent = "unpriced" if unpriced and not usd else _dollars(usd)
    more = [f"at most {_dollars(uncertain_usd)} more that is not known yet"] if uncertain_usd else []
    more += ["calls without a price"] if unpriced and usd else []
    return f"{spent} (and {', and '.join(more)})" if more else spent


def _dollars(usd: float | Decimal) -> str:
    amount = Decimal(str(usd))
    if 0 < amount < _MICRO:
        return "less than $0.000001"
    whole, _, fraction = f"{amount.quantize(_MICRO):f}".partition(".")
    return f"${int(whole):,}.{fraction.rstrip('0').ljust(2, '0')}"


def duration(milliseconds: float) -> str:
    """Return `"12 ms"`, `"3.1 s"` or `"2 min 5 s"`."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def age(seconds: float) -> str:
    """Return how long ago something was: `"now"`, `"5 min"`, `"3 h"`, `"12 d"`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"


def call_text(call: ToolCall, width: int = 72) -> str:
    """Return a tool call as it would be written in Python: `weather(city="Paris")`."""
    args: Any = call.args
    if isinstance(args, dict):
        inside = ", ".join(f"{name}={_value(value)}" for name, value in args.items())
    else:
        inside = _value(args)
    return one_line(f"{call.tool_name}({inside})", width)


def _value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def event_line(event: Event) -> str | None:
    """Return the line that keeps a record of `event` on the screen, or None for one that leaves no line.

    A step names its cost once there is one; whether nothing was spent or nothing had a price is the account's to say.
    """
    match event:
        case RunStarted(run_id=run_id, turn=turn, resumed=resumed):
            return f"run {printable(run_id)}, turn {turn}{', resumed where it was' if resumed else ''}"
        case StepFinished(step=step, total_tokens=tokens, total_cost_usd=usd):
            cost = f", {money(usd)}" if usd else ""
            return f"step {step}: {counted(tokens, 'token')} so far{cost}"
        case ToolStarted(call=call):
            return f"  started   {call_text(call)}"
        case ToolFinished(call=call):
            return f"  finished  {one_line(call.tool_name, 40)} {outcome(call)}"
        case GuardrailVerdict(guardrail=name, stage=stage, verdict=verdict, reason=reason):
            return one_line(f"guardrail {name} on {stage}: {verdict}: {reason}", 120)
        case TextDelta() | RunFinished():
            return None


def outcome(call: ToolCall) -> str:
    """Return how a finished call ended, and how long it took."""
    said = f"failed: {call.error}" if call.error is not None else _plain(call.result)
    return f"in {duration(call.latency_ms)}: {one_line(said, 100)}"


def _plain(result: object) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def account(run: AgentRun, *, unpriced: bool, status: str | None = None) -> list[str]:
    """Return what is said under an answer: how it ended, what it took, what to know. `status`: where the storage knows it better."""
    parts = [
        counted(run.steps, "step"),
        counted(len(run.tool_calls), "tool call"),
        counted(run.total_tokens, "token"),
        money(run.total_cost_usd, unpriced=unpriced, uncertain_usd=run.cost_uncertain_usd),
        duration(run.latency_ms),
    ]
    lines = [f"{status or run.status}: {', '.join(parts)}"]
    if run.error is not None:
        lines.append(f"error: {printable(run.error)}")
    if run.landed is not None:
        lines.append(f"landed: {run.landed} was near, so the last call was made without tools")
    lines += [f"waits for you: {one_line(json.dumps(item, ensure_ascii=False, default=str), 200)}" for item in run.pending]
    lines += [f"warning: {printable(warning)}" for warning in run.warnings]
    return lines


def command_line(verb: str, run_id: str, options: Sequence[str] = ()) -> str:
    """Return the command to type, quoted for a shell; a run_id that looks like an option is told apart by "--"."""
    name = ["--", run_id] if run_id.startswith("-") else [run_id]
    return shlex.join(["agent-graph", verb, *options, *name])


def to_settle(run: AgentRun, options: Sequence[str] = ()) -> list[str]:
    """Return, for each thing that `run` waits for, the command that gives one's word on it."""
    lines: list[str] = []
    for entry in run.pending:
        names = [run.run_id, entry["call_id"]]
        dashes = ["--"] if any(name.startswith("-") for name in names) else []
        command = shlex.join(["agent-graph", "resolve", *options, *dashes, *names])
        lines.append(f"settle it: {command} OUTCOME, one of: {', '.join(entry['allowed'])}")
    return lines


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return `rows` in columns as wide as their widest cell; the last one is left as it is."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
