"""Pairing: after the repair every transcript is one that OpenAI and Anthropic accept, and no real answer is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_graph.decisions.pairing import Repairs, View, repaired, repairs, safe_cuts

SYSTEM, USER, ANSWER = View("system"), View("user"), View("assistant")


def asks(*calls: str) -> View:
    return View("assistant", calls)


def told(call_id: str | None) -> View:
    return View("tool", (), call_id)


def mend(views: Sequence[View]) -> list[View]:
    return repaired(views, views, lambda place, call_id: told(call_id))


def is_valid(views: Sequence[View]) -> bool:
    """Return whether providers accept the list: the rule written down a second time, as they state it."""
    due: Counter[str] = Counter()
    for view in views:
        if view.role == "tool":
            if view.answers is None or due[view.answers] <= 0:
                return False
            due[view.answers] -= 1
            continue
        if due.total():
            return False
        due = Counter(view.calls) if view.role == "assistant" else Counter()
    return not due.total()


VALID = {
    "nothing": [],
    "talk": [SYSTEM, USER, ANSWER, USER],
    "a call": [USER, asks("a"), told("a"), ANSWER],
    "two calls": [asks("a", "b"), told("a"), told("b")],
    "answered in another order": [asks("a", "b"), told("b"), told("a")],
    "the same id in two replies": [asks("a"), told("a"), asks("a"), told("a")],
}


@pytest.mark.parametrize("views", VALID.values(), ids=VALID.keys())
def test_a_valid_list_is_not_touched(views: list[View]) -> None:
    assert not repairs(views)
    assert all(one is other for one, other in zip(mend(views), views, strict=True))


BROKEN = {
    "a crash: no answer": ([USER, asks("a")], Repairs(missing=((1, "a"),))),
    "a crash: one of two answers": ([asks("a", "b"), told("b")], Repairs(missing=((0, "a"),))),
    "a new input on an open call": ([asks("a"), USER, ANSWER], Repairs(missing=((0, "a"),))),
    "an answer without a call": ([USER, told("a"), ANSWER], Repairs(drop=(1,))),
    "a cut history begins with an answer": ([told("a"), told("b"), USER], Repairs(drop=(0, 1))),
    "answered twice": ([asks("a"), told("a"), told("a")], Repairs(drop=(2,))),
    "an answer to nobody": ([asks("a"), told("a"), told(None)], Repairs(drop=(2,))),
    "an answer before its call": ([told("a"), asks("a")], Repairs(drop=(0,), missing=((1, "a"),))),
    "a note between call and answer": (
        [asks("a"), SYSTEM, told("a")],
        Repairs(drop=(2,), missing=((0, "a"),), moved=((0, "a", 2),)),
    ),
    "after a note, answered twice": (
        [asks("a"), SYSTEM, told("a"), told("a")],
        Repairs(drop=(2, 3), missing=((0, "a"),), moved=((0, "a", 2),)),
    ),
    "answers of two replies mixed": (
        [asks("a"), asks("b"), told("a"), told("b")],
        Repairs(drop=(2,), missing=((0, "a"),), moved=((0, "a", 2),)),
    ),
    "a late answer belongs to the latest open call of its id": (
        [asks("a"), USER, asks("a"), USER, told("a")],
        Repairs(drop=(4,), missing=((0, "a"), (2, "a")), moved=((2, "a", 4),)),
    ),
    "a call id twice in one reply": ([asks("a", "a"), told("a")], Repairs(missing=((0, "a"),))),
    "an answer to a user": ([View("user", ("a",)), told("a")], Repairs(drop=(1,))),
}


@pytest.mark.parametrize(("views", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_is_found(views: list[View], expected: Repairs) -> None:
    assert repairs(views) == expected
    assert not is_valid(views)
    assert is_valid(mend(views))


def test_a_late_answer_is_moved_and_a_missing_one_made_behind_those_in_place() -> None:
    views = [USER, asks("a", "b", "c"), told("b"), USER, told("a"), told("z")]
    items = ["user", "asks a b c", "b", "user 2", "a", "z"]
    made: list[tuple[int, str]] = []
    mended = repaired(items, views, lambda place, call_id: made.append((place, call_id)) or f"made {call_id}")  # type: ignore[func-returns-value]  # append returns None, which is the point of the `or`
    assert mended == ["user", "asks a b c", "b", "a", "made c", "user 2"]
    assert made == [(1, "c")]


CUTS = {
    "nothing": ([], [0]),
    "talk": ([USER, ANSWER], [0, 1, 2]),
    "a call": ([USER, asks("a"), told("a"), ANSWER], [0, 1, 3, 4]),
    "two answers": ([asks("a", "b"), told("a"), told("b")], [0, 3]),
    "an open call": ([asks("a"), USER], [0, 1, 2]),
    "a late answer": ([asks("a"), USER, told("a"), USER], [0, 3, 4]),
    "an orphan": ([USER, told("a"), USER], [0, 1, 2, 3]),
}


@pytest.mark.parametrize(("views", "expected"), CUTS.values(), ids=CUTS.keys())
def test_safe_cuts(views: list[View], expected: list[int]) -> None:
    assert safe_cuts(views) == expected


IDS = st.sampled_from(["a", "b", "c"])
VIEWS = st.lists(
    st.just(USER) | st.just(SYSTEM) | st.lists(IDS, max_size=3).map(lambda calls: asks(*calls)) | (IDS | st.none()).map(told),
    max_size=14,
)


@settings(deadline=None)
@given(VIEWS)
def test_any_list_becomes_valid_and_twice_changes_nothing(views: list[View]) -> None:
    mended = mend(views)
    assert is_valid(mended)
    assert not repairs(mended)
    assert mend(mended) == mended
    assert is_valid(views) == (not repairs(views))


@settings(deadline=None)
@example([asks("c", "c"), USER, told("c"), told("c")])
@given(VIEWS)
def test_no_answer_to_a_call_before_it_is_lost_and_nothing_else_is_moved(views: list[View]) -> None:
    items = list(range(len(views)))
    mended = repaired(items, views, lambda place, call_id: -1)
    kept = [at for at in mended if at >= 0]
    assert len(set(kept)) == len(kept)
    assert [at for at in kept if views[at].role != "tool"] == [at for at, view in enumerate(views) if view.role != "tool"]
    found = repairs(views)
    lost = set(items) - set(kept)
    assert lost == set(found.drop) - {at for _, _, at in found.moved}
    unanswered = Counter(found.missing) - Counter((place, call_id) for place, call_id, _ in found.moved)
    for at in lost:
        assert not any(place < at and call_id == views[at].answers for place, call_id in unanswered)


@settings(deadline=None)
@given(VIEWS)
def test_a_drop_and_missing_alone_make_it_valid_too(views: list[View]) -> None:
    """A caller that cannot move messages drops them and makes answers."""
    found = repairs(views)
    result: list[View] = []
    waiting: list[View] = []
    for at, view in enumerate(views):
        if view.role != "tool":
            result += waiting
            waiting = [told(call_id) for place, call_id in found.missing if place == at]
        if at not in found.drop:
            result.append(view)
    assert is_valid(result + waiting)


@settings(deadline=None)
@given(VIEWS)
def test_both_halves_of_a_safe_cut_are_as_valid_as_the_whole(views: list[View]) -> None:
    mended = mend(views)
    cuts = safe_cuts(mended)
    assert {0, len(mended)} <= set(cuts)
    for cut in range(len(mended) + 1):
        halves_valid = is_valid(mended[:cut]) and is_valid(mended[cut:])
        assert halves_valid == (cut in cuts)


def test_a_long_history_takes_linear_time() -> None:
    views = [view for number in range(5_000) for view in (asks(f"c{number}"), told(f"c{number}"), USER)]
    assert not repairs(views)
    assert len(safe_cuts(views)) == 10_001
