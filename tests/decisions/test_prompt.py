"""The prompt: base, then one line a tool, the same bytes every time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.prompt import DEFAULT_PROMPT, IN_DOUBT, LANDING, REPEATED, merge, system_prompt
from agent_graph.decisions.tools import read_tools

TOOLS = read_tools(
    [
        {"name": "weather", "description": "The weather\n   of a city.  "},
        {"name": "pay", "description": "Pays.", "idempotent": False},
        {"name": "clock"},
    ]
)


def test_one_line_a_tool_in_the_order_given() -> None:
    assert system_prompt("You are a clerk.\n", TOOLS) == (
        "You are a clerk.\n"
        "\n"
        "Your tools:\n"
        "- weather: The weather of a city.\n"
        "- pay: Pays. (acts once: never repeat a call to be safe)\n"
        "- clock"
    )


def test_without_a_base_there_is_a_default_and_an_empty_one_is_respected() -> None:
    assert system_prompt(None, ()) == DEFAULT_PROMPT
    assert system_prompt(None, TOOLS).startswith(DEFAULT_PROMPT + "\n\nYour tools:")
    assert system_prompt("", ()) == ""
    assert system_prompt("", TOOLS).startswith("Your tools:")


def test_a_long_description_stays_on_one_short_line() -> None:
    (tool,) = read_tools([{"name": "f", "description": "word " * 1_000}])
    line = system_prompt("", [tool]).splitlines()[-1]
    assert len(line) <= 310
    assert line.endswith(" ...")


@settings(deadline=None)
@given(st.text(), st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.text()), max_size=5, unique_by=lambda tool: tool[0]))
def test_the_prompt_is_byte_stable(base: str, named: list[tuple[str, str]]) -> None:
    entries = [{"name": name, "description": description} for name, description in named]
    assert system_prompt(base, read_tools(entries)) == system_prompt(base, read_tools([dict(entry) for entry in entries]))


MERGED = {
    "two prompts": ("ours", "theirs", "ours\n\ntheirs"),
    "nothing loaded": ("ours", "", "ours"),
    "only spaces loaded": ("ours", " \n", "ours"),
    "nothing of ours": ("", "theirs", "theirs"),
    "ours came back": ("ours", "ours", "ours"),
    "a part of ours came back": ("ours and more", "ours", "ours and more"),
    "a merged one came back": ("ours", "ours\n\ntheirs", "ours\n\ntheirs"),
}


@pytest.mark.parametrize(("own", "loaded", "expected"), MERGED.values(), ids=MERGED.keys())
def test_merge(own: str, loaded: str, expected: str) -> None:
    assert merge(own, loaded) == expected


@settings(deadline=None)
@given(st.text(), st.text())
def test_merging_again_changes_nothing_and_loses_nothing(own: str, loaded: str) -> None:
    merged = merge(own, loaded)
    assert merge(own, merged) == merged
    assert own.strip() in merged
    assert loaded.strip() in merged


def test_the_words_said_to_a_model_are_sentences_it_can_act_on() -> None:
    assert "no tool" in LANDING
    assert IN_DOUBT == "the outcome of this call is unknown; it was not run again; check before you repeat it"
    assert "same" in REPEATED
