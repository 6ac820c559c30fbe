"""A server on this machine in the place of those that published weights lie on, good or bad in every way."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import running


@dataclass
class Served:
    """A file and how it is served.

    Attributes:
        content: bytes.
        ranges: whether the server sends pieces that it is asked for.
        stop_after: bytes after which the connection ends, of each answer; 0 sends all.
        stall_after: bytes after which nothing comes any more.
        bytes_per_second: 0 sends as fast as it can.
        status: instead of 200.
        kind: its Content-Type.
        location: send there instead.
        headers: more.
        etag: whether it says which version of the file it is.
    """

    content: bytes = b""
    ranges: bool = True
    stop_after: int = 0
    stall_after: int = 0
    bytes_per_second: float = 0
    status: int = 200
    kind: str = "application/octet-stream"
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    etag: bool = True


class Publisher:
    """Files by their paths, and the requests that came: (path, Range header)."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()

    def serve(self, path: str, content: bytes = b"", **how: object) -> Served:
        self.files[f"/{path.lstrip('/')}"] = served = Served(content, **how)  # type: ignore[arg-type]
        return served

    @property
    def sent(self) -> list[str]:
        """Range headers of the requests."""
        return [wanted for _, wanted in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        publisher = self.server.publisher
        path = self.path.partition("?")[0]
        publisher.requests.append((path, self.headers.get("Range", "")))
        served = publisher.files.get(path)
        if served is None:
            self.send_error(404)
        elif served.location:
            self.send_response(302)
            self.send_header("Location", served.location)
            self._more(served)
            self.end_headers()
        elif served.status != 200:
            self.send_error(served.status)
        else:
            self._send(served)

    def _more(self, served: Served) -> None:
        for name, value in served.headers.items():
            self.send_header(name, value)

    def _send(self, served: Served) -> None:
        content, begin = served.content, 0
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and served.ranges and self.headers.get("If-Range", tag) == tag:
            begin = int(asked[1])
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if served.etag:
            self.send_header("ETag", tag)
        self.send_header("Content-Type", served.kind)
        self.send_header("Content-Length", str(len(content) - begin))
        self._more(served)
        self.end_headers()
        self._body(served, content[begin:])

    def _body(self, served: Served, content: bytes) -> None:
        end = served.stop_after or served.stall_after or len(content)
        piece = max(1, int(served.bytes_per_second / 20)) if served.bytes_per_second else 1 << 16
        for at in range(0, min(end, len(content)), piece):
            self.wfile.write(content[at : min(at + piece, end)])
            if served.bytes_per_second:
                time.sleep(0.05)
        if served.stall_after and served.stall_after < len(content):
            self.wfile.flush()
            self.server.publisher.closing.wait(60)
        self.close_connection = True

    def log_message(self, *words: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    publisher: Publisher

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are part of the tests."""


@contextmanager
def publisher(host: str = "127.0.0.1", port: int = 0) -> Iterator[Publisher]:
    server = _Server((host, port), _Handler)
    server.publisher = Publisher(f"http://{host}:{server.server_port}")
    with running(server, server.publisher.closing):
        yield server.publisher
