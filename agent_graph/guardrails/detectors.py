"""Finding personal data and secrets in text: typed detectors, each a pattern plus a check.

How it works
    A detector first looks for its hints (plain substrings, at the speed of `in`); only where one occurs does its regular
    expression run, and only what its check confirms counts (Luhn for cards, ISO 7064 for IBANs, a decodable header for JWTs).
    So text without any trace of a secret costs next to nothing.

What must stay true
    Every pattern is linear: a look-behind keeps it from starting again inside a run that it has just read, and a repetition
    that more of the pattern follows is bounded. A hostile text of a megabyte costs milliseconds.

What it does not find: names, addresses, passwords without a tell-tale prefix. Measured on a labelled corpus: docs/guardrails.md.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["PII", "SECRETS", "Detector", "Match", "mask", "scan"]


@dataclass(frozen=True, slots=True)
class Match:
    """One find: `text[start:end]` is a `kind`."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """Finds one kind of thing."""

    kind: str
    """A lower-case word or two with an underscore: "email", "aws_key"."""
    pattern: re.Pattern[str]
    """What it looks like; group `it`, where there is one, is the part that counts."""
    hints: tuple[str, ...] = ()
    """Substrings of which at least one is in every find; empty: the pattern always runs. Lower case where `fold` is set."""
    fold: bool = False
    """Whether the hints are looked for without regard to case."""
    check: Callable[[str], bool] | None = None
    """Confirms a find that the pattern alone would get wrong."""

    def hinted(self, text: str) -> bool:
        """Return whether `text` may hold a find; False is certain."""
        if not self.hints:
            return True
        where = text.lower() if self.fold else text
        return any(hint in where for hint in self.hints)

    def find(self, text: str) -> Iterable[Match]:
        """Yield the finds in `text`, from left to right."""
        if not self.hinted(text):
            return
        group = "it" if "it" in self.pattern.groupindex else 0
        for found in self.pattern.finditer(text):
            if self.check is None or self.check(found.group(group)):
                yield Match(self.kind, found.start(group), found.end(group))


def scan(text: str, detectors: Iterable[Detector]) -> list[Match]:
    """Return what `detectors` find in `text`, from left to right, without overlaps: the earlier, then the longer find wins."""
    finds = [match for detector in detectors for match in detector.find(text)]
    finds.sort(key=lambda match: (match.start, -match.end))
    kept: list[Match] = []
    for match in finds:
        if not kept or match.start >= kept[-1].end:
            kept.append(match)
    return kept


def mask(text: str, matches: Iterable[Match], mark: Callable[[str], str]) -> str:
    """Return `text` with each match (in order, not overlapping) replaced by `mark(kind)`."""
    pieces: list[str] = []
    position = 0
    for match in matches:
        pieces += (text[position : match.start], mark(match.kind))
        position = match.end
    return "".join(pieces) + text[position:]


# -- checks ---------------------------------------------------------------------------------------------------------------


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def luhn(number: str) -> bool:
    """Return whether the digits of `number` end in their Luhn check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(_digits(number))):
        value = int(digit) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _card(text: str) -> bool:
    digits = _digits(text)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _iban(text: str) -> bool:
    """ISO 13616: the country and check digits move to the end, letters count from 10, and the number is 1 modulo 97."""
    compact = text.replace(" ", "").upper()
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # Short texts with two colons are slices and scopes (`[1::2]`, `a::b`) more often than addresses.
    return len(text) >= 6 and not (address.is_unspecified or address.is_loopback)


def _ssn(text: str) -> bool:
    """Areas 000, 666 and 900-999, group 00 and serial 0000 are never given out (ssa.gov/employer/randomization.html)."""
    area, group, serial = re.split(r"[- ]", text)
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    digits = _digits(text)
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2  # ITU-T E.164: 15 at most


def _jwt(text: str) -> bool:
    header = text.split(".", 1)[0]
    try:
        parsed = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(parsed, dict) and ("alg" in parsed or "typ" in parsed)


def _mixed(text: str) -> bool:
    """Whether a token looks drawn, not written: letters and digits, and no character that is half of it."""
    if not (any(c.isdigit() for c in text) and any(c.isalpha() for c in text)):
        return False
    return max(text.count(c) for c in set(text)) * 2 < len(text)


def _password(text: str) -> bool:
    """Whether what stands between ":" and "@" of a URL is a password and not a placeholder for one."""
    return not re.fullmatch(r"\*+|x+|\$\{?\w+\}?|<[^>]*>|\{[^}]*\}|\[[^\]]*\]|%\w+%", text, re.IGNORECASE)


# -- personal data -----------------------------------------------------------------------------------------------------------

_IPV6 = r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"

PII: tuple[Detector, ...] = (
    Detector(
        kind="email",
        pattern=re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"),
        hints=("@",),
    ),
    Detector(
        kind="credit_card",
        pattern=re.compile(r"(?<![\w.+-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}|\d{4}([ -])\d{6}\2\d{4,5}|\d{13,19})(?![\w-]|\.\d)"),
        check=_card,
    ),
    Detector(
        kind="iban",
        pattern=re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        check=_iban,
    ),
    Detector(kind="us_ssn", pattern=re.compile(r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])"), check=_ssn),
    Detector(
        kind="phone",
        # With "+": groups of one to four digits. Without: the North American 3-3-4, a trunk 0 in brackets or before a
        # separator; bare digit strings are order numbers more often than telephones.
        pattern=re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
            r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"
            r"|(?:1[ .-])?\d{3}([ .-])\d{3}\1\d{4}"
            r"|\(0\d{1,4}\) ?\d{3,4}[ -]?\d{3,4}"
            r"|0\d{1,4}[ /-]\d{3,4}[ -]?\d{3,4}"
            r"|0\d(?:[ .]\d{2}){4})(?![\w-]|\.\d)"
        ),
        check=_phone,
    ),
    Detector(
        kind="ip_address",
        # A dotted quad after "v", "version" or the like is a version number.
        pattern=re.compile(
            r"(?<![\w.-])(?<!version )(?<!Version )(?<!release )(?<!section )(?<!Section )(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)|" + _IPV6
        ),
        check=_ip,
    ),
)
"""Personal data, by default of `PiiRail`."""

# -- secrets -------------------------------------------------------------------------------------------------------------------

_KEYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    # Formats as the issuers document them, or as their own scanners look for them.
    ("aws_key", ("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z2-7]{16}"),
    ("anthropic_key", ("sk-ant-",), r"sk-ant-[\w-]{20,}"),
    ("openai_key", ("sk-",), r"sk-(?!ant-|or-)(?:proj-|svcacct-|admin-|None-)?[\w-]{20,}"),
    ("openrouter_key", ("sk-or-",), r"sk-or-v1-[0-9a-f]{32,64}"),
    ("github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{36,}"),
    ("github_token", ("github_pat_",), r"github_pat_[A-Za-z0-9_]{40,}"),
    ("gitlab_token", ("glpat-",), r"glpat-[\w-]{20,}"),
    ("slack_token", ("xox",), r"xox[abeprs]-[A-Za-z0-9-]{10,}"),
    ("google_key", ("AIza",), r"AIza[\w-]{35}"),
    ("stripe_key", ("_live_", "_test_"), r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("huggingface_token", ("hf_",), r"hf_[A-Za-z0-9]{30,}"),
    ("npm_token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    ("pypi_token", ("pypi-",), r"pypi-AgE[\w-]{50,}"),
    ("sendgrid_key", ("SG.",), r"SG\.[\w-]{16,32}\.[\w-]{32,64}"),
    ("langsmith_key", ("lsv2_",), r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    ("digitalocean_token", ("_v1_",), r"do[opr]_v1_[0-9a-f]{64}"),
)


def _key(kind: str, hints: tuple[str, ...], body: str) -> Detector:
    return Detector(kind=kind, hints=hints, pattern=re.compile(rf"(?<![A-Za-z0-9_-]){body}(?![A-Za-z0-9_])"), check=_mixed)


SECRETS: tuple[Detector, ...] = (
    *(_key(*key) for key in _KEYS),
    Detector(
        kind="aws_secret",  # forty characters without a prefix: only next to its own name
        pattern=re.compile(
            r"(?i:(?:aws.{0,20}secret|secret_?access_?key).{0,20}?[\"'=: ]{1,6})(?P<it>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        hints=("aws", "secretaccesskey", "secret_access_key"),
        fold=True,
        check=_mixed,
    ),
    Detector(
        kind="jwt",
        pattern=re.compile(r"(?<![\w.-])eyJ[\w-]{8,}\.eyJ[\w-]{2,}\.[\w-]{16,}(?![\w-])"),
        hints=("eyJ",),
        check=_jwt,
    ),
    Detector(
        kind="private_key",
        # To its END line, or, where that was cut off, to the end of what can be part of it.
        pattern=re.compile(
            r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]{0,20000}(?:-----END [A-Z0-9 ]{0,40}-----)?)"
        ),
        hints=("PRIVATE KEY",),
        check=lambda text: len(text) > 80,
    ),
    Detector(
        kind="url_password",
        pattern=re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]{1,20}://[^\s:/@\"'<>]{0,64}:(?P<it>[^\s/@\"'<>]{3,256})@[\w.-]"),
        hints=("://",),
        check=_password,
    ),
    Detector(
        kind="bearer_token",
        pattern=re.compile(r"(?i:\bbearer )(?P<it>[\w.~+/-]{20,}={0,2})(?![\w])"),
        hints=("bearer ",),
        fold=True,
        check=_mixed,
    ),
)
"""Secrets, by default of `SecretsRail` and `Redactor`."""
