"""The detectors on a labelled corpus: no worse than they were, and as the documentation says."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path
from typing import Any

import pytest

from agent_graph.guardrails.detectors import PII, SECRETS, scan

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "guardrails.md"


def _measure() -> Any:
    spec = importlib.util.spec_from_file_location("measure", HERE / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure = _measure()


@pytest.mark.parametrize(("rail", "detectors", "precision", "recall"), [("pii", PII, 0.90, 0.85), ("secrets", SECRETS, 1.00, 0.88)])
def test_personal_data_and_secrets_are_found(rail: str, detectors: Any, precision: float, recall: float) -> None:
    right, wrong, missed = (counter.total() for counter in measure.compare(rail, detectors))
    assert right / (right + wrong) >= precision
    assert right / (right + missed) >= recall


def test_injections_are_flagged_more_often_than_not() -> None:
    right, wrong, missed = measure.injection()
    assert right / (right + wrong) >= 0.75
    assert right / (right + missed) >= 0.70


def test_every_kind_of_secret_is_in_the_corpus() -> None:
    labelled = {kind for entry in measure.corpus("secrets") for kind, _ in entry["finds"]}
    assert {detector.kind for detector in SECRETS} <= labelled
    assert {detector.kind for detector in PII} == {kind for entry in measure.corpus("pii") for kind, _ in entry["finds"]}


def test_the_table_in_the_documentation_is_the_measured_one() -> None:
    shown = re.search(r"<!-- measured -->\n(.*)\n<!-- /measured -->", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown[1] == measure.table()


HOSTILE = {
    "an endless local part": "a." * 250_000 + "@",
    "digits": "4 " * 250_000,
    "digits and dashes": "1-" * 250_000,
    "colons": "ab:" * 160_000,
    "capital letters": "AB12 " * 100_000,
    "dots": "1." * 250_000,
    "half tokens": "eyJ" * 160_000 + "AKIA" * 1000 + "sk-" * 1000,
    "schemes": "a://b:" * 80_000,
    "keys without end": "-----BEGIN PRIVATE KEY-----\n" * 18_000,
    "aws and secret": "aws secret " * 45_000,
    "bearers": "bearer " * 70_000,
    "brackets": "(415) " * 80_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_half_a_megabyte_of_hostile_text_is_read_in_a_moment(text: str) -> None:
    begun = time.process_time()
    scan(text, PII + SECRETS)
    assert time.process_time() - begun < 2
