"""Downloads from a server on this machine that fails in every way that servers do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from publisher import Publisher, publisher

from fcos_d2.hub import http
from fcos_d2.hub.http import NoRoom, NotFetched, download

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("FCOS_D2_TIMEOUT", "1")
    monkeypatch.setattr(http, "_PAUSE", 0.01)
    with publisher() as found:
        yield found


def test_a_good_file_and_how_far_it_is(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT)
    told: list[tuple[int, int]] = []
    download(f"{host.base}/a.pth", tmp_path / "a", progress=lambda done, total: told.append((done, total)))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and len(told) > 3


@pytest.mark.parametrize("how", [{"stop_after": 100_000}, {"stall_after": 200_000}], ids=["truncated", "stalls"])
def test_what_breaks_off_goes_on_where_it_ended(how: dict, host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT, **how)
    download(f"{host.base}/a.pth", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    begins = [int(wanted.removeprefix("bytes=").rstrip("-") or 0) for wanted in host.sent]
    assert len(begins) >= 3 and begins == sorted(set(begins)) and begins[0] == 0


def test_a_server_without_ranges_sends_all_again(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT, ranges=False)
    (tmp_path / "a").write_bytes(b"x" * 1000)
    download(f"{host.base}/a.pth", tmp_path / "a", trusted=True)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert host.sent == ["bytes=1000-"]
    host.files["/a.pth"].stop_after = 1000
    with pytest.raises(NotFetched, match="broke off again and again"):
        download(f"{host.base}/a.pth", tmp_path / "b")
    assert 1 < len(host.requests) < 10


def test_a_file_that_has_changed_meanwhile_is_fetched_whole(host: Publisher, tmp_path: Path) -> None:
    served = host.serve("a.pth", b"old" * 100_000, stop_after=100_000, ranges=False)
    with pytest.raises(NotFetched):
        download(f"{host.base}/a.pth", tmp_path / "a")
    assert 0 < (tmp_path / "a").stat().st_size <= 100_000
    served.content, served.stop_after, served.ranges = CONTENT, 0, True
    host.requests.clear()
    download(f"{host.base}/a.pth", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert host.sent[0].startswith("bytes=") and len(host.requests) == 1  # the server saw that it is another version


def test_a_part_that_nobody_vouches_for_is_not_completed(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT, etag=False)
    (tmp_path / "a").write_bytes(b"x" * 1000)
    download(f"{host.base}/a.pth", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT and host.sent == [""]


def test_a_part_that_is_whole_already(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT)
    (tmp_path / "a").write_bytes(CONTENT)
    download(f"{host.base}/a.pth", tmp_path / "a", trusted=True)
    assert host.sent == [f"bytes={len(CONTENT)}-"] and (tmp_path / "a").read_bytes() == CONTENT
    (tmp_path / "a").write_bytes(CONTENT + b"more than there is")
    download(f"{host.base}/a.pth", tmp_path / "a", trusted=True)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_redirect_is_followed_and_its_digest_kept(host: Publisher, tmp_path: Path) -> None:
    host.serve("stored/blob", CONTENT)
    tag = {"X-Linked-ETag": f'"{"ab" * 32}"', "X-Repo-Commit": "c0ffee"}
    host.serve("a.pth", location="/stored/blob", headers=tag)
    fetched = download(f"{host.base}/a.pth", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert fetched.sha256 == "ab" * 32 and fetched.commit == "c0ffee"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"status": 404}, "the server answers 404 Not Found"),
        ({"status": 403}, "the server answers 403 Forbidden"),
        ({"status": 503}, "the server answers 503"),
        ({"content": b"<html>", "kind": "text/html; charset=utf-8"}, "it is a web page, not a file"),
        ({"location": "/a.pth"}, "from one address to the next without end"),
        ({"location": "file:///etc/hostname"}, "neither http nor https"),
        ({"location": "http://nowhere.invalid/a.pth"}, "cannot be looked up"),
        ({"content": b"", "stall_after": 0, "headers": {"Content-Encoding": "gzip"}}, None),
    ],
)
def test_reasons(how: dict, reason: str | None, host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", **how)
    if reason is None:  # an empty file is one
        download(f"{host.base}/a.pth", tmp_path / "a")
        assert (tmp_path / "a").stat().st_size == 0
        return
    with pytest.raises(NotFetched, match=reason) as error:
        download(f"{host.base}/a.pth", tmp_path / "a")
    assert "\n" not in str(error.value)
    assert len(host.requests) <= 12


def test_a_server_that_says_nothing_and_one_that_is_not_there(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", b"x" * 10, stall_after=1, ranges=False)
    os.environ["FCOS_D2_TIMEOUT"] = "0.3"  # undone with the fixture
    with pytest.raises(NotFetched, match=r"no answer within 0\.3 s"):
        download(f"{host.base}/a.pth", tmp_path / "a")
    with pytest.raises(NotFetched, match="connection refused"):
        download("http://127.0.0.1:9/a.pth", tmp_path / "b")


def test_another_size_than_published_is_seen_before_it_comes(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT)
    with pytest.raises(NotFetched, match=r"it offers 512,000 bytes where 512,001 were published"):
        download(f"{host.base}/a.pth", tmp_path / "a", size=len(CONTENT) + 1)
    assert not (tmp_path / "a").exists()


WRITE = """
import sys
from pathlib import Path
from types import ModuleType
sys.modules["fcos_d2_console"] = ModuleType("console")
sys.modules["fcos_d2_console"].started = True
from fcos_d2.hub.http import download
print("begins", flush=True)
download(sys.argv[1], Path(sys.argv[2]))
"""


def elsewhere(url: str, part: Path, **options: object) -> subprocess.Popen[str]:
    """A process that downloads."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, url, str(part)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        **options,
    )  # type: ignore[call-overload]  # fmt: skip


def test_a_process_that_is_killed_half_way_leaves_what_has_come(host: Publisher, tmp_path: Path) -> None:
    served = host.serve("a.pth", CONTENT, stall_after=300_000)
    part = tmp_path / "a"
    with elsewhere(f"{host.base}/a.pth", part) as process:
        end = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size >= 200_000) and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
    there = part.stat().st_size
    assert 200_000 <= there <= 300_000 and part.read_bytes() == CONTENT[:there]
    served.stall_after = 0
    host.requests.clear()
    download(f"{host.base}/a.pth", part)
    assert part.read_bytes() == CONTENT and host.sent == [f"bytes={there}-"]


def test_a_full_disk_is_one_sentence_and_keeps_what_has_come(host: Publisher, tmp_path: Path) -> None:
    host.serve("a.pth", CONTENT)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with elsewhere(f"{host.base}/a.pth", tmp_path / "a", preexec_fn=small) as process:
        _, told = process.communicate()
    last = told.strip().splitlines()[-1]
    assert "NoRoom" in last and f"{tmp_path} cannot take the download (File too large): make room" in last
    assert "the next try goes on from there" in last
    assert 0 < (tmp_path / "a").stat().st_size <= 200_000
    download(f"{host.base}/a.pth", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_less_room_than_the_file_needs_is_told_before_it_comes(
    host: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.serve("a.pth", CONTENT)
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(NoRoom, match=r"has 1 kB free and 512 kB are to come: make room"):
        download(f"{host.base}/a.pth", tmp_path / "a")
    assert not (tmp_path / "a").exists()
