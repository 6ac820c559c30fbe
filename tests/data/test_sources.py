from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from fcos_d2.data.sources import Source, download, expand, kind_of, read
from fcos_d2.errors import FcosError


def png(color=(200, 10, 30), size=(5, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


class Site(BaseHTTPRequestHandler):
    """A server with an answer for each path."""

    def do_GET(self):
        answers = {
            "/a.png": (200, "image/png", png()),
            "/odd": (200, "application/octet-stream", png()),
            "/page": (200, "text/html", b"<html>"),
            "/text.png": (200, "image/png", b"no image"),
            "/gone.png": (404, "text/plain", b""),
        }
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        elif self.path == "/endless":  # says no length
            self.send_response(200)
            self.end_headers()
            for _ in range(64):
                self.wfile.write(bytes(1 << 14))
        elif self.path == "/silent":
            self.server.closing.wait(60)
        else:
            code, kind, body = answers[self.path]
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *words):
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that leave early are part of the test."""


@pytest.fixture(scope="module")
def site():
    server = QuietServer(("127.0.0.1", 0), Site)
    server.closing = threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["/a.png", "/odd", "/elsewhere"])
def test_address_gives_the_image(site, path):
    pixels = read(Source(site + path), 1 << 20, 30.0)
    assert pixels.shape == (4, 5, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [200, 10, 30]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/page", "is a web page, not an image"),
        ("/text.png", "cannot be read: it is not an image"),
        ("/gone.png", "the server answers 404"),
        ("/to-file", "cannot be fetched"),
        ("/silent", "no answer within 0.3 s"),
        ("/endless", "is larger than"),
    ],
)
def test_address_without_an_image(site, path, complaint):
    with pytest.raises(FcosError, match=complaint) as info:
        read(Source(site + path), 100_000, 0.3 if path == "/silent" else 30.0)
    assert site + path in str(info.value) and "\n" not in str(info.value)


def test_announced_size_counts_before_the_download(site):
    with pytest.raises(FcosError, match="larger than"):
        download(site + "/a.png", 10, 30.0)


@pytest.mark.parametrize("address", ["ftp://example.org/a.jpg", "file:///etc/hostname"])
def test_only_http(address):
    with pytest.raises(FcosError, match="only http:// and https://"):
        download(address, 100, 1.0)


def test_nobody_there():
    with pytest.raises(FcosError, match="cannot be reached: "):
        download("http://127.0.0.1:9/a.jpg", 100, 1.0)


def test_folder_is_its_images_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "deep/c.jpeg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png())
    found = [source.where for source in expand([str(tmp_path), "http://x/y.jpg", "z.jpg"])]
    assert found == [*(str(tmp_path / name) for name in ("a.jpg", "b.PNG", "deep/c.jpeg")), "http://x/y.jpg", "z.jpg"]


def test_files_that_systems_leave_behind_are_no_images(tmp_path):
    """A Mac's resource forks, a Windows folder's thumbnails, hidden caches: what an archive carries along."""
    left = ("._a.jpg", "__MACOSX/a.jpg", "__MACOSX/deep/._a.jpg", "Thumbs.db", ".thumbnails/a.png", "deep/.DS_Store")
    for name in (*left, "a.jpg", "deep/c.jpeg"):
        path = tmp_path / ".hidden by its owner" / name  # the folder itself is named, so it counts
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(png())
    folder = tmp_path / ".hidden by its owner"
    assert [source.where for source in expand([str(folder)])] == [str(folder / "a.jpg"), str(folder / "deep/c.jpeg")]
    (folder / "a.jpg").unlink()
    (folder / "deep/c.jpeg").unlink()
    with pytest.raises(FcosError, match="holds no image"):
        expand([str(folder)])


def test_folder_without_images(tmp_path):
    with pytest.raises(FcosError, match="holds no image"):
        expand([str(tmp_path)])


@pytest.mark.parametrize(
    ("where", "stem"),
    [
        ("a/street 1.jpg", "street 1"),
        ("https://x.org/d/cat.png?size=9", "cat"),
        ("https://x.org/", "image"),
        ("https://x.org/..%2F..%2Fetc", "etc"),
        ("https://x.org/a%00b:c.jpg", "a_b_c"),
    ],
)
def test_stem_is_a_safe_file_name(where, stem):
    assert Source(where).stem == stem


def test_patterns_lists_and_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpg", "deep/c.jpeg", "deep/er/d.mp4", "notes.txt", "deep/.e.jpg", "x[1].png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(png())

    def found(*words):
        return [source.where for source in expand(words)]

    assert found("*.jpg") == ["a.jpg"]
    assert found("*") == ["a.jpg", "b.PNG", "x[1].png", "deep/c.jpeg", "deep/er/d.mp4"]
    assert found("**/*.*") == ["a.jpg", "b.PNG", "deep/c.jpeg", "deep/er/d.mp4", "x[1].png"]
    assert found("x[1].png") == ["x[1].png"]  # a file of that name comes first
    assert found("deep") == ["deep/c.jpeg", "deep/er/d.mp4"]
    lines = "# mine\n\na.jpg\n  deep/*.jpeg  \nhttp://x/y z.jpg\ngone.png\nlist.txt\n0\n"
    expected = ["a.jpg", "deep/c.jpeg", "http://x/y z.jpg", "gone.png", "list.txt", "0"]
    for text in (lines.encode(), lines.replace("\n", "\r\n").encode("utf-8-sig"), lines.encode("utf-16")):
        (tmp_path / "list.txt").write_bytes(text)
        assert found("list.txt") == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert found("-", "b.PNG") == [*expected, "b.PNG"]
    (tmp_path / "deep" / "list.txt").write_text("c.jpeg\n./er/d.mp4\n")  # beside the list
    assert found("deep/list.txt") == ["deep/c.jpeg", "deep/er/d.mp4"]
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "odd.txt").write_bytes(b"GIF\0")
    for word, says in (
        ("*.gif", "nothing"), ("*.txt", "no image or video, but 4"), ("empty.txt", "names no image"),
        ("odd.txt", "The list odd.txt is not text"), ("", "An empty name stands for no image"),
    ):  # fmt: skip
        with pytest.raises(FcosError, match=says):
            expand([word])


@pytest.mark.parametrize(
    ("where", "kind", "camera"),
    [
        ("0", "live", 0), ("webcam", "live", 0), ("webcam:2", "live", 2), ("rtsp://x/1", "live", None),
        ("a/B.MP4", "video", None), ("https://x.org/a.mp4?x=1.jpg", "video", None), ("http://x/a.m3u8", "video", None),
        ("a.jpg", "image", None), ("https://x.org/a.JPG", "image", None), ("ftp://x/a", "image", None),
        ("100", "image", None),
    ],
)  # fmt: skip
def test_kinds(where, kind, camera):
    assert kind_of(Source(where)) == kind and Source(where).camera == camera


def test_a_file_that_is_called_0_is_no_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_bytes(png())
    assert kind_of(Source("0")) == "image" and Source("0").stem == "0" and Source("1").stem == "webcam-1"


@pytest.mark.parametrize(("path", "kind"), [("/a.png", "image"), ("/odd", "image"), ("/page", "image")])
def test_kinds_of_addresses(site, path, kind):
    assert kind_of(Source(site + path), 30.0) == kind
