"""`fcos analyze`: what it prints and writes, and that what it writes trains."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_d2.config import load_config
from fcos_d2.data.synthetic import generate


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects of 4 to 12 px in pictures of 320 x 240."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    generate(folder, {"train": 12, "val": 3}, (320, 240), min_size=4, max_size=12 / 240, max_objects=9)
    return folder


@pytest.mark.slow
def test_what_is_written_trains(fcos, tiny: Path) -> None:
    done = fcos("analyze", tiny, "--image-size", 160, "-o", "out")
    assert done.code == 0, done.err
    assert "COCO minival, published" in done.out and "98.40" in done.out and "23.16" in done.out
    assert "between locations" in done.out and "suggested: " in done.out
    (line,) = re.findall(r"^  (fcos train .*)$", done.out, re.MULTILINE)
    found = json.loads(Path("out", "analysis.json").read_text(encoding="utf-8"))
    assert found["suggestion"]["command"] == line
    before, after = (found["suggestion"][key]["best_possible_recall"] for key in ("before", "after"))
    assert before < 0.6 and after > 0.98
    words = shlex.split(line)[1:]
    words[words.index("--image-size") + 1] = "96"  # the network's, so that three iterations take a second
    trained = fcos(
        *words, "--iterations", 3, "--batch-size", 2, "--workers", 0, "-o", "trained", "train.pictures=false"
    )
    assert trained.code == 0, trained.err
    cfg = load_config(Path("trained", "config.yaml"))
    strides = found["suggestion"]["rule"]["strides"]
    assert [2 ** int(name[1:]) for name in cfg.model.in_features] == strides


def test_every_lost_object_has_a_reason_and_a_picture(fcos, tiny: Path) -> None:
    done = fcos("analyze", tiny, "--no-suggest", "--json", "-o", "out", "--image-size", 120)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "suggestion" not in found and not Path("out", "suggested.py").exists()
    lost, parts = found["unlearnable"]["objects"], found["parts"]
    for part, counts in found["unlearnable"]["counts"].items():
        assert sum(counts.values()) == sum(one["part"] == part for one in lost) > 0
        assert parts[part]["sizes"]["all"]["none"] == sum(counts.values())
        assert parts[part]["best_possible_recall"] == pytest.approx(1 - sum(counts.values()) / parts[part]["boxes"])
    pages = {one["picture"] for one in lost}
    assert pages == {path.name for path in Path("out").glob("*.jpg")} and None not in pages
    assert all(np.asarray(Image.open(Path("out", page))).std() > 5 for page in pages)

    # Again with fewer pictures: pages of before go, what is somebody's stays.
    Path("out", "mine.txt").write_text("mine", encoding="utf-8")
    done = fcos("analyze", tiny, "--no-suggest", "--split", "val", "-o", "out", "--pictures", 2, "--image-size", 120)
    assert done.code == 0 and "2 of" in done.err, done.err
    found = json.loads(Path("out", "analysis.json").read_text(encoding="utf-8"))
    assert (
        found["parts"].keys() == {"val"} and sum(bool(one["picture"]) for one in found["unlearnable"]["objects"]) == 2
    )
    names = {path.name for path in Path("out").iterdir() if not path.name.startswith(".")}
    assert names == {"analysis.json", "mine.txt", "unlearnable-val-001.jpg"}


def test_annotations_alone_are_enough(fcos, tiny: Path, tmp_path: Path) -> None:
    """Nothing but a picture of a lost object needs the pictures."""
    folder = tmp_path / "labels"
    folder.mkdir()
    shutil.copy(tiny / "train.json", folder)
    done = fcos("analyze", folder, "--no-suggest", "--json", "-o", "out", "--image-size", 160)
    assert done.code == 0, done.err
    counts = json.loads(done.out)["unlearnable"]["counts"]["train"]
    assert f"the pictures of {sum(counts.values())} of {sum(counts.values())} objects cannot be read" in done.err


def test_of_enough_nothing_is_suggested(fcos, shapes: Path) -> None:
    done = fcos("analyze", shapes, "--recall", 0.5, "-o", "out")
    assert done.code == 0 and "Nothing needs to be changed." in done.out, done.err
    assert not Path("out", "suggested.py").exists()


def test_a_folder_of_something_else_is_left_alone(fcos, shapes: Path) -> None:
    Path("out").mkdir()
    Path("out", "analysis.json").write_text("{}", encoding="utf-8")
    done = fcos("analyze", shapes, "-o", "out")
    assert done.code == 1 and "out holds analysis.json, which `fcos analyze` did not write" in done.err
    assert Path("out", "analysis.json").read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("words", [["analyze"], ["eval", "--weights", "w.pth", "--data"]])
def test_nothing_is_written_among_the_data(fcos, tmp_path: Path, words: list[str]) -> None:
    data = tmp_path / "set"
    generate(data, {"train": 2, "val": 1}, (64, 64), min_size=10)
    Path("w.pth").write_bytes(b"0")
    before = sorted(data.rglob("*"))
    done = fcos(*words, data, "-o", data)
    assert done.code == 1 and "is the folder of the data set, which is only read" in done.err
    assert sorted(data.rglob("*")) == before
