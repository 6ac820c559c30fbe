"""Videos that tests make, their frames, and a server on this machine that sends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from serving import running

SIZE = (96, 64)


def make(path: Path, frames: int = 10, codec: str = "mp4v", rate: float = 12.5) -> Path:
    """A video whose frame number i has the brightness 20 * (i % 10), with a light square that goes to the right."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), rate, SIZE)
    for i in range(frames):
        writer.write(frame(i)[:, :, ::-1])
    writer.release()
    return path


def frame(index: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    picture = np.full((SIZE[1], SIZE[0], 3), 20 * (index % 10), np.uint8)
    picture[20:40, 10 + 4 * (index % 10) : 30 + 4 * (index % 10)] = (255, 240, 200)
    return picture


def frames(path: Path) -> list[np.ndarray]:
    """All frames of a video, RGB."""
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1][:, :, ::-1])
    capture.release()
    return found


class Camera(BaseHTTPRequestHandler):
    """/film.mp4 is a file, which may be asked for in parts; /live sends pictures without an end; /what is a film."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/live":
            return self.live()
        if path not in ("/film.mp4", "/what", "/page.mp4"):
            return self.send_error(404)
        data, kind = (b"<html>", "text/html") if path == "/page.mp4" else (self.server.film, "video/mp4")
        start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1 if end else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def live(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        i = 0
        while not self.server.closing.is_set():
            picture = cv2.imencode(".jpg", frame(i % 10))[1].tobytes()
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
            self.wfile.write(picture + b"\r\n")
            i += 1
            time.sleep(0.02)

    def log_message(self, *words):
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Those who have seen enough leave early."""


@contextmanager
def served(film: bytes = b"") -> Iterator[str]:
    """The address of a server with a film, a camera, and nothing else."""
    server = Quiet(("127.0.0.1", 0), Camera)
    server.film, server.closing = film, threading.Event()
    with running(server, server.closing):
        yield f"http://127.0.0.1:{server.server_port}"
