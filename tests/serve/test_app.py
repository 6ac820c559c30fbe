"""What a server answers: right detections to good requests, a sentence to all others."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any

import httpx
import numpy as np
from PIL import Image
from served import Held, picture, running
from webpages import Page

from fcos_d2.data.images import decode
from fcos_d2.serve.limits import Limits
from fcos_d2.serve.service import Service

GOOD = [
    picture(64, 48),
    picture(48, 64, "JPEG"),
    picture(64, 48, "WEBP", 1),
    picture(80, 40, "BMP"),
    picture(90, 90, "GIF"),
]
IHDR = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
IDAT = struct.pack(">I", 10) + b"IDAT" + bytes(14)
BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + IHDR + struct.pack(">I", zlib.crc32(IHDR)) + IDAT


def expected(predictor: Any, data: bytes) -> list[dict[str, Any]]:
    return predictor.describe(predictor(decode(io.BytesIO(data), "it"), "RGB")["instances"])


def assert_equal(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """The same objects; pictures of a batch differ by rounding from the same one by one, and so may their order."""
    assert len(found) == len(wanted)
    for row in wanted:
        like = [one for one in found if one["class"] == row["class"] and abs(one["score"] - row["score"]) < 1e-5]
        assert any(np.allclose(one["box"], row["box"], rtol=0, atol=2e-3) for one in like), row


def test_many_clients_get_what_the_predictor_finds(client: httpx.Client, predictor: Any) -> None:
    """As a form or as the body, of several sizes at a time, broken ones among them."""
    wanted = [expected(predictor, data) for data in GOOD]
    assert all(wanted)

    def ask(number: int) -> None:
        data = GOOD[number % len(GOOD)]
        if number % 7 == 3:
            answer = client.post("/detect", content=data[: len(data) // 2])
            assert answer.status_code == 422 and answer.json()["error"].endswith("."), answer.text
            return
        body = {"files": {"file": ("one.png", data)}} if number % 2 else {"content": data}
        answer = client.post("/detect", **body)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["image"] == ("one.png" if number % 2 else None) and 1 <= said["batch"] <= 4
        assert (said["width"], said["height"]) == Image.open(io.BytesIO(data)).size
        assert_equal(said["detections"], wanted[number % len(GOOD)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))


def test_threshold_and_drawn_picture(client: httpx.Client, predictor: Any) -> None:
    wanted = expected(predictor, GOOD[0])
    least = sorted(row["score"] for row in wanted)[len(wanted) // 2] - 1e-6
    both = client.post("/detect", params={"threshold": least, "answer": "both"}, content=GOOD[0]).json()
    assert 0 < len(both["detections"]) < len(wanted)
    assert both["detections"][0]["label"] == predictor.class_names.index(both["detections"][0]["class"])
    link = both.pop("picture")
    assert link.startswith("data:image/jpeg;base64,")
    alone = client.post("/detect", params={"threshold": least, "answer": "picture"}, content=GOOD[0])
    assert alone.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(alone.content)) as drawn:
        assert drawn.size == (64, 48) and not np.array_equal(np.asarray(drawn), decode(io.BytesIO(GOOD[0]), "it"))


PRINT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF"  # Pillow runs a program for it
BROKEN = {
    "nothing": ({"content": b""}, 400, "holds no picture"),
    "words": ({"content": b"hello"}, 422, "not a picture"),
    "half a picture": ({"content": GOOD[1][: len(GOOD[1]) // 2]}, 422, "cannot be read"),
    "a program for a printer": ({"content": PRINT}, 422, "EPS"),
    "too many bytes": ({"content": bytes(200_001)}, 413, "200,000 bytes"),
    "too many bytes, of no said length": ({"content": iter([bytes(150_000)] * 2)}, 413, "200,000 bytes"),
    "a bomb": ({"content": BOMB}, 413, "60000x60000 pixels"),
    "too many pixels": ({"content": picture(300, 200)}, 413, "more than 50,000"),
    "a form of nothing": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
    "half a form": ({"content": b"--a", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "form"),
    "another field": ({"files": {"photo": ("a.png", GOOD[0])}}, 400, "`file`"),
    "words in the field": ({"data": {"file": "a.png"}, "files": {"b": b""}}, 400, "`file`"),
    "two files": ({"files": [("file", ("a.png", GOOD[0])), ("file", ("b.png", GOOD[0]))]}, 400, "Too many files"),
    "an empty file": ({"files": {"file": ("a.png", b"")}}, 400, "empty"),
    "no JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, '"url"'),
    "deep JSON": ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, '"url"'),
    "a path": ({"json": {"path": "/etc/passwd"}}, 400, '"url"'),
    "an address": ({"json": {"url": "https://example.org/a.jpg"}}, 403, "send the picture itself"),
    "a threshold": ({"content": GOOD[0], "params": {"threshold": "2"}}, 422, "threshold is wrong"),
    "not a number": ({"content": GOOD[0], "params": {"threshold": "nan"}}, 422, "threshold is wrong"),
    "another answer": ({"content": GOOD[0], "params": {"answer": "xml"}}, 422, "answer is wrong"),
}  # fmt: skip


def test_what_is_broken_is_refused_in_a_sentence() -> None:
    """Each one, and afterwards the server is as it was."""
    service = Service(Held(held=False), Limits(bytes=200_000, pixels=50_000))
    with running(service) as client:
        for name, (request, status, words) in BROKEN.items():
            answer = client.post("/detect", **request)
            assert answer.status_code == status, (name, answer.text)
            said = answer.json()["error"]
            assert words in said and said.endswith(".") and "\n" not in said, (name, said)
        assert service.engine.seen == []
        assert client.post("/detect", content=picture()).json()["detections"][0]["box"] == [0, 0, 64, 48]
        for path, method, status in (
            ("/nowhere", "GET", 404),
            ("/../../etc/passwd", "GET", 404),
            ("/detect", "GET", 405),
        ):
            answer = client.request(method, path)
            assert answer.status_code == status and "see /docs" in answer.json()["error"]
    assert service.metrics.accepted == service.metrics.answered


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with running(Service(Held(held=False), Limits(timeout=0.2))) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), 60) as slow:
            slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
            answer = b""
            while b"0.2 s" not in answer and (piece := slow.recv(4096)):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_state(client: httpx.Client, predictor: Any) -> None:
    assert client.get("/healthz").json() == {"status": "alive"} and client.get("/readyz").json() == {"status": "ready"}
    model = client.get("/model").json()
    assert [row["name"] for row in model["classes"]] == list(predictor.class_names)
    assert (model["model"], model["engine"], model["threshold"], model["addresses"]) == ("w.pth", "torch", 0.3, False)
    before = client.get("/metrics").text
    client.post("/detect", content=GOOD[0])
    client.post("/detect", content=b"x")
    text = client.get("/metrics").text

    def value(name: str, text: str = text) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    for name in ('fcos_requests_total{status="200"}', 'fcos_requests_total{status="422"}', "fcos_engine_seconds_count"):
        assert value(name) == value(name, before) + 1
    assert value("fcos_requests_in_work") == value("fcos_pictures_waiting") == 0
    assert "fcos_objects_total{" in text and "process_resident_memory_bytes" in text


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_pages_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/detect", "/model", "/healthz", "/readyz", "/metrics"} == set(schema["paths"])
    body = schema["paths"]["/detect"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/octet-stream", "application/json"}
    docs = client.get("/docs")
    page = Page(docs.text)
    assert page.scripts == 0 and all(path in docs.text for path in schema["paths"])
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert set(Links(answer.text).found) <= {"data:,", "docs", "openapi.json", "./"}
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.search(r"https?://(?!www\.w3\.org)\w", answer.text)
    assert json.loads(json.dumps(schema)) == schema
