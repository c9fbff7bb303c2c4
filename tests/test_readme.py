"""The documentation is true: its Python runs, its links lead somewhere, its table has all names, its output is today's.

A file's ```python blocks are run in order, in one namespace, offline, in a folder of their own; `await` may stand at
the top, as in a notebook. `<!-- no-run -->` before a block leaves it out; `<!-- output-of: COMMAND -->` before a block
makes the block the command's output, compared without its run_ids and times.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import agent_graph
from agent_graph.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- (?P<note>[^\n]*) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.docs


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line, from 1."""
    note: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("text")) + 1
        yield Block(page, line, fence["note"] or "", fence["language"], fence["text"])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_block(block: Block, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    padded = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's own line
    code = compile(padded, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, namespace)
    if inspect.iscoroutine(outcome):
        runner.run(outcome)


PYTHON = {page: [b for b in blocks(page) if b.language == "python" and b.note != "no-run"] for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON[page]], ids=named)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in PYTHON[page]:
            run_block(block, namespace, runner)


def test_the_readme_has_python() -> None:
    assert len(PYTHON[ROOT / "README.md"]) >= 2


OUTPUTS = [block for page in PAGES for block in blocks(page) if block.note.startswith("output-of: ")]


def alike(output: str) -> str:
    """Return `output` without what differs from run to run: run_ids, durations, times, how old."""
    output = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "RUN_ID", output)
    output = re.sub(r"\d+(\.\d+)? (ms|s|min)\b", "TIME", output)
    output = re.sub(r"\d\d:\d\d(:\d\d)?", "CLOCK", output)
    return re.sub(r"[\d,]+ tokens so far|[\d,]+ tokens\b", "TOKENS", output).strip()


@pytest.mark.parametrize("block", OUTPUTS, ids=lambda block: f"{named(block.page)}:{block.line}")
def test_the_output_shown_is_the_output(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_GRAPH_STORAGE", raising=False)
    program, *argv = shlex.split(block.note.removeprefix("output-of: "))
    assert program == "agent-graph"
    assert main(argv) == 0
    assert alike(capsys.readouterr().out) == alike(block.text)


def test_the_readme_shows_an_output() -> None:
    assert OUTPUTS


def test_the_readme_s_table_holds_every_public_name() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The API")[1].split("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", section)) >= set(agent_graph.__all__)


def test_the_page_on_configuration_holds_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    defaults = agent_graph.AgentConfig().as_dict()
    shown = {key: re.sub(r"(?<=\d),(?=\d)|[`\"]", "", cell).split(",")[0] for key, cell in rows.items()}
    assert shown == {key: f"{default:g}" if isinstance(default, float) else str(default) for key, default in defaults.items()}


def links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = {target: (page.parent / target.partition("#")[0]).resolve() for target in links(page) if target[0] != "#"}
    assert [target for target, path in targets.items() if not path.exists()] == []


def test_the_check_sees_a_block_that_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", encoding="utf-8")
    first, second = blocks(page)
    namespace: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        run_block(first, namespace, runner)
        with pytest.raises(AssertionError) as raised:
            run_block(second, namespace, runner)
    assert raised.traceback[-1].lineno == 7  # from 0: the page's eighth line
