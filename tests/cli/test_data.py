"""`fcos data`: what it says, and what its lines do."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def pasted(text: str) -> list[list[str]]:
    """The commands after the word Now."""
    return [shlex.split(line) for line in re.findall(r"^  (\S.*)$", text.partition("\nNow\n")[2], re.MULTILINE)]


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_convert_says_what_became_of_every_label(fcos, shapes, to):
    done = fcos("data", "convert", shapes, "my new", "--to", to, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["format"], told["to"], told["images"]) == ("coco", to, "copy")
    counts = {part: len(json.loads((shapes / f"{part}.json").read_text())["annotations"]) for part in ("train", "val")}
    assert {part: one["annotations"] for part, one in told["parts"].items()} == counts
    for one in told["parts"].values():
        assert one["annotations"] == one["written"] + sum(one["left_out"].values())
    again = fcos("data", "convert", shapes, "my new", "--to", to)
    assert again.code == 1 and "replace it with --overwrite" in again.err and again.err.count("\n") == 1
    text = fcos("data", "convert", shapes, "my new", "--to", to, "--overwrite").out
    written = counts["train"] - told["parts"]["train"]["left_out"].get("crowd", 0)
    assert f"→ my new ({to})" in text and f"8 images   {written} of {counts['train']} labels" in text
    assert pasted(text) == [["fcos", "train", "--data", "my new"]]


def test_what_a_format_cannot_say_is_told(fcos, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "own")
    coco = json.loads((tmp_path / "own" / "val.json").read_text())
    coco["annotations"][0] |= {"iscrowd": 1}
    coco["annotations"][1] |= {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    (tmp_path / "own" / "val.json").write_text(json.dumps(coco))
    text = fcos("data", "convert", "own", "new", "--to", "yolo").out
    assert re.search(r"Left out: \d+ crowd regions \(yolo has none\)\.", text)
    assert "yolo has no field for: " in text and "masks (1 labels)" in text
    kept = fcos("data", "convert", "own", "voc", "--to", "voc").out
    assert "Left out" not in kept and "voc has no field for" in kept


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_labels_alone_and_the_lines_that_bring_the_images(fcos, shapes, to):
    done = fcos("data", "convert", shapes, "la bels", "--to", to, "--images", "none")
    assert done.code == 0, done.err
    assert not any(path.suffix == ".jpg" for path in Path("la bels").rglob("*"))
    lines = pasted(done.out)
    if to == "yolo":  # the folder holds the images of both parts, and a folder of YOLO those of one
        assert [words[0] for words in lines] == ["#", "#"]
        return
    assert lines and all(words[:2] == ["ln", "-s"] for words in lines)
    for words in lines:
        subprocess.run(words, check=True)
    back = fcos("data", "convert", "la bels", "back", "--to", "coco", "--images", "link", "--json")
    assert back.code == 0, back.err
    assert {name: one["images"] for name, one in json.loads(back.out)["parts"].items()} == {"train": 8, "val": 4}


def test_split_divides_train_and_keeps_the_rest(fcos, shapes):
    done = fcos("data", "split", shapes, "divided", "--val", 0.5, "--test", 0.2, "--pool", "--to", "yolo", "--json")
    assert done.code == 0, done.err
    parts = json.loads(done.out)["parts"]
    assert list(parts) == ["train", "val", "test"] and sum(one["images"] for one in parts.values()) == 12
    done = fcos("data", "split", shapes, "more", "--test", 0.3, "--stratify", "--json")
    told = json.loads(done.out)
    assert told["to"] == "coco" and told["parts"]["val"]["images"] == 4
    assert told["parts"]["train"]["images"] + told["parts"]["test"]["images"] == 8
    assert fcos("data", "split", shapes, "none").code == 2


def test_show_draws_the_same_images_for_the_same_seed(fcos, shapes):
    words = ("data", "show", shapes, "--number", 3, "--tile", 96, "--columns", 2)
    done = fcos(*words, "-o", "sheet.jpg", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert len(told["images"]) == 3 and told["failed"] == []
    first = np.asarray(Image.open("sheet.jpg"))
    assert fcos(*words, "-o", "sheet.jpg").code == 0  # drawn by fcos: replaced
    assert np.array_equal(np.asarray(Image.open("sheet.jpg")), first)
    other = json.loads(fcos(*words, "-o", "sheet.jpg", "--seed", 5, "--json").out)
    assert other["images"] != told["images"]


def test_show_of_a_class_and_a_part(fcos, shapes):
    coco = json.loads((shapes / "val.json").read_text())
    star = next(row["id"] for row in coco["categories"] if row["name"] == "star")
    counts = [sum(row["image_id"] == image["id"] and row["category_id"] == star for row in coco["annotations"])
              for image in coco["images"]]  # fmt: skip
    done = fcos("data", "show", shapes, "-o", "stars.jpg", "--split", "val", "--class", "star", "--json")
    assert done.code == 0, done.err
    assert [row["boxes"] for row in json.loads(done.out)["images"]] == [count for count in counts if count]


def test_show_replaces_nothing_and_names_what_it_cannot_read(fcos, shapes, tmp_path):
    Path("sheet.jpg").write_bytes(b"mine")
    done = fcos("data", "show", shapes, "-o", "sheet.jpg")
    assert done.code == 1 and "was not drawn by fcos" in done.err and Path("sheet.jpg").read_bytes() == b"mine"
    shutil.copytree(shapes, tmp_path / "own")
    bad = sorted((tmp_path / "own" / "images").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:200])
    done = fcos("data", "show", "own", "-o", "other.jpg", "--json")
    told = json.loads(done.out)
    assert done.code == 1 and [Path(row["image"]).name for row in told["failed"]] == [bad.name]
    assert Path("other.jpg").is_file()
