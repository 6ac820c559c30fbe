"""`fcos detect` on all that people point at: what it writes, how it ends, and how it goes on."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import cv2
import films
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO


@pytest.fixture
def detect(fcos, weights):
    """Run `fcos detect` with a threshold that this model's scores pass, and read its JSON."""

    def run(*words, code=0, threshold=0.5):
        done = fcos("detect", *words, "--weights", weights, "--threshold", threshold, "--device", "cpu", "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    return run


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Twenty pictures of three sizes, in two folders."""
    random = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "pictures" / ("deep" if i % 4 == 3 else ".") / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        size = ((48, 64), (64, 48), (64, 64))[i % 3]
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def lines(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def interrupt_after(path: Path, count: int, number: int = signal.SIGINT) -> threading.Thread:
    """Send this process a signal once a file has so many lines."""

    def run() -> None:
        for _ in range(6000):
            if path.is_file() and path.read_bytes().count(b"\n") >= count:
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def alike(found: list[dict], others: list[dict]) -> bool:
    """Whether rows say the same but for the last digits."""
    assert [row["image"] for row in found] == [row["image"] for row in others]
    for row, other in zip(found, others):
        assert [x["class"] for x in row["detections"]] == [x["class"] for x in other["detections"]]
        for x, y in zip(row["detections"], other["detections"]):
            assert x["score"] == pytest.approx(y["score"], abs=1e-5)
            assert x["box"] == pytest.approx(y["box"], abs=2e-3)
    return True


def test_a_batch_finds_what_one_by_one_is_found(detect, pictures):
    one = detect(pictures, "--no-pictures")
    assert len(one["images"]) == 20 and sum(len(row["detections"]) for row in one["images"]) > 20
    assert one["results"] is None and not Path("output").exists()
    many = detect(pictures, "--batch-size", 4, "--no-pictures")
    assert alike(many["images"], one["images"])


def test_one_picture_leaves_one_file(detect, pictures):
    for _ in range(2):
        data = detect(pictures / "00.png")
        assert data["results"] is None and os.listdir("output/detections") == ["00.jpg"]


def test_a_folder_is_gone_on_with(fcos, weights, detect, pictures):
    words = (pictures, "-o", "out put", "--format", "coco")
    whole = detect(*words[:1], "-o", "whole")
    assert len(lines(whole["results"])) == 20 and Path(whole["results"]).name == "detections.jsonl"

    results = Path("out put", "detections.jsonl")
    thread = interrupt_after(results, 9)
    command = ("detect", *words, "--weights", weights, "--threshold", 0.5, "--device", "cpu")
    stopped = fcos(*command)
    thread.join()
    assert stopped.code == 130, stopped.err
    done = len(lines(results))
    assert 9 <= done < 20 and f"Interrupted after {done} of 20" in stopped.err and "Traceback" not in stopped.err
    assert not list(Path("out put").glob("*.coco.json"))  # what is written at the end is not there yet
    kept = {path: path.read_bytes() for path in Path("out put").glob("*.jpg")}
    assert len(kept) >= done
    results.write_bytes(results.read_bytes()[:-20])  # the machine went out while the last line was written

    (line,) = re.findall(r"^  fcos (.*)$", stopped.err, re.MULTILINE)
    again = fcos(*shlex.split(line))
    assert again.code == 0, again.err
    rows = lines(results)
    assert len(rows) == 20 and len({row["image"] for row in rows}) == 20
    assert alike(sorted(rows, key=lambda row: row["image"]), sorted(whole["images"], key=lambda row: row["image"]))
    assert all(Path(row["picture"]).is_file() for row in rows) and len({row["picture"] for row in rows}) == 20
    coco = json.loads(Path("out put", "detections.coco.json").read_text())
    assert len(coco["images"]) == 20

    before = results.read_bytes()
    assert fcos(*shlex.split(line)).code == 0 and results.read_bytes() == before  # nothing is left to do
    refused = fcos(*command[:-4], "--threshold", 0.4, "--resume")
    assert refused.code == 1 and "other weights or options" in refused.err and results.read_bytes() == before
    fresh = detect(*words)  # and a new run begins anew, in a file of its own
    assert Path(fresh["results"]).name == "detections-2.jsonl" and results.read_bytes() == before


def test_what_cannot_be_read_is_tried_again(detect, pictures):
    (pictures / "99.png").write_text("no image")
    first = detect(pictures, "--format", "jsonl", code=1)
    assert [row["image"] for row in first["failed"]] == [f"{pictures}/99.png"] and len(first["images"]) == 20
    shutil.copy(pictures / "00.png", pictures / "99.png")
    second = detect(pictures, "--format", "jsonl", "--resume")
    assert second["failed"] == [] and len(second["images"]) == 21 and second["results"] == first["results"]


def test_a_folder_that_is_drawn_into_is_gone_on_with(detect, pictures):
    """What was drawn is none of the images."""
    first = detect(pictures, "-o", pictures)
    assert len(first["images"]) == 20 == len(list(pictures.glob("*.jpg")))
    second = detect(pictures, "-o", pictures, "--resume")
    assert second["images"] == first["images"]


def test_a_video(detect, tmp_path):
    films.make(tmp_path / "a film.mp4", 12)
    before = (tmp_path / "a film.mp4").read_bytes()
    data = detect("a film.mp4", "--track", "--format", "csv", "--format", "labelstudio")
    (video,) = data["videos"]
    assert (video["frames"], video["rate"], video["complete"]) == (12, 12.5, True) and "unreadable" not in video
    assert [row["frame"] for row in data["images"]] == list(range(12))
    assert data["images"][5]["time"] == pytest.approx(0.4) and data["images"][5]["width"] == 96
    tracks = {x["track"] for row in data["images"] for x in row["detections"]}
    assert video["tracks"] == len(tracks - {None}) > 0
    drawn = Path(video["picture"])
    assert drawn == Path("output/detections/a film.mp4") and drawn.stat().st_size > 0
    capture = cv2.VideoCapture(str(drawn))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    found = films.frames(drawn)
    assert len(found) == 12 and found[0].shape == (64, 96, 3)
    assert np.abs(found[9].astype(int) - films.frame(9)).max() > 60  # there are boxes on it

    fewer = detect("a film.mp4", "--every", 5, "-o", "fewer")
    assert [row["frame"] for row in fewer["images"]] == [0, 5, 10]
    capture = cv2.VideoCapture(fewer["videos"][0]["picture"])
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (2.5, 3)
    beside = detect("a film.mp4", "-o", ".", "--no-pictures")
    assert beside["results"] == "detections.jsonl" and (tmp_path / "a film.mp4").read_bytes() == before
    beside = detect("a film.mp4", "-o", ".")
    assert beside["videos"][0]["picture"] == "a film-2.mp4" and (tmp_path / "a film.mp4").read_bytes() == before


@pytest.mark.slow
def test_a_video_that_was_interrupted_is_done_anew(fcos, weights, tmp_path):
    films.make(tmp_path / "b.mp4", 80)
    films.make(tmp_path / "a.mp4", 3)
    shutil.copy(tmp_path / "b.mp4", tmp_path / "cut.mp4")
    results = Path("out", "detections.jsonl")
    thread = interrupt_after(results, 12, signal.SIGTERM)
    words = ("detect", "a.mp4", "b.mp4", "gone.mp4", "-o", "out", "--weights", weights, "--device", "cpu")
    stopped = fcos(*words)
    thread.join()
    assert stopped.code == 143 and "Interrupted after 1 of 3" in stopped.err, stopped.err
    assert lines(results)[-1]["complete"] is False
    partial = films.frames(Path("out", "b.mp4"))
    assert 8 <= len(partial) < 80  # a film that can be watched
    again = fcos(*words, "--resume")
    assert again.code == 1 and "The video gone.mp4 does not exist." in again.err
    rows = lines(results)
    assert [row["frame"] for row in rows if row.get("image") == "b.mp4"] == list(range(80))
    assert [row["complete"] for row in rows if "video" in row] == [True, True]
    assert sorted(os.listdir("out")) == ["a.mp4", "b.mp4", "detections.jsonl"]
    assert len(films.frames(Path("out", "b.mp4"))) == 80


def test_lists_patterns_and_standard_input(detect, pictures, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("00.png\n# no\n"))
    monkeypatch.chdir(pictures)
    Path("list.txt").write_text("01.png\ndeep/03.png\n")
    data = detect("-", "list.txt", "1[0-2].png", "--no-pictures")
    assert [row["image"] for row in data["images"]] == [
        "00.png", "01.png", "deep/03.png", "10.png", "12.png",
    ]  # fmt: skip


def test_formats_are_files_that_it_names(detect, pictures):
    formats = ("json", "csv", "coco", "yolo", "labelstudio")
    data = detect(pictures, "--no-pictures", *(x for name in formats for x in ("--format", name)))
    assert list(data["files"]) == list(formats) and all(Path(path).exists() for path in data["files"].values())
    coco = COCO(data["files"]["coco"])
    boxes = sum(len(row["detections"]) for row in data["images"])
    assert len(coco.getAnnIds()) == boxes > 0
    labels = list(Path(data["files"]["yolo"], "labels").rglob("*.txt"))
    assert len(labels) == 20 and sum(len(path.read_text().splitlines()) for path in labels) == boxes
    assert json.loads(Path(data["files"]["json"]).read_text())["images"] == data["images"]


def test_a_large_picture_in_tiles(fcos, detect, tmp_path):
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    small.resize((1300, 900), Image.Resampling.NEAREST).save("large.tif")
    small.save("small.png")
    words = ("small.png", "large.tif", "--tile-size", 512, "--max-memory", "8GB")
    data = detect(*words)
    one, other = data["images"]
    assert (other["width"], other["height"]) == (1300, 900) and len(other["detections"]) > 0
    right = max(x["box"][2] for x in other["detections"])
    assert 600 < right <= 1300  # more than the first tile has been looked at
    with Image.open(other["picture"]) as picture:
        assert picture.size == (1300, 900)
    assert alike([one], detect("small.png")["images"])
    refused = detect("large.tif", "--max-memory", "1MB", code=1)
    assert "--max-memory gives 0.00 GB: raise it" in refused["failed"][0]["error"]
    assert "is no size; for example 1.5GB" in fcos("detect", "small.png", "--max-memory", "much").err


def test_ctrl_c_is_how_a_camera_ends(detect, monkeypatch):
    """Pictures by http, as cameras send them; what was seen is written as a film and in the formats."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with films.served() as site:
        thread = interrupt_after(Path("output/detections/detections.jsonl"), 5)
        data = detect(f"{site}/live", "--format", "csv")
        thread.join()
    (video,) = data["videos"]
    assert video["complete"] and video["frames"] >= 5 and not data["interrupted"]
    assert len(films.frames(Path(video["picture"]))) >= video["frames"]
    assert Path(data["files"]["csv"]).is_file()
