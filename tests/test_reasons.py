"""Whoever makes an exception to a rule of the linter or of the type checkers says why, beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SILENT = re.compile(r"# (type: ignore|pyright: ignore|noqa)(\[[^]]*\]|: ?[A-Z0-9, ]+)?\s*$")


def test_no_exception_is_made_in_silence() -> None:
    files = [path for folder in ("agent_graph", "adapters", "tests", "tools") for path in (ROOT / folder).rglob("*.py")]
    lines = [(path, number, line) for path in files for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
    assert len(files) > 300, "the folders are where they are looked for"
    assert [f"{path.relative_to(ROOT)}:{number}" for path, number, line in lines if SILENT.search(line)] == []


@pytest.mark.parametrize("mark", ["type: ignore", "type: ignore[arg-type]", "pyright: ignore[reportX]", "noqa", "noqa: S608, E501"])
def test_the_check_sees_one(mark: str) -> None:
    assert SILENT.search(f"x = 1  # {mark}")
    assert not SILENT.search(f"x = 1  # {mark}  # it is meant")
