"""What may be typed, and what is said about what may not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agent_graph.cli.arguments import limits_of, parse, turn_options
from agent_graph.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "limits"),
    [
        pytest.param([], {}, id="nothing typed, nothing set: the agent's defaults stay defaults"),
        pytest.param(["--max-steps", "3"], {"max_steps": 3}, id="steps"),
        pytest.param(["--max-tokens", "9000"], {"max_tokens": 9_000}, id="tokens: all that limits a model without a price"),
        pytest.param(["--max-cost-usd", "0.05"], {"max_cost_usd": Decimal("0.05")}, id="five cents exactly"),
        pytest.param(["--timeout-s", "1.5"], {"timeout_s": 1.5}, id="seconds"),
        pytest.param(["--max-cost-usd", "none"], {"max_cost_usd": None}, id="no limit"),
    ],
)
def test_limits(typed: list[str], limits: dict[str, Any]) -> None:
    assert limits_of(parse(["run", "hello", *typed])) == limits
    assert limits_of(parse(["resume", "r1", *typed])) == limits


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run"], "QUESTION"),
        (["show"], "RUN_ID"),
        (["run", "hello", "--max-steps", "three"], "'three' is no number"),
        (["run", "hello", "--max-cost-usd", "cheap"], "'cheap' is no number"),
        (["run", "hello", "--max-step", "3"], "unrecognized arguments: --max-step 3"),
        (["runs", "--limit", "0"], "at least 1"),
        (["resume", "r", "--add-budget", "max_steps"], "'max_steps' is not of the form LIMIT=AMOUNT"),
        (["runs", "--limit", "x"], "'x' is no whole number"),
    ],
)
def test_what_cannot_be_understood_is_a_config_error_with_the_usage(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(argv)
    assert said in str(raised.value)
    assert "usage: agent-graph" in str(raised.value)


def test_a_question_may_be_a_dash_and_a_run_id_may_begin_with_one() -> None:
    assert parse(["run", "-"]).question == "-"
    assert parse(["show", "--storage", "x.db", "--", "-r"]).run_id == "-r"


def test_what_is_to_be_typed_next_has_the_options_of_the_turn() -> None:
    options = ["--storage", "x.db", "--namespace", "n", "--max-steps", "3", "--max-tokens", "9000", "--timeout-s", "none"]
    assert turn_options(parse(["run", "hello", *options])) == options
    assert turn_options(parse(["run", "hello"])) == []
