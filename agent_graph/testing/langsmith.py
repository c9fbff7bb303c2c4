"""A LangSmith that stands on this machine: what the SDK sends is kept, and can be looked at as the tree that a person would see.

The SDK is real and knows nothing of it; it is told by environment variables alone, as in production. The server speaks the part of
LangSmith's API that tracing uses: `GET /info`, and `POST /runs/multipart`, whose parts are named `<post|patch>.<run id>[.<field>]`.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

__all__ = ["LangSmithServer", "TracedRun"]

_INFO = {
    "version": "0.0.0",
    "instance_flags": {"zstd_compression_enabled": True},
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_000_000,
        "scale_up_qsize_trigger": 1_000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
    },
}
"""What the SDK asks for before it sends."""


@dataclass(slots=True)
class TracedRun:
    """One run of a trace, as LangSmith was told of it."""

    id: str
    fields: dict[str, Any] = field(default_factory=dict)
    """Everything: `inputs`, `outputs`, `error`, `tags`, `dotted_order`, `extra`, ..."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.fields.get("name"))

    @property
    def kind(self) -> str:
        """chain, llm, tool, ..."""
        return str(self.fields.get("run_type"))

    @property
    def parent_id(self) -> str | None:
        """None for the root of a trace."""
        return self.fields.get("parent_run_id")

    @property
    def metadata(self) -> dict[str, Any]:
        """`thread_id`, `ls_model_name`, ..."""
        found: dict[str, Any] = (self.fields.get("extra") or {}).get("metadata") or {}
        return found

    @property
    def usage(self) -> dict[str, Any] | None:
        """The tokens of a model call, where LangSmith looks for them."""
        found: dict[str, Any] | None = (self.fields.get("outputs") or {}).get("usage_metadata") or self.metadata.get("usage_metadata")
        return found


class LangSmithServer:
    """A LangSmith on loopback. Use it in `with`, and start what is to be traced with `environment`.

    ```python
    from agent_graph.testing import LangSmithServer

    with LangSmithServer() as langsmith:
        ...  # run a program with {**os.environ, **langsmith.environment}
        print(langsmith.tree())
    ```
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, TracedRun] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="langsmith", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make the SDK trace to this server."""
        host, port = self._server.server_address[:2]
        return {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_ENDPOINT": f"http://{host!s}:{port}",
            "LANGSMITH_API_KEY": "none",
            "LANGSMITH_PROJECT": "test",
        }

    @property
    def runs(self) -> list[TracedRun]:
        """Every run so far, each before those inside it, siblings in the order in which they began."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: str(run.fields.get("dotted_order")))

    def children(self, of: TracedRun | None) -> list[TracedRun]:
        """Return the runs directly inside `of`, in order; None: the roots."""
        return [run for run in self.runs if run.parent_id == (None if of is None else of.id)]

    def tree(self) -> str:
        """Return all traces as a person would see them: "kind name", indented."""
        lines: list[str] = []

        def add(run: TracedRun, depth: int) -> None:
            failed = " !" if run.fields.get("error") else ""
            lines.append(f"{'  ' * depth}{run.kind} {run.name}{failed}")
            for child in self.children(run):
                add(child, depth + 1)

        for root in self.children(None):
            add(root, 0)
        return "\n".join(lines)

    def take(self, content_type: str, body: bytes) -> None:
        """Keep what one `POST /runs/multipart` brought."""
        whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        for part in whole.iter_parts():
            operation, run_id, *name = str(part.get_param("name", header="content-disposition")).split(".", 2)
            if operation not in ("post", "patch"):
                continue
            value = json.loads(cast("bytes", part.get_payload(decode=True)))
            with self._lock:
                run = self._runs.setdefault(run_id, TracedRun(run_id))
                news = {name[0]: value} if name else value
                run.fields.update({key: item for key, item in news.items() if item is not None})


def _handler_of(server: LangSmithServer) -> type[BaseHTTPRequestHandler]:
    import zstandard  # the SDK's own dependency

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, _INFO)

        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("Content-Encoding") == "zstd":
                body = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
            if self.path.endswith("/runs/multipart"):
                server.take(self.headers.get("Content-Type", ""), body)
            self._answer(202, {})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's own name
            """Say nothing."""

    return Handler
