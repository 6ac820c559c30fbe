"""Videos, cameras and streams: what is read of them, and the sentence where nothing can be."""

from __future__ import annotations

import struct
import time
from itertools import islice, pairwise

import films
import numpy as np
import pytest
import streams

from fcos_d2.data.sources import Source, kind_of
from fcos_d2.data.video import Video
from fcos_d2.errors import FcosError


@pytest.fixture
def film(tmp_path):
    return films.make(tmp_path / "a.mp4")


def test_every_frame_with_its_time(film):
    with Video(Source(str(film))) as video:
        assert (video.rate, video.count) == (12.5, 10)
        found = list(video)
    assert [f.index for f in found] == list(range(10)) and video.read == 10
    assert [f.seconds for f in found] == pytest.approx([i / 12.5 for i in range(10)], abs=1e-3)
    for i, f in enumerate(found):  # lossy, but in order, and red is red
        assert f.pixels.shape == (64, 96, 3) and abs(int(f.pixels[60, 5, 0]) - 20 * i) < 12
    assert np.abs(found[0].pixels[30, 20].astype(int) - (255, 240, 200)).max() < 30


@pytest.mark.parametrize(("every", "indices"), [(3, [0, 3, 6, 9]), (10, [0]), (99, [0])])
def test_each_third_frame(film, every, indices):
    with Video(Source(str(film)), every=every) as video:
        assert [f.index for f in video] == indices
        assert video.read == 10


def test_a_film_on_its_side_is_turned(film):
    """A phone's film says in its header how it is held: the matrix of the track is turned by 90 degrees."""
    data = bytearray(film.read_bytes())
    at = data.find(b"tkhd")
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.find(identity, at)
    assert at > 0 and place > 0
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    film.write_bytes(data)
    with Video(Source(str(film))) as video:
        first = next(iter(video)).pixels
    assert first.shape == (96, 64, 3)
    assert first[20, 64 - 30].mean() > 200 and first[20, 30 - 20].mean() < 60  # the square, turned to the right


def test_a_film_whose_end_is_missing_is_read_as_far_as_it_goes(tmp_path):
    whole = films.make(tmp_path / "a.avi", 30, "MJPG").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    with Video(Source(str(cut))) as video:
        assert 5 < len(list(video)) < 30


@pytest.mark.parametrize("name", ["gone.mp4", "text.mp4", "empty.mp4"])
def test_no_video(name, tmp_path, capfd):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(FcosError, match="does not exist" if name == "gone.mp4" else "cannot be read") as error:
        Video(Source(str(tmp_path / name)))
    assert name in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # what FFmpeg would say is said by us


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("97", "There is no camera 97 here"),
        ("rtsp://127.0.0.1:9/x", "The stream rtsp://127.0.0.1:9/x cannot be opened within 2 s."),
        ("http://127.0.0.1:9/x.mp4", "http://127.0.0.1:9/x.mp4 cannot be reached"),
    ],
)
def test_nobody_there(where, says, capfd):
    with pytest.raises(FcosError, match=says):
        Video(Source(where), live=True, timeout=2.0)
    assert capfd.readouterr().err == ""


@pytest.fixture
def site(film, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with films.served(film.read_bytes()) as address:
        yield address


@pytest.mark.parametrize(("path", "kind"), [("/film.mp4", "video"), ("/what", "video"), ("/live", "live")])
def test_an_address_is_a_video_by_its_name_or_by_what_the_server_says(site, path, kind):
    assert kind_of(Source(site + path)) == kind
    with Video(Source(site + path), live=kind == "live") as video:
        found = [frame.index for frame in islice(iter(video), 10)]
    assert found == sorted(set(found)) and len(found) == 10
    if kind == "video":
        assert found == list(range(10))


def test_an_address_that_is_refused(site):
    with pytest.raises(FcosError, match=r"gone\.mp4 cannot be fetched: the server answers 404"):
        Video(Source(f"{site}/gone.mp4"))
    with pytest.raises(FcosError, match=r"page\.mp4 is a web page, not a video: give the address of the video itself"):
        Video(Source(f"{site}/page.mp4"))


def test_a_live_source_does_not_fall_behind(site):
    """Whoever takes a quarter of a second for a picture gets the newest one, not the next."""
    with Video(Source(f"{site}/live"), live=True) as video:
        frames = iter(video)
        first = next(frames)
        time.sleep(0.5)
        second, third = next(frames), next(frames)
    assert second.index > first.index + 3 and third.index > second.index
    assert second.seconds >= first.seconds + 0.5


def test_a_stream_over_rtsp(capfd):
    with streams.served(60) as address:
        assert kind_of(Source(address)) == "live"
        with Video(Source(address), live=True, timeout=10.0) as video:
            found = list(video)  # to its end
    assert len(found) > 5 and found[0].pixels.shape == (64, 96, 3)
    assert all(second.index > first.index for first, second in pairwise(found))
    light = found[3].pixels[60, 5, 0] / 20  # the picture is one of those that were sent
    assert abs(light - round(light)) < 0.4
    assert capfd.readouterr().err == ""
