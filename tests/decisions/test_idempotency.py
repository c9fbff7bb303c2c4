"""Keys of tool calls, and whether a call may run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent_graph.decisions.idempotency import ENDS, Ask, Failed, Plan, Reconcile, Replay, Run, Tell, call_key, plan
from agent_graph.decisions.tools import canonical_json

PLACE: dict[str, Any] = {
    "namespace": "default",
    "run_id": "r",
    "turn": 1,
    "step": 2,
    "index": 0,
    "tool": "pay",
    "args": {"to": "Bob", "usd": 5},
}

JSON_ARGS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    max_size=6,
)
PLACES = st.fixed_dictionaries(
    {
        "namespace": st.text(max_size=5),
        "run_id": st.text(max_size=5),
        "turn": st.integers(1, 50),
        "step": st.integers(1, 50),
        "index": st.integers(0, 50),
        "tool": st.text(max_size=5),
        "args": JSON_ARGS,
    }
)


def key_of(**place: Any) -> str:
    return call_key(**{**place, "args": canonical_json(place["args"])})


def test_a_key_is_32_hexadecimal_digits_and_the_same_in_every_version() -> None:
    """A key on record must still be the call's key after an update of the program: this one never changes."""
    assert key_of(**PLACE) == "2b786c9124bec16fe81cff14ed4a36f7"


def test_a_key_is_the_same_in_another_process() -> None:
    written = {**PLACE, "args": canonical_json(PLACE["args"])}
    code = f"from agent_graph.decisions.idempotency import call_key; print(call_key(**{written!r}))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert printed == key_of(**PLACE)


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "other"},
        {"run_id": "s"},
        {"turn": 2},
        {"step": 3},
        {"index": 1},
        {"tool": "repay"},
        {"args": {"to": "Bob", "usd": 6}},
        {"args": {"to": "Bob", "usd": "5"}},
        {"args": {"to": "Bob", "usd": 5.0}},
        {"args": {"to": "Bob"}},
        {"run_id": "r1", "turn": 1},
        {"namespace": "defaultr", "run_id": ""},
    ],
    ids=str,
)
def test_another_place_or_other_arguments_have_another_key(change: dict[str, Any]) -> None:
    assert key_of(**{**PLACE, **change}) != key_of(**PLACE)


@settings(deadline=None)
@given(PLACES, st.randoms())
def test_the_order_of_arguments_and_a_round_trip_through_storage_do_not_change_a_key(place: dict[str, Any], random: Any) -> None:
    names = list(place["args"])
    random.shuffle(names)
    shuffled = {name: place["args"][name] for name in names}
    stored = json.loads(canonical_json(place["args"]))
    key = key_of(**place)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert key_of(**{**place, "args": shuffled}) == key
    assert key_of(**{**place, "args": stored}) == key


@settings(deadline=None)
@given(PLACES, PLACES)
def test_different_calls_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assume(canonical_json(one) != canonical_json(other))
    assert key_of(**one) != key_of(**other)


@settings(deadline=None)
@given(PLACES, st.sampled_from(["turn", "step", "index"]), st.integers(1, 9))
def test_another_turn_step_or_index_is_another_call(place: dict[str, Any], name: str, by: int) -> None:
    assert key_of(**{**place, name: place[name] + by}) != key_of(**place)


# state, idempotent, attempt of attempts, on_doubt, can_reconcile, resolved -> plan
PLANS: dict[str, tuple[str | None, bool, int, int, str, bool, str | None, Plan]] = {
    "new": (None, False, 0, 3, "tell", False, None, Run(1)),
    "new and idempotent": (None, True, 0, 3, "tell", False, None, Run(1)),
    "planned, and the process died": ("planned", False, 0, 3, "ask", True, None, Run(1)),
    "succeeded": ("succeeded", False, 1, 3, "tell", False, None, Replay()),
    "succeeded and idempotent": ("succeeded", True, 1, 3, "tell", False, None, Replay()),
    "failed": ("failed", True, 1, 3, "tell", False, None, Replay()),
    "rejected": ("rejected", False, 0, 3, "ask", True, None, Replay()),
    "cancelled": ("cancelled", False, 1, 3, "ask", True, None, Replay()),
    "idempotent, died once": ("started", True, 1, 3, "ask", True, None, Run(2)),
    "idempotent, died twice": ("started", True, 2, 3, "ask", False, None, Run(3)),
    "idempotent, attempts used up": ("started", True, 3, 3, "ask", False, None, Tell()),
    "idempotent, no retries": ("started", True, 1, 0, "tell", False, None, Tell()),
    "idempotent, one attempt": ("started", True, 1, 1, "tell", False, None, Tell()),
    "in doubt: tell": ("started", False, 1, 3, "tell", False, None, Tell()),
    "in doubt: ask": ("started", False, 1, 3, "ask", False, None, Ask()),
    "in doubt before: tell": ("in_doubt", False, 1, 3, "tell", False, None, Tell()),
    "in doubt before: ask": ("in_doubt", False, 1, 3, "ask", False, None, Ask()),
    "in doubt: the tool can tell": ("started", False, 1, 3, "ask", True, None, Reconcile()),
    "it happened": ("started", False, 1, 3, "ask", True, "done", Replay()),
    "it did not happen": ("started", False, 1, 3, "ask", True, "not_done", Run(2)),
    "it did not happen, attempts used up": ("started", False, 3, 3, "ask", True, "not_done", Failed()),
    "idempotent and did not happen": ("started", True, 1, 3, "tell", False, "not_done", Run(2)),
    "nobody knows: tell": ("started", False, 1, 3, "tell", True, "unknown", Tell()),
    "nobody knows: ask": ("in_doubt", False, 1, 3, "ask", True, "unknown", Ask()),
    "a person said it happened": ("in_doubt", False, 1, 3, "ask", False, "done", Replay()),
    "a person said it did not": ("in_doubt", False, 1, 3, "ask", False, "not_done", Run(2)),
}


@pytest.mark.parametrize("row", PLANS.values(), ids=PLANS.keys())
def test_plans(row: tuple[Any, ...]) -> None:
    state, idempotent, attempt, attempts, on_doubt, can_reconcile, resolved, expected = row
    found = plan(
        state=state,
        idempotent=idempotent,
        attempt=attempt,
        attempts=attempts,
        on_doubt=on_doubt,
        can_reconcile=can_reconcile,
        resolved=resolved,
    )
    assert found == expected


STATES = st.sampled_from([None, "planned", "started", "in_doubt", *sorted(ENDS)])


@given(STATES, st.booleans(), st.integers(0, 9), st.integers(0, 9), st.sampled_from(["tell", "ask"]), st.booleans())
def test_a_call_that_may_have_happened_never_runs_again_unless_it_is_idempotent(
    state: str | None, idempotent: bool, attempt: int, attempts: int, on_doubt: Any, can_reconcile: bool
) -> None:
    found = plan(state=state, idempotent=idempotent, attempt=attempt, attempts=attempts, on_doubt=on_doubt, can_reconcile=can_reconcile)
    if state in ENDS:
        assert found == Replay()
    if isinstance(found, Run):
        assert found.attempt == attempt + 1
        assert state in (None, "planned") or (idempotent and found.attempt <= max(attempts, 1))
    if not can_reconcile:
        assert isinstance(found, Run | Replay | Tell | Ask)
