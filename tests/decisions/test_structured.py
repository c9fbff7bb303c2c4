"""What `response_format=` takes, and what it makes of a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agent_graph import ConfigError
from agent_graph.decisions.structured import Misfit, answer_format


class Weather(BaseModel):
    city: str
    celsius: float = Field(ge=-90, le=60)


@dataclass
class WeatherData:
    city: str
    celsius: float


class WeatherDict(TypedDict):
    city: str
    celsius: float


SCHEMA = {
    "title": "Weather",
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "number"}},
    "required": ["city", "celsius"],
}
FITS = {"city": "Paris", "celsius": 18}
FORMATS = [Weather, WeatherData, WeatherDict, SCHEMA]


@pytest.mark.parametrize(
    ("form", "value"),
    [(Weather, Weather(**FITS)), (WeatherData, WeatherData(**FITS)), (WeatherDict, FITS), (SCHEMA, FITS)],  # type: ignore[arg-type]  # ints are floats
)
@pytest.mark.parametrize("text", ["{}", "  {}\n", "```json\n{}\n```", "```\n{}```"])
def test_a_text_that_fits_is_the_object(form: Any, value: Any, text: str) -> None:
    read = answer_format(form).read(text.replace("{}", json.dumps(FITS)))  # type: ignore[union-attr]  # a format was given
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("form", FORMATS, ids=["pydantic", "dataclass", "TypedDict", "JSON Schema"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is 18 degrees.", "it is not JSON"),
        ("", "it is not JSON"),
        (None, "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"city": "Paris"}', "celsius"),
        ('{"city": "Paris", "celsius": "warm"}', "celsius"),
        ("[]", ""),
    ],
    ids=["prose", "empty", "none", "deep", "a key lacks", "a wrong type", "another kind"],
)
def test_a_text_that_does_not_fit_says_why(form: Any, text: str | None, words: str) -> None:
    read = answer_format(form).read(text)  # type: ignore[union-attr]  # a form is given, so there is a format
    assert isinstance(read, Misfit)
    assert words in read.reason
    assert len(read.reason) < 2_000


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
def test_what_create_agent_takes_is_taken(strategy: Any) -> None:
    assert answer_format(strategy(Weather)).read(json.dumps(FITS)) == Weather(city="Paris", celsius=18)  # type: ignore[union-attr]  # a form is given, so there is a format


def test_the_values_of_an_answer_are_no_part_of_the_reason() -> None:
    read = answer_format(Weather).read('{"city": ["hunter2"], "celsius": 99}')  # type: ignore[union-attr]  # a form is given, so there is a format
    assert isinstance(read, Misfit)
    assert "hunter2" not in read.reason
    assert "celsius" in read.reason


def test_what_the_model_is_told_is_the_same_text_each_time() -> None:
    prompts = {answer_format(form).prompt for form in (SCHEMA, dict(reversed(SCHEMA.items())))}  # type: ignore[union-attr]  # a form is given, so there is a format
    assert len(prompts) == 1
    assert '"celsius"' in prompts.pop()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (17, "not a int"),
        (str, "not str"),
        ("json", "not a str"),
        ({"type": "no such type"}, "no JSON Schema"),
        ({"properties": 17}, "no JSON Schema"),
        (Weather(city="x", celsius=1), "not a Weather"),
    ],
    ids=repr,
)
def test_what_is_no_format_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        answer_format(wrong)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    for form in FORMATS:
        answer_format(form).read(text)  # type: ignore[union-attr]  # a form is given, so there is a format
