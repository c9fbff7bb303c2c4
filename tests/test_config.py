"""What may be set, and what is said of a key that may not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from agent_graph import AgentConfig, ConfigError, ProductionAgent, create_production_agent
from agent_graph.config import KEYWORDS


def test_the_keywords_are_those_of_the_constructors() -> None:
    taken: set[str] = set()
    for constructor in (ProductionAgent, create_production_agent):
        taken |= {name for name, given in inspect.signature(constructor).parameters.items() if given.kind is given.KEYWORD_ONLY}
    assert taken == set(KEYWORDS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"max_cost": 1}, "Did you mean 'max_cost_usd'?", id="a key"),
        pytest.param({"fallback": []}, "Did you mean 'fallbacks'?", id="a keyword"),
        pytest.param({"price": {}}, "Did you mean 'prices'?", id="another"),
        pytest.param({"budgets": None}, "Did you mean 'budget'?", id="and another"),
        pytest.param({"zzz": 1}, "unknown key 'zzz'. Known keys:", id="none near"),
    ],
)
def test_a_misspelt_keyword_names_the_nearest_one(given: dict[str, Any], said: str) -> None:
    """`fallback=[...]` was answered with a list of keys in which `fallbacks` did not stand."""
    with pytest.raises(ConfigError) as raised:
        create_production_agent("offline", **given)
    assert said in str(raised.value)


def test_an_object_in_the_mapping_is_sent_to_its_keyword() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'prices'\. It is a keyword of the agent and no key of its config: prices=\.\.\."):
        AgentConfig.from_mapping({"prices": {}})
