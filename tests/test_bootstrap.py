"""tools/bootstrap.py: the first way that works is taken, what a failed one left is removed, and nothing else is."""

import sys
from pathlib import Path

import pytest

from tools import bootstrap


def broken_half_way(target: Path) -> None:
    """a broken way"""
    (target / "bin").mkdir(parents=True)
    (target / "left_over").touch()
    raise bootstrap.NotPossible("it broke")


def without_pip(target: Path) -> None:
    """a way that forgets pip"""
    bootstrap.run([sys.executable, "-m", "venv", "--without-pip", str(target)])


def this_environment(target: Path) -> None:
    """a way that works"""
    (target / "bin").mkdir(parents=True)
    python = target / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)


def test_the_first_way_that_works_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bootstrap, "WAYS", (broken_half_way, without_pip, this_environment, broken_half_way))
    assert bootstrap.main([str(tmp_path / "venv")]) == 0
    assert not (tmp_path / "venv" / "left_over").exists()
    assert "by a way that works" in capsys.readouterr().err


def test_where_none_works_it_says_why_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "WAYS", (broken_half_way, without_pip))
    assert bootstrap.main([str(tmp_path / "venv")]) == 1
    assert not (tmp_path / "venv").exists()
    said = capsys.readouterr().err
    assert "not by a broken way: it broke" in said
    assert "No module named pip" in said
    assert "apt-get install python3-venv" in said


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()
    assert bootstrap.main([str(tmp_path)]) == 1
    assert (tmp_path / "precious").exists()
    assert "no virtual environment" in capsys.readouterr().err
