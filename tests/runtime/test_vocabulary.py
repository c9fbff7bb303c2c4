"""An exact tokenizer only where its vocabulary lies on the machine, and never the network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken

from agent_graph import create_production_agent
from agent_graph.runtime import vocabulary
from agent_graph.runtime.vocabulary import exact_counter
from agent_graph.types import Message, MessageRole

BYTES = tiktoken.Encoding("o200k_base", pat_str=r"(?s).", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={})
"""A tokenizer for which a byte is a token."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file that passes for o200k_base's vocabulary."""
    monkeypatch.setitem(vocabulary._CONTENTS, "o200k_base", hashlib.sha256(b"a vocabulary").hexdigest())
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: BYTES if name == "o200k_base" else None)
    (folder / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(b"a vocabulary")
    return folder


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-4.1", "o4-mini-2025-04-16", "ft:gpt-4o:acme"])
def test_a_model_whose_vocabulary_is_here_is_counted_exactly(cached: Path, model: str) -> None:
    counter = exact_counter(model, "openai")
    assert counter is not None
    assert counter("Grüße") == 7
    assert counter("") == 0
    assert counter("\ud800") > 0


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-4", "openai"), ("llama3.2:1b", "openai"), ("gpt-5-mini", "ollama"), ("gpt-5-mini", None), ("claude-haiku-4-5", "anthropic")],
)
def test_any_other_model_is_estimated(cached: Path, model: str, provider: str | None) -> None:
    assert exact_counter(model, provider) is None


@pytest.mark.parametrize("contents", [b"", b"<html>a proxy's error page</html>", None], ids=["empty", "something else", "no file"])
def test_a_file_that_is_not_the_vocabulary_is_left_alone(folder: Path, contents: bytes | None) -> None:
    """tiktoken would delete it and fetch another."""
    file = folder / "fb374d419588a4632f3f557e76b4b70aebbca790"
    if contents is not None:
        file.write_bytes(contents)
    assert exact_counter("gpt-5-mini", "openai") is None
    assert file.exists() == (contents is not None)


def test_a_file_that_comes_later_is_seen(cached: Path) -> None:
    file = cached / "fb374d419588a4632f3f557e76b4b70aebbca790"
    file.write_bytes(b"half a voc")
    assert exact_counter("gpt-5-mini", "openai") is None
    file.write_bytes(b"a vocabulary")
    os.utime(file, (1, 1))
    assert exact_counter("gpt-5-mini", "openai") is not None


def test_no_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert exact_counter("gpt-5-mini", "openai") is None


@pytest.mark.slow
async def test_an_agent_counts_with_it(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    messages = [Message(MessageRole.USER, "Grüße")]
    async with create_production_agent("openai:gpt-5-mini", storage=":memory:") as exact:
        assert exact.count(None, messages) == 4 + 7
    async with create_production_agent("openai:gpt-4", storage=":memory:") as estimated:
        assert estimated.count(None, messages) != 4 + 7


_ASKS_THE_NETWORK = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append((event, args)) if event in ("socket.connect", "socket.getaddrinfo") else None)
from agent_graph import create_production_agent
from agent_graph.types import Message, MessageRole
agent = create_production_agent("openai:gpt-5-mini", storage=":memory:")
assert agent.count(None, [Message(MessageRole.USER, "Hello there. " * 1_000)]) > 2_000
assert agent.count_text("Hello") > 0
print(asked)
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False], ids=["an empty folder", "tiktoken's own folder"])
def test_no_socket_is_opened(tmp_path: Path, given: bool) -> None:
    """ChatOpenAI's own count takes 12 seconds offline, and fails."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TIKTOKEN", "DATA_GYM"))}
    env |= {"OPENAI_API_KEY": "k", "TMPDIR": str(tmp_path)} | ({"TIKTOKEN_CACHE_DIR": str(tmp_path)} if given else {})
    done = subprocess.run([sys.executable, "-c", _ASKS_THE_NETWORK], env=env, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"
