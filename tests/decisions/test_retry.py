"""The failure table of `decisions.retry` against the real classes of the clients, and the promises of its delays."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import socket
import urllib.error
from dataclasses import replace
from typing import Any

import httpx
import langchain_core.exceptions as lc
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from openai.types.responses import ResponseError

from agent_graph.decisions.retry import FIRST_BACKOFF_S, Breaker, Failure, RetryBudget, classify, next_delay
from agent_graph.errors import ConfigError, ContractError, LLMError, NotDurable

NOW = 1_795_000_000.0
"""Wed, 18 Nov 2026 11:06:40 GMT."""
REQUEST = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")


def openai_error(kind: type[openai.APIStatusError], status: int, body: Any = None, **headers: str) -> openai.APIStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return kind("refused", response=httpx.Response(status, request=REQUEST, headers=named), body=body)


def httpx_error(status: int, **headers: str) -> httpx.HTTPStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.HTTPStatusError("refused", request=REQUEST, response=httpx.Response(status, request=REQUEST, headers=named))


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def with_attributes(**attributes: Any) -> Exception:
    error = Exception("boom")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


class OpenAIContextOverflowError(openai.BadRequestError, lc.ContextOverflowError):
    """As langchain-openai builds it."""


class Unreadable(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("no response yet")


def unreadable_reply() -> Exception:
    """As langchain-openai raises it where the arguments of a tool call are a list."""
    with pytest.raises(ValueError, match="tool_calls") as raised:
        AIMessage("", tool_calls=[{"name": "weather", "args": ["Paris"], "id": "c"}])
    return raised.value


class NewModelError(lc.ModelError):
    is_retryable = True


def told(code: str) -> ResponseError:
    """The error of a response, as the openai package reads it."""
    return ResponseError.construct(code=code, message="no luck")


def unread_reply(*, choices: Any) -> Exception:
    """As it is raised where a compatible server answered 200 and no choices."""
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    http = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])  # httpx, or what openai has instead
    with http.Client(transport=http.MockTransport(lambda request: http.Response(200, json=body))) as client:
        model = ChatOpenAI(model="m", api_key="k", base_url="http://127.0.0.1/v1", http_client=client)  # type: ignore[arg-type]  # a str is taken
        with pytest.raises((LookupError, TypeError)) as raised:
            model.invoke("Hi")
    return raised.value


def returned(result: Any) -> BaseException:
    """What comes of a model of the user's whose `_generate` returns `result`."""

    class Mine(FakeListChatModel):
        def _generate(self, *args: Any, **options: Any) -> Any:
            return result

    try:
        Mine(responses=["hi"]).invoke("q")
    except Exception as error:  # whatever langchain-core makes of it: that is what is looked at
        return error
    raise AssertionError("langchain-core takes it")


def own_mistake() -> Exception:
    with pytest.raises(IndexError) as raised:
        [].pop()
    return raised.value


def in_stream(body: Any) -> openai.APIError:
    return openai.APIError("error event in a stream", request=REQUEST, body=body)


# --- classify: LangChain models --------------------------------------------------------------------------------------------

LANGCHAIN = [
    *((httpx_error(status), kind, True) for status, kind in [(408, "timeout"), (409, "conflict"), (429, "rate_limit")]),
    *((httpx_error(status), "server", True) for status in (500, 502, 503, 504, 529)),
    *((httpx_error(status), "auth", False) for status in (401, 403)),
    *((httpx_error(status), "invalid", False) for status in (400, 405, 410, 413, 422, 425, 451)),
    (httpx_error(402), "quota", False),
    (httpx_error(404), "not_found", False),
    (openai_error(openai.RateLimitError, 429), "rate_limit", True),
    (openai_error(openai.RateLimitError, 429, {"code": "insufficient_quota"}), "quota", False),
    (openai_error(openai.RateLimitError, 429, {"error": {"type": "insufficient_quota"}}), "quota", False),
    (openai_error(openai.RateLimitError, 429, {"message": "You exceeded your current quota"}), "rate_limit", True),
    (openai_error(openai.InternalServerError, 503), "server", True),
    (openai_error(openai.AuthenticationError, 401), "auth", False),
    (openai_error(openai.BadRequestError, 400), "invalid", False),
    (openai.APITimeoutError(request=REQUEST), "timeout", True),
    (openai.APIConnectionError(request=REQUEST), "connection", True),
    (openai.APIError("error event in a stream", request=REQUEST, body=None), "server", True),
    (openai.APIResponseValidationError(response=httpx.Response(200, request=REQUEST), body=None), "unreadable", True),
    (lc.ModelRateLimitError(), "rate_limit", True),
    (lc.ModelTimeoutError(), "timeout", True),
    (lc.ModelConnectionError(), "connection", True),
    (lc.ModelAPIError(), "server", True),
    (lc.ModelAuthenticationError(), "auth", False),
    (lc.ModelPermissionDeniedError(), "auth", False),
    (lc.ModelInvalidRequestError(), "invalid", False),
    (lc.ModelNotFoundError(), "not_found", False),
    (lc.ModelError(), "unknown", False),
    (NewModelError(), "unknown", True),
    (lc.OutputParserException("no JSON"), "unreadable", True),
    (httpx.RemoteProtocolError("peer closed connection without sending complete message body"), "truncated", True),
    (httpx.ReadTimeout("slow"), "timeout", True),
    (httpx.ConnectError("refused"), "connection", True),
    (httpx.UnsupportedProtocol("ftp"), "invalid", False),
    (httpx.DecodingError("not gzip"), "unreadable", True),
    (http.client.IncompleteRead(b""), "truncated", True),
    (urllib.error.URLError("refused"), "connection", True),
    (urllib.error.HTTPError("http://127.0.0.1", 404, "gone", http.client.HTTPMessage(), None), "not_found", False),
    (json.JSONDecodeError("cut", "{", 1), "unreadable", True),
    (unreadable_reply(), "unreadable", True),
    (asyncio.TimeoutError(), "timeout", True),  # noqa: UP041  (the name under which users meet it)
    (ConnectionResetError(), "connection", True),
    (socket.gaierror(), "connection", True),
    (with_attributes(status=503), "server", True),
    (with_attributes(http_status=429), "rate_limit", True),
    (with_attributes(code=http.HTTPStatus.BAD_GATEWAY), "server", True),
    (with_attributes(status_code=200), "unknown", False),
    (with_attributes(status_code=True), "unknown", False),
    (with_attributes(response={"ResponseMetadata": {"HTTPStatusCode": 429}}), "rate_limit", True),
    (caused(RuntimeError("wrapped"), httpx_error(503)), "server", True),
    (caused(RuntimeError("wrapped"), httpx.ReadTimeout("slow")), "timeout", True),
    (LLMError("the stream ended without finish_reason"), "unknown", True),
    (LLMError("no", retryable=False), "unknown", False),
    (caused(LLMError("wrapped"), httpx_error(401)), "auth", False),
    (with_attributes(status_code=503, retryable=False), "server", False),
    (Unreadable(), "unknown", False),
    (ValueError("a mistake in the program"), "unknown", False),
    # What a reply with status 200 says went wrong. langchain-openai makes ValueErrors of it: of a response's error (whole, streamed
    # as `response.failed`, as an event `error`) and of a chat completion's (as gateways send it).
    (ValueError(told("server_error")), "server", True),
    (ValueError(str(told("server_error"))), "server", True),
    (ValueError("server_error: no luck"), "server", True),
    (ValueError({"message": "no luck", "code": "server_error"}), "server", True),
    (ValueError(told("rate_limit_exceeded")), "rate_limit", True),
    (ValueError(str(told("rate_limit_exceeded"))), "rate_limit", True),
    (ValueError("rate_limit_exceeded: no luck"), "rate_limit", True),
    (ValueError(told("vector_store_timeout")), "timeout", True),
    (ValueError(told("invalid_prompt")), "invalid", False),
    (ValueError(told("image_too_large")), "unknown", False),
    (ValueError("insufficient_quota: no luck"), "quota", False),
    (ValueError({"message": "Provider returned error", "code": 502}), "server", True),
    (ValueError({"message": "Rate limited upstream", "code": 429}), "rate_limit", True),
    (ValueError({"message": "Rate limited upstream", "code": "429"}), "rate_limit", True),
    (ValueError({"message": "No credits", "code": 402}), "quota", False),
    (ValueError({"message": "Moderated", "code": 403}), "auth", False),
    (ValueError({"error": {"message": "no luck", "type": "overloaded_error"}}), "server", True),
    (ValueError("server_errors: a word that is no code"), "unknown", False),
    (ValueError(), "unknown", False),
    (in_stream({"code": "invalid_prompt", "message": "no"}), "invalid", False),
    (in_stream({"code": "rate_limit_exceeded", "message": "no", "type": "requests"}), "rate_limit", True),
    (in_stream({"code": None, "type": "overloaded_error"}), "server", True),
    (in_stream({"code": None, "type": "invalid_request_error"}), "invalid", False),
    (in_stream({"code": "rate_limit_exceeded", "type": "invalid_request_error"}), "rate_limit", True),
    (in_stream({"code": 502}), "server", True),
    (in_stream({"code": 400}), "invalid", False),
    (unread_reply(choices=[]), "unreadable", True),
    (unread_reply(choices=None), "unreadable", True),
    (own_mistake(), "unknown", False),
    (returned(None), "unknown", False),
    (ValueError("404: no page"), "unknown", False),
    (KeyError("usage"), "unknown", False),
    (ContractError("LLMBackend.complete returned None"), "contract", False),
    (ConfigError("no price"), "contract", False),
    (NotDurable(), "contract", False),
    (asyncio.CancelledError(), "cancelled", False),
    (KeyboardInterrupt(), "cancelled", False),
]


def row_id(value: object) -> str | None:
    return f"{type(value).__name__}-{value}"[:60] if isinstance(value, BaseException) else None


@pytest.mark.parametrize(("error", "kind", "retryable"), LANGCHAIN, ids=row_id)
def test_failures_of_langchain_models(error: BaseException, kind: str, retryable: bool) -> None:
    failure = classify(error, spec_backend=False, now=NOW)
    assert (failure.kind, failure.retryable, failure.overflow) == (kind, retryable, False)


# --- classify: the specification's backends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ValueError("anything"), True),
        (KeyError("choices"), True),
        (RuntimeError("503"), True),
        (type("NotFoundError", (Exception,), {})("its author's own class"), True),
        (type("Final", (Exception,), {"retryable": False})(), False),
        (httpx_error(503), True),
        (httpx_error(429), True),
        (httpx_error(400), False),
        (with_attributes(status_code=404), False),
        (openai_error(openai.RateLimitError, 429, {"code": "insufficient_quota"}), False),
        (caused(RuntimeError("wrapped"), httpx_error(401)), False),
        (LLMError("no", retryable=False), False),
        (ContractError("no Message"), False),
        (asyncio.CancelledError(), False),
    ],
    ids=row_id,
)
def test_failures_of_the_specifications_backends(error: BaseException, retryable: bool) -> None:
    assert classify(error, spec_backend=True, now=NOW).retryable is retryable


@pytest.mark.parametrize(
    "error",
    [
        lc.ContextOverflowError("too long"),
        openai_error(OpenAIContextOverflowError, 400),
        openai_error(openai.BadRequestError, 400, {"code": "context_length_exceeded"}),
        caused(RuntimeError("wrapped"), lc.ContextOverflowError()),
        ValueError(told("context_length_exceeded")),
        ValueError(str(told("context_length_exceeded"))),
        ValueError("context_length_exceeded: too long"),
    ],
    ids=row_id,
)
@pytest.mark.parametrize("spec_backend", [False, True])
def test_an_overflow_is_compressed_and_not_retried(error: Exception, spec_backend: bool) -> None:
    failure = classify(error, spec_backend=spec_backend, now=NOW)
    assert (failure.kind, failure.overflow, failure.retryable) == ("overflow", True, False)


def test_what_a_body_says_is_no_http_status() -> None:
    """A gateway's error in the middle of a stream counted as an answer with that status, which is never billed."""
    assert classify(in_stream({"code": 502}), spec_backend=False, now=NOW).status is None
    assert classify(ValueError({"code": 502}), spec_backend=False, now=NOW).status is None


def test_a_chain_of_causes_that_bites_its_tail_is_read_to_an_end() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first, spec_backend=False, now=NOW) == Failure(kind="unknown", retryable=False)


# --- Retry-After -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "3"}, 0.25),
        ({"retry_after": "Wed, 18 Nov 2026 11:06:50 GMT"}, 10.0),
        ({"retry_after": "Wed, 18 Nov 2026 11:06:50 -0000"}, 10.0),
        ({"retry_after": "Wed, 18 Nov 2026 11:06:30 GMT"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Wed, 99 Nov 2026 11:06:30 GMT"}, None),
        ({"retry_after": ""}, None),
        ({}, None),
    ],
    ids=str,
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert classify(httpx_error(429, **headers), spec_backend=False, now=NOW).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (with_attributes(status_code=429, retry_after=7), 7.0),
        (with_attributes(status_code=429, headers={"Retry-After": "4"}), 4.0),
        (caused(RuntimeError("wrapped"), httpx_error(429, retry_after="2")), 2.0),
        (httpx_error(401, retry_after="2"), None),
    ],
    ids=row_id,
)
def test_where_retry_after_is_looked_for(error: Exception, wait_s: float | None) -> None:
    assert classify(error, spec_backend=True, now=NOW).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("error", "paced"),
    [
        (httpx_error(429, retry_after="2"), True),
        (httpx_error(429, retry_after="0"), True),
        (httpx_error(429), False),
        (httpx_error(503, retry_after="2"), False),
        (openai_error(openai.RateLimitError, 429, {"code": "insufficient_quota"}, retry_after="2"), False),
    ],
    ids=row_id,
)
def test_a_rate_limit_that_says_when_to_come_back_says_nothing_against_the_service(error: Exception, paced: bool) -> None:
    assert classify(error, spec_backend=False, now=NOW).is_paced is paced


def test_the_headers_of_the_standard_library_are_read() -> None:
    headers = http.client.HTTPMessage()
    headers["Retry-After"] = "6"
    error = urllib.error.HTTPError("http://127.0.0.1", 429, "slow down", headers, None)
    assert classify(error, spec_backend=False, now=NOW).retry_after_s == 6.0


# --- next_delay --------------------------------------------------------------------------------------------------------------

SERVER = Failure(kind="server", retryable=True, status=503)


@pytest.mark.parametrize(
    ("failure", "attempt", "attempts", "time_left_s", "draw", "delay"),
    [
        (SERVER, 1, 3, None, 1.0, 0.2),
        (SERVER, 1, 3, None, 0.0, 0.0),
        (SERVER, 1, 3, None, 0.5, 0.1),
        (SERVER, 2, 3, None, 1.0, 0.4),
        (SERVER, 3, 3, None, 1.0, None),
        (SERVER, 4, 9, None, 1.0, 1.6),
        (SERVER, 12, 99, None, 1.0, 20.0),
        (SERVER, 5_000, 9_999, None, 1.0, 20.0),
        (SERVER, 1, 1, None, 1.0, None),
        (SERVER, 1, 0, None, 1.0, None),
        (SERVER, 1, 3, 0.2, 1.0, None),
        (SERVER, 1, 3, 0.21, 1.0, 0.2),
        (SERVER, 1, 3, 0.0, 0.0, None),
        (replace(SERVER, retryable=False), 1, 3, None, 1.0, None),
        (replace(SERVER, retry_after_s=3.0), 1, 3, None, 0.5, 3.1),
        (replace(SERVER, retry_after_s=3.0), 1, 3, 3.0, 0.0, None),
        (replace(SERVER, retry_after_s=3.0), 1, 3, 3.2, 0.5, 3.1),
        (replace(SERVER, retry_after_s=3_600.0), 1, 3, None, 0.0, 3_600.0),
        (replace(SERVER, retry_after_s=3_601.0), 1, 3, None, 0.0, None),
        (replace(SERVER, retry_after_s=3_601.0), 1, 3, 9_999.0, 0.0, 3_601.0),
        (replace(SERVER, retry_after_s=1e9), 1, 3, None, 0.0, None),
    ],
)
def test_delays(failure: Failure, attempt: int, attempts: int, time_left_s: float | None, draw: float, delay: float | None) -> None:
    assert next_delay(failure, attempt=attempt, attempts=attempts, time_left_s=time_left_s, draw=draw) == pytest.approx(delay)


draws = st.floats(0, 1, exclude_max=True)


@given(attempts=st.integers(0, 40), draw=draws, asked=st.none() | st.floats(0, 100))
def test_there_are_exactly_attempts_minus_one_delays(attempts: int, draw: float, asked: float | None) -> None:
    failure, made, delays = replace(SERVER, retry_after_s=asked), 1, []
    while (delay := next_delay(failure, attempt=made, attempts=attempts, time_left_s=None, draw=draw)) is not None:
        delays.append(delay)
        made += 1
    assert len(delays) == max(attempts, 1) - 1
    assert all(delay >= (asked or 0.0) for delay in delays)
    assert not delays or delays[0] <= FIRST_BACKOFF_S + (asked or 0.0)


@given(attempt=st.integers(1, 10_000), draw=draws, asked=st.none() | st.floats(0, 1e6), left=st.floats(0, 1e6))
def test_no_delay_ends_at_or_past_the_deadline(attempt: int, draw: float, asked: float | None, left: float) -> None:
    failure = replace(SERVER, retry_after_s=asked)
    delay = next_delay(failure, attempt=attempt, attempts=attempt + 1, time_left_s=left, draw=draw)
    assert delay is None or 0 <= delay < left


# --- Breaker and RetryBudget ---------------------------------------------------------------------------------------------------


def failed(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    for _ in range(times):
        breaker = breaker.after("failure", now)
    return breaker


def test_a_breaker_opens_at_its_threshold_and_lets_one_probe_through_after_cooling_down() -> None:
    breaker = failed(Breaker(threshold=3, cool_down_s=10), 2)
    assert breaker.allows(0)
    breaker = breaker.after("failure", 0)
    assert not breaker.allows(9.9)
    assert breaker.allows(10)
    probing = breaker.entered(10)
    assert not probing.allows(10)
    assert probing.after("success", 11).allows(11)
    assert probing.after("success", 11) == Breaker(threshold=3, cool_down_s=10)
    assert not probing.after("failure", 11).allows(20.9)
    assert probing.after("failure", 11).allows(21)


def test_a_probe_that_never_reports_does_not_keep_the_breaker_open() -> None:
    probing = failed(Breaker(threshold=1, cool_down_s=10), 1).entered(10)
    assert not probing.allows(19)
    assert probing.allows(20)


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = failed(failed(Breaker(threshold=3), 2).after("success", 0), 2)
    assert breaker.allows(0)


def test_entering_a_closed_breaker_changes_nothing() -> None:
    breaker = failed(Breaker(threshold=3), 2)
    assert breaker.entered(5) == breaker


@given(outcomes=st.lists(st.tuples(st.sampled_from(["success", "failure"]), st.floats(0, 30)), max_size=30))
def test_a_lone_run_always_gets_its_attempts(outcomes: list[tuple[Any, float]]) -> None:
    breaker, budget, now = Breaker(), RetryBudget(), 0.0
    for outcome, passed in outcomes:
        now += passed
        breaker, budget = breaker.after(outcome, now), budget.after("retry")
        assert breaker.allows(now, alone=True)
        assert budget.allows(alone=True)


def test_a_retry_budget_is_used_up_by_retries_and_earned_by_first_attempts() -> None:
    budget = RetryBudget(ratio=0.5, capacity=2, saved=2)
    budget = budget.after("retry").after("retry")
    assert not budget.allows()
    assert not budget.after("first").allows()
    assert budget.after("first").after("first").allows()


@given(attempts=st.lists(st.sampled_from(["first", "retry"]), max_size=200))
def test_a_retry_budget_stays_between_nothing_and_its_capacity(attempts: list[Any]) -> None:
    budget, granted = RetryBudget(), 0
    for attempt in attempts:
        if attempt == "first" or budget.allows():
            granted += attempt == "retry"
            budget = budget.after(attempt)
        assert 0 <= budget.saved <= budget.capacity
    assert granted <= 10 + 0.1 * attempts.count("first") + 1e-9
