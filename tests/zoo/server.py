"""A local HTTP server that serves one file, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What is served, how, and what was asked.

    Attributes:
        content: bytes of the file.
        tag: its ETag; empty for none.
        ranges: whether parts of it can be asked for.
        drops: bytes after which the connection of each of the first requests is closed.
        statuses: answers to the first requests in place of the file.
        says: Content-Length, if it is not that of the content.
        sent: bytes of each body that were sent.
        asked: Range of each request; empty for none.
    """

    content: bytes = b""
    tag: str = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    says: int | None = None
    part: str = ""
    url: str = ""
    sent: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.asked.append(asked)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if asked and request.headers.get("If-Range") not in (None, self.tag):
            start = 0
        if start and start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            part = self.part or f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", part)
        if self.tag:
            request.send_header("ETag", self.tag)
        request.send_header("Content-Length", str(self.says if self.says is not None else len(body)))
        request.end_headers()
        if self.drops:
            body = body[: self.drops.pop(0)]
        self.sent.append(len(body))
        request.wfile.write(body)
        request.close_connection = True


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    """A server on this machine, in a thread of its own; `settings` as in Server."""
    shared = Server(**settings)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shared.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    shared.url = f"http://127.0.0.1:{server.server_port}/files/weights.pth"
    try:
        yield shared
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
