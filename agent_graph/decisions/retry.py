"""Whether a failed call is tried again, and after how long.

One owner of retries: a client's own are switched off, or three attempts of ours would be nine on the wire. `classify` reads an
exception by its shape (status code, error code, headers) and by the class names of its ancestors, so that no client library is
imported here and one that is not installed costs nothing. `next_delay` says when to try again.

What a failure means is decided in this order, the first that speaks wins:

1. it is no failure of a call at all (cancellation), or our own check's error: final;
2. the input is longer than the model's context: final as it is, but worth one try after compression (`Failure.overflow`);
3. the account is out of money (by error *code*; it arrives as 429 and looks like a rate limit): final;
4. `retryable = False` on the exception: final;
5. an HTTP status: 408, 409, 429 and 5xx are retried, every other 4xx is final;
6. a code told in a reply that had status 200: an error inside a stream, a response that failed, a gateway's error instead of choices;
7. the names of its classes: langchain-core's `ModelError` tree, the OpenAI and Anthropic clients, httpx, JSON;
8. where it was raised: a LangChain integration that stumbles over a reply (no choices, say) could not read it, and tries again;
9. anything else: final for a LangChain model, where an unknown exception is most likely a mistake in the program.

An `LLMBackend` of the specification is retried at 7 to 9 whatever it raised: its exceptions are its author's own words.

What must stay true: there are never more than `attempts - 1` delays, and no delay ends at or past the deadline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from traceback import walk_tb
from typing import Any, Literal, cast

from agent_graph.errors import AgentGraphError, BackendError

__all__ = ["Breaker", "Failure", "RetryBudget", "classify", "next_delay"]

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 20.0
MAX_ASKED_S = 3_600.0
"""What a server may ask for where there is no deadline; a date in 2099, say, is a refusal and nothing to wait for."""
MAX_CAUSES = 5
"""How far a chain of `raise ... from` is read: clients wrap once or twice; the bound is for chains that bite their own tail."""

RETRIED_STATUS = frozenset({408, 409, 429})
STATUS_KINDS = {401: "auth", 402: "quota", 403: "auth", 404: "not_found", 408: "timeout", 409: "conflict", 429: "rate_limit"}

# https://platform.openai.com/docs/guides/error-codes and https://docs.anthropic.com/en/api/errors (read 2026-11).
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
OVERFLOW_CODES = frozenset({"context_length_exceeded"})
CODE_KINDS: dict[str, tuple[str, bool]] = {
    # OpenAI, inside a reply: the codes of its `ResponseError` that another attempt may mend, and the first that none may.
    "server_error": ("server", True),
    "rate_limit_exceeded": ("rate_limit", True),
    "vector_store_timeout": ("timeout", True),
    "invalid_prompt": ("invalid", False),
    # Anthropic, inside a stream.
    "api_error": ("server", True),
    "overloaded_error": ("server", True),
    "rate_limit_error": ("rate_limit", True),
    "timeout_error": ("timeout", True),
    "authentication_error": ("auth", False),
    "permission_error": ("auth", False),
    "not_found_error": ("not_found", False),
    "request_too_large": ("invalid", False),
    "invalid_request_error": ("invalid", False),  # both
}
"""A provider's own word for a failure, where no HTTP status says what it means -> (kind, retryable)."""
TOLD = re.compile(r"ResponseError\(code='(\w+)'|([a-z_]+): ")
"""How langchain-openai writes the error of a streamed response into a ValueError."""

CLASS_KINDS: dict[str, tuple[str, bool]] = {
    # langchain-core: provider-neutral, mixed into the providers' own classes.
    "ModelRateLimitError": ("rate_limit", True),
    "ModelTimeoutError": ("timeout", True),
    "ModelConnectionError": ("connection", True),
    "ModelAPIError": ("server", True),
    "ModelAuthenticationError": ("auth", False),
    "ModelPermissionDeniedError": ("auth", False),
    "ModelInvalidRequestError": ("invalid", False),
    "ModelNotFoundError": ("not_found", False),
    "OutputParserException": ("unreadable", True),
    # The OpenAI and Anthropic clients share these names.
    "RateLimitError": ("rate_limit", True),
    "APITimeoutError": ("timeout", True),
    "APIConnectionError": ("connection", True),
    "InternalServerError": ("server", True),
    "ConflictError": ("conflict", True),
    "AuthenticationError": ("auth", False),
    "PermissionDeniedError": ("auth", False),
    "BadRequestError": ("invalid", False),
    "NotFoundError": ("not_found", False),
    "UnprocessableEntityError": ("invalid", False),
    "ContentFilterFinishReasonError": ("invalid", False),
    "APIResponseValidationError": ("unreadable", True),
    "APIError": ("server", True),  # bare: an error event in the middle of a stream
    # httpx, which escapes the clients while a stream is read.
    "UnsupportedProtocol": ("invalid", False),
    "LocalProtocolError": ("invalid", False),
    "RemoteProtocolError": ("truncated", True),
    "DecodingError": ("unreadable", True),
    "TimeoutException": ("timeout", True),
    "TransportError": ("connection", True),
    # requests, aiohttp, urllib3, http.client.
    "ChunkedEncodingError": ("truncated", True),
    "ClientPayloadError": ("truncated", True),
    "IncompleteRead": ("truncated", True),
    "ClientConnectionError": ("connection", True),
    "Timeout": ("timeout", True),
    "URLError": ("connection", True),
    "gaierror": ("connection", True),
    # pydantic, in a client that cannot make a message of what came.
    "ValidationError": ("unreadable", True),
    # Python.
    "JSONDecodeError": ("unreadable", True),
    "TimeoutError": ("timeout", True),
    "ConnectionError": ("connection", True),
}
"""Class name -> (kind, retryable); the nearest ancestor's entry holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a failed call means for the next attempt."""

    kind: str
    """"rate_limit", "quota", "server", "timeout", "connection", "truncated", "unreadable", "conflict", "auth", "not_found",
    "invalid", "overflow", "contract", "cancelled" or "unknown"."""
    retryable: bool
    """Whether the same request may succeed when it is sent again."""
    retry_after_s: float | None = None
    """Seconds that the server asked to be left alone, >= 0."""
    status: int | None = None
    """HTTP status, 400-599."""
    overflow: bool = False
    """The input is longer than the model's context: compress, then try once more."""

    @property
    def is_paced(self) -> bool:
        """Whether the service is well and says when to come back: a rate limit with a Retry-After.

        Breaker and retry budget are for a service that is not: whoever comes back when he was told to does not add to its load, and
        thirty runs at a limit of ten a second would end as if it were down.
        """
        return self.kind == "rate_limit" and self.retry_after_s is not None


def classify(error: BaseException, *, spec_backend: bool, now: float) -> Failure:
    """Return what `error`, raised by a model call, means.

    Args:
        error: the exception; the chain of its explicit causes is read too.
        spec_backend: whether an `LLMBackend` of the specification raised it, as opposed to a LangChain model.
        now: seconds since the epoch, against which a Retry-After date is read.
    """
    if not isinstance(error, Exception):
        return Failure(kind="cancelled", retryable=False)
    if isinstance(error, AgentGraphError) and not isinstance(error, BackendError):
        return Failure(kind="contract", retryable=False)
    chain = tuple(_chain(error))
    status = next(filter(None, map(_status, chain)), None)
    codes = tuple(code for link in chain for code in _codes(link))
    if OVERFLOW_CODES.intersection(codes) or any("ContextOverflowError" in _class_names(link) for link in chain):
        return Failure(kind="overflow", retryable=False, status=status, overflow=True)
    kind, retryable = _meaning(chain, status, codes, spec_backend=spec_backend)
    wait = next((after for link in chain if (after := _retry_after_s(link, now)) is not None), None)
    return Failure(kind=kind, retryable=retryable, retry_after_s=wait if retryable else None, status=status)


def next_delay(failure: Failure, *, attempt: int, attempts: int, time_left_s: float | None, draw: float) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a draw between zero and a bound that
    doubles from 0.2 s to 20 s, so that callers that failed together do not return together. What the server asked for comes
    first, the jitter on top of it.

    Args:
        failure: why the attempt failed.
        attempt: number of the attempt that failed, from 1.
        attempts: attempts in all; 0 and 1 both mean no retry.
        time_left_s: seconds that the call may still use; None for no limit but the hour that a server may ask for.
        draw: a random number in [0, 1).
    """
    if not failure.retryable or attempt >= attempts:
        return None
    backoff = draw * min(FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 30), MAX_BACKOFF_S)
    asked = failure.retry_after_s or 0.0
    delay = asked + backoff
    too_long = asked > MAX_ASKED_S if time_left_s is None else delay >= time_left_s
    return None if too_long else delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A circuit breaker's state: after `threshold` failures in a row calls stop for `cool_down_s`, then one probe decides.

    Feed it only failures that tell something of the service (`Failure.retryable`, not `is_paced`): a wrong request says nothing of its
    health, and a rate limit is kept by one that is well.
    """

    threshold: int = 5
    """Failures in a row, of all runs together, that open it; at least 1."""
    cool_down_s: float = 10.0
    """Seconds for which it stays open, and for which a probe that does not report is waited for."""
    failures: int = 0
    """Failures since the last success."""
    closed_until: float | None = None
    """Monotonic second before which no call is let through; None while it lets all through."""

    def allows(self, now: float, *, alone: bool = False) -> bool:
        """Return whether a call may be made; a run that has the service to itself (`alone`) always may."""
        return alone or self.closed_until is None or now >= self.closed_until

    def entered(self, now: float) -> Breaker:
        """Return the state once a call that `allows` let through is made: a probe keeps others out until it reports."""
        return self if self.closed_until is None else replace(self, closed_until=now + self.cool_down_s)

    def after(self, outcome: Literal["success", "failure"], now: float) -> Breaker:
        """Return the state after a call ended."""
        if outcome == "success":
            healthy = self.failures == 0 and self.closed_until is None
            return self if healthy else replace(self, failures=0, closed_until=None)
        failures = self.failures + 1
        return replace(self, failures=failures, closed_until=now + self.cool_down_s if failures >= self.threshold else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How many retries the runs that share a service may make: `ratio` per first attempt, at most `capacity` saved up.

    When a service fails for everybody, retries would multiply the load just when it can bear least
    (https://sre.google/sre-book/handling-overload/, "per-client retry budget").
    """

    ratio: float = 0.1
    capacity: float = 10.0
    saved: float = 10.0
    """Retries that may be made now."""

    def allows(self, *, alone: bool = False) -> bool:
        """Return whether a retry may be made; a run that has the service to itself (`alone`) always may."""
        return alone or self.saved >= 1.0

    def after(self, attempt: Literal["first", "retry"]) -> RetryBudget:
        """Return the state once an attempt is made."""
        change = self.ratio if attempt == "first" else -1.0
        saved = min(max(self.saved + change, 0.0), self.capacity)
        return self if saved == self.saved else replace(self, saved=saved)


def _meaning(chain: tuple[BaseException, ...], status: int | None, codes: tuple[str, ...], *, spec_backend: bool) -> tuple[str, bool]:
    """Return kind and retryability by rules 3 to 9 above."""
    if QUOTA_CODES.intersection(codes):
        return "quota", False
    said = next(filter(None, map(_by_code, codes)), None) if status is None else _by_status(status)
    named = next(filter(None, map(_named, chain)), None)
    unread = ("unreadable", True) if _stumbled(chain[0]) else None
    kind, retryable = said or named or unread or ("unknown", isinstance(chain[0], BackendError))
    if spec_backend and said is None:
        retryable = True  # the names of its classes are its author's, and may mean anything
    return kind, retryable and _attribute(chain[0], "retryable") is not False


def _by_status(status: int) -> tuple[str, bool]:
    if status >= 500:
        return "server", True
    return STATUS_KINDS.get(status, "invalid"), status in RETRIED_STATUS


def _by_code(code: str) -> tuple[str, bool] | None:
    if code.isdecimal() and 400 <= int(code) <= 599:  # a gateway's, of whoever stands behind it
        return _by_status(int(code))
    return CODE_KINDS.get(code)


def _stumbled(error: BaseException) -> bool:
    """Return whether LangChain failed over the shape of a reply: an integration, or the core over a reply without any choice.

    Over what a model of the user's is called with, or returns, the core alone fails, with a TypeError or an AttributeError.
    """
    if not isinstance(error, LookupError | TypeError | AttributeError):
        return False
    packages = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    integrated = any(package.startswith("langchain_") and package != "langchain_core" for package in packages)
    return bool(packages) and packages[-1].startswith("langchain") and (integrated or isinstance(error, LookupError))


def _named(error: BaseException) -> tuple[str, bool] | None:
    for name in _class_names(error):
        if name in CLASS_KINDS:
            return CLASS_KINDS[name]
    declared = _attribute(error, "is_retryable")  # a ModelError of langchain-core that is not in the table
    return ("unknown", declared) if isinstance(declared, bool) else None


def _class_names(error: BaseException) -> tuple[str, ...]:
    return tuple(ancestor.__name__ for ancestor in type(error).__mro__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if link is None:
            return
        yield link
        link = link.__cause__


def _attribute(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  (a client's property may raise; an error that cannot be read is read without it)
        return None


def _status(error: BaseException) -> int | None:
    response = _attribute(error, "response")
    candidates: list[Any] = [_attribute(error, name) for name in ("status_code", "status", "http_status", "code")]
    candidates += [_attribute(response, name) for name in ("status_code", "status")]
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        candidates.append(metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None)
    return next((int(c) for c in candidates if isinstance(c, int) and not isinstance(c, bool) and 400 <= c <= 599), None)


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the provider's own words for what went wrong, a `code` before a `type`: on the exception, in what it carries, in its text."""
    carried = (_attribute(error, "body"), error.args[0] if type(error) is ValueError and error.args else None)
    inner = (body.get("error") for body in carried if isinstance(body, Mapping))
    holders = [*carried, *inner, error]
    for name in ("code", "type"):
        values = (holder.get(name) if isinstance(holder, Mapping) else _attribute(holder, name) for holder in holders)
        yield from (str(value) for value in values if isinstance(value, str | int))
    if isinstance(carried[1], str) and (told := TOLD.match(carried[1])):
        yield told[1] or told[2]


def _retry_after_s(error: BaseException, now: float) -> float | None:
    for holder in (_attribute(error, "response"), error):
        items = _attribute(_attribute(holder, "headers"), "items")  # by shape: http.client's headers are no Mapping
        if callable(items):
            pairs = cast("Iterable[tuple[object, object]]", items())
            wait = _from_headers({str(name).lower(): str(value) for name, value in pairs}, now)
            if wait is not None:
                return wait
    return _seconds(_attribute(error, "retry_after"))


def _from_headers(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1_000
    text = headers.get("retry-after")
    seconds = _seconds(text)
    return _date(text, now) if seconds is None and text else seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _date(text: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(moment.timestamp() - now, 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
