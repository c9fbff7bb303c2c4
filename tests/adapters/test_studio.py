"""`langgraph dev` serves the agent, offline: LangGraph's own server, in a process of its own, with its SDK and RemoteGraph."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client

ROOT = Path(__file__).parents[2]
NOT_OURS = ("AGENT_GRAPH_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "LANGSMITH_API_KEY", "LANGSMITH_TRACING")
WITH_A_SAVER = """
from agent_graph import create_production_agent

graph = create_production_agent("offline").graph
"""

pytestmark = pytest.mark.server


def start(config: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port), "--config", str(config)]
    environment = {key: value for key, value in os.environ.items() if key not in NOT_OURS}
    environment |= {"AGENT_GRAPH_STORAGE": str(folder / "runs.db"), "PYTHONWARNINGS": "ignore"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    return process, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    process, url = start(ROOT / "langgraph.json", folder)
    try:
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{url}/ok", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            pytest.fail((folder / "server.log").read_text(errors="replace"))
        assert process.poll() is None, (folder / "server.log").read_text(errors="replace")
        yield url
    finally:
        process.terminate()
        process.wait()


async def test_the_sdk_runs_streams_and_reads_the_state(server: str) -> None:
    async with get_client(url=server) as client:
        thread = await client.threads.create()
        given = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
        nodes = [
            node
            async for part in client.runs.stream(thread["thread_id"], "agent", input=given, stream_mode="updates")
            if part.event == "updates"
            for node in part.data
        ]
        state = await client.threads.get_state(thread["thread_id"])
        messages = state["values"]["messages"]  # type: ignore[call-overload]  # of a dict
        assert nodes == ["load_memory", "call_model", "run_tool", "call_model", "finish"]
        assert [message["type"] for message in messages] == ["human", "ai", "tool", "ai"]
        await client.runs.wait(thread["thread_id"], "agent", input={"messages": [{"role": "user", "content": "And what is 17% of 2,400?"}]})
        history = await client.threads.get_history(thread["thread_id"], limit=50)
        assert len(history[0]["values"]["messages"]) > len(messages)  # type: ignore[call-overload]  # the SDK's values may be a list; these are a dict


async def test_a_remote_graph_is_a_graph(server: str) -> None:
    async with get_client(url=server) as client:
        remote = RemoteGraph("agent", client=client)
        out: Any = await remote.ainvoke({"messages": [{"role": "user", "content": "What is the weather in Paris?"}]})
    assert "Paris" in out["messages"][-1]["content"]


def test_a_graph_with_a_saver_is_refused_in_words(tmp_path: Path) -> None:
    """The server brings a saver of its own. docs/langchain.md says how to hand over the loop without ours."""
    (tmp_path / "saved.py").write_text(WITH_A_SAVER)
    (tmp_path / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": {"agent": "./saved.py:graph"}}))
    process, _ = start(tmp_path / "langgraph.json", tmp_path)
    try:
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    assert "includes a custom checkpointer" in (tmp_path / "server.log").read_text(errors="replace")
