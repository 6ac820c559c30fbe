"""Results line by line: what is done stays, half a line goes, and nothing of another run is mixed in."""

from __future__ import annotations

import json

import pytest

from fcos_d2.errors import FcosError
from fcos_d2.predict.journal import Journal

ROW = {"image": "a ü \udc80.jpg", "width": 3, "height": 2, "detections": [], "picture": "out/a.jpg"}


def test_lines_come_back_and_are_there_at_once(tmp_path):
    journal = Journal(tmp_path / "new", "r")
    journal.add(ROW)
    assert json.loads(journal.path.read_text("utf-8")) == {**ROW, "run": "r"}
    journal.add({**ROW, "image": "b.jpg"})
    journal.close()
    assert [row["image"] for row in journal] == [ROW["image"], "b.jpg"] and next(iter(journal)) == ROW
    assert Journal(tmp_path / "new", "r").path.name == "detections-2.jsonl"


@pytest.mark.parametrize("half", ['{"image": "c', '{"image": "c.jpg", "detections": [], "run": "r"}', "{", "\0\0\0"])
def test_half_a_line_is_cut_off(tmp_path, half):
    journal = Journal(tmp_path, "r")
    journal.add(ROW)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + half.encode())
    again = Journal(tmp_path, "r", resume=True)
    assert again.path == journal.path and again.path.read_bytes() == whole
    assert again.done == {ROW["image"]: 1} and [str(p) for p in again.pictures] == ["out/a.jpg"]
    again.add({**ROW, "image": "c.jpg"})
    again.close()
    assert [row["image"] for row in again] == [ROW["image"], "c.jpg"]


def test_frames_of_a_video_that_was_not_done_are_done_again(tmp_path):
    journal = Journal(tmp_path, "r")
    for video, complete in (("one.mp4", True), ("two.mp4", False), ("three.mp4", None)):
        journal.add({**ROW, "image": video, "frame": 0})
        if complete is not None:
            journal.add({"video": video, "frames": 1, "picture": f"out/{video}", "complete": complete})
    journal.close()
    again = Journal(tmp_path, "r", resume=True)
    again.close()
    assert again.done == {"one.mp4": 1} and {k: str(v) for k, v in again.begun.items()} == {"two.mp4": "out/two.mp4"}
    assert [row.get("video") or row["image"] for row in again] == ["one.mp4", "one.mp4"]


@pytest.mark.parametrize(
    ("line", "says"),
    [('{"image": "x", "run": "other"}', "other weights or options"), ("[1]", "Line 2"), ("nothing", "Line 2 of")],
)
def test_what_is_not_of_this_run_is_refused_and_kept(tmp_path, line, says):
    journal = Journal(tmp_path, "r")
    journal.add(ROW)
    journal.close()
    with journal.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    before = journal.path.read_bytes()
    with pytest.raises(FcosError, match=says):
        Journal(tmp_path, "r", resume=True)
    assert journal.path.read_bytes() == before


def test_no_name_that_anything_has_is_taken(tmp_path):
    (tmp_path / "detections.csv").touch()
    (tmp_path / "detections-2").mkdir()
    journal = Journal(tmp_path, "r", resume=True)  # there is nothing to go on with
    assert journal.path.name == "detections-3.jsonl"
    journal.close()
    assert not journal.path.exists()  # without a line
    (tmp_path / "file").touch()
    with pytest.raises(FcosError, match="cannot be written"):
        Journal(tmp_path / "file", "r")
