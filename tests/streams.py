"""A camera with RTSP on this machine: Motion JPEG over TCP (RFC 2326, RFC 2435), as FFmpeg plays it."""

from __future__ import annotations

import io
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import films
from PIL import Image
from serving import running

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n"
    "a=framerate:25\r\na=control:track1\r\n"
)


class Camera(socketserver.StreamRequestHandler):
    """Answers one player and sends it `server.frames` pictures."""

    def handle(self) -> None:
        while request := self.request_lines():
            method = request[0].split()[0]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in request[1:])}
            lines = ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', '0')}", "Session: 1"]
            body = SDP if method == "DESCRIBE" else ""
            lines += {
                "OPTIONS": ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"],
                "DESCRIBE": ["Content-Type: application/sdp", f"Content-Length: {len(body)}"],
                "SETUP": ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1"],
            }.get(method, [])
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            if method == "PLAY":
                return self.play()

    def request_lines(self) -> list[str]:
        lines = []
        while line := self.rfile.readline().decode().strip():
            lines.append(line)
        return lines

    def play(self) -> None:
        for number in range(self.server.frames):
            if self.server.closing.is_set():
                return
            for packet in packets(number):
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(0.02)


def packets(number: int) -> Iterator[bytes]:
    """A picture as RTP packets."""
    file = io.BytesIO()
    Image.fromarray(films.frame(number % 10)).save(file, "JPEG", quality=75, subsampling=2)
    data = file.getvalue()
    tables, scan, place = b"", b"", 2
    while not scan:
        marker, length = struct.unpack(">HH", data[place : place + 4])
        if marker == 0xFFDB:  # tables of one or more, each after a byte with its number
            body = data[place + 4 : place + 2 + length]
            tables += b"".join(body[i + 1 : i + 65] for i in range(0, len(body), 65))
        if marker == 0xFFDA:
            scan = data[place + 2 + length : -2]
        place += 2 + length
    width, height = films.SIZE
    for start in range(0, len(scan), 1200):
        part = scan[start : start + 1200]
        last = start + 1200 >= len(scan)
        header = struct.pack(">I", start) + bytes([1, 255, width // 8, height // 8])
        header += struct.pack(">BBH", 0, 0, len(tables)) + tables if start == 0 else b""
        rtp = struct.pack(">BBHII", 0x80, 26 | last << 7, (number * 64 + start // 1200) & 0xFFFF, number * 3600, 7)
        yield rtp + header + part


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True

    def handle_error(self, request, client_address) -> None:
        """Players leave early."""


@contextmanager
def served(frames: int) -> Iterator[str]:
    """The address of a camera that sends so many pictures."""
    server = Server(("127.0.0.1", 0), Camera)
    server.frames, server.closing = frames, threading.Event()
    with running(server, server.closing):
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
