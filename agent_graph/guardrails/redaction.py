"""Redactor: no registered secret in the bytes of any file, trace or log.

How it works
    It stands on the write path, and is called with every text that is about to be written: usually JSON, sometimes plain. A
    registered value may then be spelt in several ways: as it is, with JSON's escapes, escaped once more inside a JSON text
    that is itself a string, or percent-encoded. First every spelling and every detector's hint is looked for by plain substring
    search; almost always nothing is found and the very same text comes back. Only otherwise is the text taken apart: each JSON
    string literal is decoded, redacted, encoded again; a number is replaced whole, by a string.

What must stay true
    1. Valid JSON in, valid JSON out, with the same structure; what holds no secret stays byte for byte as it was.
    2. No spelling of a registered value is in the result.
    3. Redacting twice changes nothing more: a text may pass two write paths.
    4. Values never show: not in `repr`, not in an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from agent_graph.errors import ConfigError
from agent_graph.guardrails.detectors import SECRETS, Detector, mask, scan

__all__ = ["Redactor", "secrets_of"]

MIN_CHARS = 4
"""A shorter value would be found inside harmless words."""

_NAMES = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|DSN)$",
    re.IGNORECASE,
)
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*', re.DOTALL)
_JSON_START = re.compile(r'\s*[\[{"]')
_ESCAPED = 3
"""A value is recognised when escaped so many times over: JSON in a string in JSON in a string in JSON."""
_MAX_NESTING = 8
"""JSON in a string in JSON is followed this deep."""


def secrets_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values in `env` (`os.environ`, say) whose names say that they are secret: *_KEY, *_TOKEN, *_PASSWORD, ..."""
    return tuple(value for name, value in env.items() if _NAMES.search(name) and len(value) >= 8)


class Redactor:
    """Takes text and returns it without secrets; hand it to a storage, a tracer or a log.

    ```python
    redact = Redactor([os.environ["STRIPE_KEY"]])
    redact('{"key": "..."}')
    ```

    `values`: secrets to take out wherever they occur, as strings or objects with `get_secret_value()`; `detectors`: typed ones
    for secrets that nobody registered (empty: none); `mark`: what stands in their place.

    Raises:
        ConfigError: a value shorter than 4 characters or contained in `mark`, or a mark that JSON would have to escape.
    """

    def __init__(self, values: Iterable[Any] = (), *, detectors: Iterable[Detector] = SECRETS, mark: str = "[redacted]") -> None:
        if not mark or json.dumps(mark) != f'"{mark}"':
            raise ConfigError(f"mark: plain characters are due that JSON leaves as they are, not {mark!r}.")
        self._mark = mark
        self._detectors = tuple(detectors)
        self._slow = tuple(detector for detector in self._detectors if detector.fold or not detector.hints)
        self._hints = tuple({hint for detector in self._detectors if detector not in self._slow for hint in detector.hints})
        self._spellings: tuple[str, ...] = ()
        self.register(*values)

    def register(self, *values: Any) -> None:
        """Take out these values too, from now on. Safe from any thread."""
        spellings = set(self._spellings)
        for value in values:
            spellings |= _spellings(self._checked(value))
        # Longest first, so that a value which contains another leaves no rest; one assignment, so that readers see old or new.
        self._spellings = tuple(sorted(spellings, key=lambda spelling: (-len(spelling), spelling)))
        self._needles = self._spellings + self._hints

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        return self._redact(text, 0) if self._suspicious(text) else text

    def __repr__(self) -> str:
        return f"Redactor({len(self._spellings)} spellings, {len(self._detectors)} detectors)"

    def _checked(self, value: Any) -> str:
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if not isinstance(text, str):
            raise ConfigError(f"Redactor: a secret is a string, not {type(text).__name__}.")
        if len(text.strip()) < MIN_CHARS:
            raise ConfigError(
                f"Redactor: a secret of {len(text.strip())} characters would be found everywhere; at least {MIN_CHARS} are due."
            )
        if text in self._mark:
            raise ConfigError("Redactor: a secret is part of the mark that replaces it. Choose another mark.")
        return text

    def _suspicious(self, text: str) -> bool:
        for needle in self._needles:  # a loop, not any(): this runs for every text that is written
            if needle in text:
                return True
        return any(detector.hinted(text) for detector in self._slow)

    def _redact(self, text: str, nesting: int) -> str:
        if nesting < _MAX_NESTING and _JSON_START.match(text) and _is_json(text):
            return _LITERAL.sub(lambda literal: self._redact_literal(literal.group(), nesting + 1), text)
        return self._redact_plain(text)

    def _redact_literal(self, literal: str, nesting: int) -> str:
        if not literal.startswith('"'):
            changed = self._redact_plain(literal)
            return literal if changed == literal else f'"{self._mark}"'
        decoded = json.loads(literal, strict=False)
        changed = self._redact(decoded, nesting)
        return literal if changed == decoded else json.dumps(changed, ensure_ascii=literal.isascii())

    def _redact_plain(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, self._mark)
        matches = scan(text, self._detectors)
        return mask(text, matches, lambda _: self._mark) if matches else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _spellings(value: str) -> set[str]:
    """Return the ways in which `value` may be written."""
    spellings = {value, quote(value, safe=""), quote_plus(value)}
    for _ in range(_ESCAPED):
        spellings |= {json.dumps(s, ensure_ascii=ascii_only)[1:-1] for s in spellings for ascii_only in (True, False)}
    return spellings
