"""Redactor: no registered secret gets out, and JSON stays JSON."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.errors import ConfigError
from agent_graph.guardrails import Redactor, secrets_of
from agent_graph.guardrails.detectors import SECRETS
from agent_graph.testing.strategies import json_values

SECRET = 'p"ä\\ss\n/w0rd'
MARK = "[redacted]"

SPELLINGS = {
    "plain": SECRET,
    "JSON": json.dumps(SECRET),
    "JSON, letters as they are": json.dumps({"a": SECRET}, ensure_ascii=False),
    "a key": json.dumps({SECRET: 1}),
    "inside a longer text": json.dumps(f"before {SECRET} after"),
    "JSON in JSON": json.dumps({"a": json.dumps({"b": SECRET})}),
    "JSON in JSON in JSON": json.dumps([json.dumps([json.dumps([SECRET])])]),
    "JSON in a log line": f"sent {json.dumps(SECRET)} to them",
    "percent-encoded": f"https://example.com/?k={quote(SECRET, safe='')}",
    "many": json.dumps([SECRET] * 5),
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_no_spelling_of_a_registered_value_is_left(text: str) -> None:
    redact = Redactor([SECRET], detectors=())
    done = redact(text)
    assert done.count(MARK) == text.count("w0rd")
    assert "w0rd" not in done
    if text[0] in '[{"':
        assert json.loads(done) is not None


def test_what_holds_no_secret_stays_the_very_text() -> None:
    text = '{"a" :  1.0, "b": "\\u00e4", "c": 1e400}'
    assert Redactor([SECRET])(text) is text


def test_around_a_secret_everything_stays_byte_for_byte() -> None:
    text = '{"a" :  1.50, "key": "hunter2000", "b": "\\u00e4\\/", "a": 12345678901234567890}'
    assert Redactor(["hunter2000"])(text) == text.replace("hunter2000", MARK)


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("12345678", '{"pin": 12345678, "x": 123456789}', {"pin": MARK, "x": MARK}),
        ("n123456", '["\\n123456"]', ["\n123456"]),
        ("true", '[true, "true"]', [True, MARK]),
        ('","b', '["a","b"]', ["a", "b"]),
        ("aaaa", '["aaaaaaaaa"]', [f"{MARK}{MARK}a"]),
    ],
    ids=["a number", "half an escape", "a keyword", "structure", "overlaps"],
)
def test_a_value_that_looks_like_jsons_own_characters_breaks_nothing(value: str, text: str, expected: Any) -> None:
    assert json.loads(Redactor([value], detectors=())(text)) == expected


def test_a_value_inside_another_leaves_no_rest() -> None:
    assert Redactor(["token-1", "token-1-extended"], detectors=())("token-1-extended token-1") == f"{MARK} {MARK}"


def test_unregistered_secrets_are_found_by_their_kind() -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    pem = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 3 + "-----END PRIVATE KEY-----"
    done = json.loads(Redactor()(json.dumps({"a": f"use {key}", "b": {"pem": pem}})))
    assert done == {"a": f"use {MARK}", "b": {"pem": MARK}}
    assert json.loads(Redactor(detectors=())(json.dumps([key]))) == [key]


@given(
    value=st.text(min_size=4, max_size=12).filter(lambda v: len(v.strip()) >= 4 and v not in MARK),
    document=json_values(),
    where=st.text(max_size=5),
)
def test_json_stays_json_without_the_value_and_redacting_twice_changes_nothing(value: str, document: Any, where: str) -> None:
    redact = Redactor([value], detectors=())
    text = json.dumps({"document": document, "secret": where + value + where, "nested": json.dumps([value])})
    once = redact(text)
    loaded = json.loads(once)
    assert value not in loaded["secret"].replace(MARK, "")
    assert redact(once) == once


@given(json_values())
def test_nothing_is_found_where_nothing_is(document: Any) -> None:
    text = json.dumps(document)
    assert Redactor(["correct horse battery staple"], detectors=SECRETS)(text) == text


def test_values_may_be_wrapped_and_registered_later_and_never_show() -> None:
    class Wrapped:
        def get_secret_value(self) -> str:
            return "hunter2000"

    redact = Redactor()
    redact.register(Wrapped())
    assert redact("hunter2000") == MARK
    assert "hunter" not in repr(redact)


@pytest.mark.parametrize("value", ["abc", "   a  ", "", 5, None, b"bytes", "redacted"], ids=repr)
def test_a_value_that_cannot_be_a_secret_is_refused_without_showing_it(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Redactor([value])
    assert value is None or not str(value).strip() or str(value) == "redacted" or repr(value) not in str(caught.value)


@pytest.mark.parametrize("mark", ["", 'a"b', "\\", "ä", "a\n"], ids=ascii)
def test_a_mark_that_would_break_json_is_refused(mark: str) -> None:
    with pytest.raises(ConfigError, match="mark"):
        Redactor(mark=mark)


def test_registering_while_others_redact_is_safe() -> None:
    redact = Redactor(["hunter2000"])
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(text for text in (redact("hunter2000") for _ in range(500)) if text != MARK)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        redact.register(f"secret number {number}")
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_secrets_of_an_environment_are_those_whose_names_say_so() -> None:
    env = {"OPENAI_API_KEY": "a" * 20, "DB_PASSWORD": "b" * 8, "TOKEN": "c" * 9, "KEYBOARD": "d" * 9, "PATH": "e" * 9, "MY_TOKEN": "short"}
    assert secrets_of(env) == ("a" * 20, "b" * 8, "c" * 9)
