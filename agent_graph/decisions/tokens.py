"""How many tokens a text will be, when nobody can be asked.

Exact tokenizers are seldom at hand: they are the providers' own, and fetch their tables from the network at first use (where one is
there, `runtime/vocabulary.py` takes the place of `estimate_text`). So counting has two parts.

`estimate_text` is the cold start. It weighs characters by kind, because "four characters are a token" is true of English and
44 to 78 % low on JSON, Arabic or Chinese, just where a limit would be passed. The weights were fitted from above to
cl100k_base (tests/decisions/test_tokens.py holds its counts), the least economical vocabulary in wide use: an estimate that is too high
compresses a little early, one that is too low breaks a promise.

`anchored` takes over once a reply has told the real count of an earlier list: real + what came since, scaled by how wrong the
estimate was then. The error is then that of the new part only.

What must stay true: everything is rounded up, nothing is free, and the work is linear in the text (it is done by the
interpreter's own byte translation, about a millisecond per 100 KB).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from agent_graph.decisions.plain import Json, dumps, plain
from agent_graph.types import Message

__all__ = ["Anchor", "CountText", "anchored", "bound", "estimate_json", "estimate_message", "estimate_messages", "estimate_text"]

CountText: TypeAlias = Callable[[str], int]
"""Counts the tokens of a text: `estimate_text`, or a tokenizer."""

MESSAGE_TOKENS = 4
"""What chat formats add per message for its role and borders (OpenAI's cookbook counts 3, and 1 for a name)."""
MEDIA_TOKENS = 1_600
"""An image, sound or file in a message: about a full-size image of the providers that publish a formula."""
MEDIA = frozenset({"image", "image_url", "audio", "input_audio", "video", "file", "document", "media", "input_image", "input_file"})
SAID_ELSEWHERE = frozenset({"text", "tool_use", "tool_call", "function_call"})
"""Types of content blocks that the text and the tool calls of the same message already say."""
LEAST_RATIO, MOST_RATIO = 0.5, 2.5
"""How far one real count may correct the estimate of the next part: the first one holds tool definitions that no part repeats."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A message list whose real size was told by a reply's usage."""

    real: int
    """Tokens, as the provider counted them."""
    estimated: int
    """Tokens, as `estimate_messages` counted the same list."""


_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"
_LETTERS = _LOWER + _LOWER.upper()
_SIGNS = bytes(byte for byte in range(0x21, 0x7F) if byte not in _LETTERS + _DIGITS)

_KINDS: tuple[tuple[bytes, int], ...] = (
    (_LOWER, 23),
    (_LOWER.upper(), 36),
    (_DIGITS, 36),
    (_SIGNS, 56),
    (b" ", 4),
    (b"\n\t", 20),
    (bytes(range(0x09)) + bytes(range(0x0B, 0x20)) + b"\x7f", 100),
    (bytes(range(0xC2, 0xD0)), 105),  # accents, Greek
    (bytes(range(0xD0, 0xD4)), 65),  # Cyrillic
    (bytes(range(0xD4, 0xE0)), 110),  # Armenian, Hebrew, Arabic
    (b"\xe1", 260),  # Georgian, Ethiopic, Khmer; the double accents of Vietnamese
    (b"\xe0" + bytes(range(0xE2, 0xF0)), 145),  # Indic, Thai, signs, CJK, Hangul
    (bytes(range(0xF0, 0xF5)), 300),  # emoji
)
"""Hundredths of a token for each byte of a kind; of a character beyond ASCII the first byte counts for all."""


def _border(kind: bytes) -> bytes:
    """Return a translation table that keeps one byte of `kind` apart from everything else."""
    return bytes(ord("x") if byte in kind else ord(" ") for byte in range(256))


_RUNS: tuple[tuple[bytes, int], ...] = ((_border(_LETTERS), 25), (_border(_DIGITS), 80), (_border(_SIGNS), 40))
"""Hundredths of a token for each run of letters, of digits, of signs: a short word costs a token too."""
_LONG = re.compile(rb"[A-Za-z0-9+=]{24,}")
_LETTERS_ONLY = 48
_OPAQUE_WEIGHT = 75


def _without_opaque(text: bytes) -> bytes:
    """Return `text` without base64, hashes and random letters, which have no words in them: long runs of letters and digits mixed,
    very long ones of letters alone."""

    def replaced(run: re.Match[bytes]) -> bytes:
        others = len(run[0].translate(None, _DIGITS))
        mixed = 0 < others < len(run[0])
        return b" " if mixed or others >= _LETTERS_ONLY else run[0]

    return _LONG.sub(replaced, text)


def estimate_text(text: str) -> int:
    """Return the estimated tokens of `text`, rounded up; 0 for an empty one."""
    raw = text.encode("utf-8", "surrogatepass")
    left = _without_opaque(raw)
    total = (len(raw) - len(left)) * _OPAQUE_WEIGHT
    for table, weight in _RUNS:
        total += (b" " + left.translate(table)).count(b" x") * weight
    for kind, weight in _KINDS:
        rest = left.translate(None, kind)
        total += (len(left) - len(rest)) * weight
        left = rest
    return -(-total // 100)


def estimate_json(value: object, count: CountText = estimate_text) -> int:
    """Return the estimated tokens of `value` written as JSON. Never raises."""
    try:
        return count(dumps(cast("Json", value)))
    except (TypeError, ValueError, RecursionError):  # no JSON as it stands
        return count(dumps(plain(value)))


def estimate_message(message: Message, count: CountText = estimate_text) -> int:
    """Return the estimated tokens of one message: text, tool calls, and what other content it carries; `count` counts texts."""
    metadata = _mapping(message.metadata)
    calls = metadata.get("tool_calls") or metadata.get("tool_call")
    blocks = sum(_estimate_block(block, count) for block in _blocks(metadata))
    return MESSAGE_TOKENS + count(message.content) + (estimate_json(calls, count) if calls else 0) + blocks


def estimate_messages(messages: Iterable[Message]) -> int:
    """Return the estimated tokens of a message list."""
    return sum(map(estimate_message, messages))


def anchored(anchor: Anchor | None, estimated_then: int, estimated_now: int) -> int:
    """Return the tokens of a message list, estimated from the last real count, rounded up.

    Args:
        anchor: the last list whose real size is known; None before the first reply.
        estimated_then: estimate of that list.
        estimated_now: estimate of the list in question, usually that list and what came since.
    """
    if anchor is None or anchor.estimated <= 0:
        return estimated_now
    ratio = min(max(anchor.real / anchor.estimated, LEAST_RATIO), MOST_RATIO)
    return max(anchor.real + math.ceil((estimated_now - estimated_then) * ratio), math.ceil(estimated_now * LEAST_RATIO))


def bound(anchor: Anchor | None, estimated_now: int) -> int:
    """Return the tokens that a reservation is made for: as `anchored`, but of a list that is shorter than its anchor at least its estimate.

    What was taken out may have been the lighter part, so what is left is not scaled down.
    """
    if anchor is None:
        return estimated_now
    tokens = anchored(anchor, anchor.estimated, estimated_now)
    return tokens if estimated_now >= anchor.estimated else max(tokens, estimated_now)


def _blocks(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    content = _mapping(metadata.get("langchain")).get("content")
    if isinstance(content, list):
        yield from (block for block in content if isinstance(block, Mapping))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _estimate_block(block: Mapping[str, Any], count: CountText) -> int:
    kind = block.get("type")
    if kind in MEDIA:
        return MEDIA_TOKENS
    if kind in SAID_ELSEWHERE:
        return 0
    return estimate_json({key: value for key, value in block.items() if key != "signature"}, count)  # not shown to the model
