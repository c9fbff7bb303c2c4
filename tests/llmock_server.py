"""llmock, an OpenAI-compatible server that others wrote, as a child process on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

_FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start the server and yield its URL; its end is waited for."""
    port = subprocess.run([sys.executable, "-c", _FREE_PORT], capture_output=True, text=True, check=True).stdout.strip()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from llmock.cli import app; app()", "serve", "--port", port]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/_llmock/requests", timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError("llmock did not start within a minute")


def script(url: str, *behaviors: dict[str, Any]) -> None:
    """Reset the server and tell it how to behave from now on; without behaviors it answers well."""
    scenario = [("/_llmock/scenario", {"behaviors": list(behaviors)})] if behaviors else []
    for path, body in [("/_llmock/reset", {}), *scenario]:
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()


def requests(url: str) -> list[Any]:
    """Return what the server was asked since the last `script`."""
    with urllib.request.urlopen(f"{url}/_llmock/requests", timeout=5) as response:
        log = json.load(response)
    found: list[Any] = log["requests"] if isinstance(log, dict) else log
    return found
