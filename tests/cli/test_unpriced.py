"""A server of one's own has no price: that is said, and never looks like zero."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_graph.cli import main

pytestmark = pytest.mark.slow


class OneAnswer(BaseHTTPRequestHandler):
    """A server that speaks OpenAI's protocol and has one model with one answer, "It is sunny."."""

    fails = False

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}))

    def do_POST(self) -> None:
        if self.fails:
            self.send_error(504)
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("stream"):
            self._send("text/event-stream", "".join(f"data: {json.dumps(c)}\n\n" for c in chunks()) + "data: [DONE]\n\n")
        else:
            self._send("application/json", json.dumps(whole()))

    def _send(self, kind: str, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


USAGE = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}


def whole() -> dict[str, Any]:
    message = {"role": "assistant", "content": "It is sunny."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice], "usage": USAGE}


def chunks() -> Iterator[dict[str, Any]]:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    for delta, reason in (
        ({"role": "assistant", "content": "It is "}, None),
        ({"content": "sunny."}, None),
        ({}, "stop"),
    ):
        yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    yield {**base, "choices": [], "usage": USAGE}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OneAnswer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_port}/v1"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        yield url
        listening.shutdown()


def test_a_model_without_a_price_is_unpriced(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "What is the weather?", "--run-id", "r1"]) == 0
    out = capsys.readouterr().out
    assert f"model: tiny at {server} (unpriced) because it is the first model of OPENAI_BASE_URL" in out
    assert "complete: 1 step, 0 tool calls, 105 tokens, unpriced, " in out
    main(["runs"])
    main(["show", "r1"])
    later = capsys.readouterr().out
    assert later.count("unpriced") == 2
    assert "$" not in later


def test_a_call_without_a_price_that_failed_is_unpriced_too(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway's timeout says nothing of what the model behind it did: it was shown as $0.00."""
    monkeypatch.setattr(OneAnswer, "fails", True)
    assert main(["run", "What is the weather?", "--run-id", "r1", "--max-cost-usd", "0.10"]) == 1
    out = capsys.readouterr().out
    assert "failed: 0 steps, 0 tool calls, 0 tokens, unpriced, " in out
    warning = next(line for line in out.splitlines() if line.startswith("warning: "))
    assert "tiny has no price that is known" in warning
    main(["runs"])
    main(["show", "r1"])
    later = capsys.readouterr().out.replace(warning, "")
    assert later.count("unpriced") == 2
    assert "$" not in later
