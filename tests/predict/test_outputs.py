"""Results as other tools read them, read back by those tools' libraries or by their published rules."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import pytest
import yaml
from pycocotools.coco import COCO

from fcos_d2.predict.outputs import FORMATS, Results, write

CLASSES = ["cat", 'a "dog" & co']
ROWS = [
    {"image": "set/a.jpg", "width": 200, "height": 100, "detections": [
        {"class": 'a "dog" & co', "score": 0.9, "box": [10.0, 20.0, 110.0, 70.0]},
        {"class": "cat", "score": 0.5, "box": [0.0, 0.0, 200.0, 100.0]},
    ]},
    {"image": "set/deep/a b.png", "width": 20, "height": 10, "detections": []},
    {"image": "http://x/y/a.jpg?z=1", "width": 10, "height": 10, "detections": [
        {"class": "cat", "score": 0.25, "box": [1.0, 2.0, 3.0, 4.0]},
    ]},
    {"image": "set/film.mp4", "frame": 7, "time": 0.5, "width": 100, "height": 100, "detections": [
        {"class": "cat", "score": 0.75, "box": [10.0, 10.0, 20.0, 30.0], "track": 3},
    ]},
    {"video": "set/film.mp4", "frames": 1, "complete": True},
]  # fmt: skip


@pytest.fixture
def made(tmp_cwd):
    results = Results(ROWS, CLASSES, 0.2, "a model")
    return write(tmp_cwd / "out", "detections", list(FORMATS), results)


def test_coco(made, capsys):
    coco = COCO(str(made["coco"]))
    capsys.readouterr()
    names = [image["file_name"] for image in coco.loadImgs(coco.getImgIds())]
    assert names == ["set/a.jpg", "set/deep/a b.png", "http://x/y/a.jpg?z=1", "set/film_000007.jpg"]
    assert [x["name"] for x in coco.loadCats(coco.getCatIds())] == CLASSES
    first, second, *_, last = coco.loadAnns(coco.getAnnIds())
    assert first["bbox"] == [10, 20, 100, 50] and first["category_id"] == 2 and first["area"] == 5000
    assert second["bbox"] == [0, 0, 200, 100] and second["score"] == 0.5 and last["track_id"] == 3
    results = coco.loadRes(coco.loadAnns(coco.getAnnIds()))  # as detections, too
    capsys.readouterr()
    assert len(results.getAnnIds()) == 4


def test_yolo(made):
    folder = made["yolo"]
    assert folder.name == "detections-yolo"
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == dict(enumerate(CLASSES))
    assert (folder / "classes.txt").read_text().splitlines() == CLASSES
    root = folder / "labels"
    labels = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.*")}
    assert set(labels) == {"a.txt", "deep/a b.txt", "a-2.txt", "film_000007.txt"}
    assert labels["deep/a b.txt"] == ""
    label, *numbers = labels["a.txt"].splitlines()[0].split()
    assert label == "1" and [float(x) for x in numbers] == [0.3, 0.45, 0.5, 0.5]


def test_labelstudio(made):
    """Rules of its import: a data field that the interface names, results that name its tags, percents in 0..100."""
    tasks = json.loads(made["labelstudio"].read_text())
    view = ET.parse(made["labelstudio"].with_suffix(".xml")).getroot()
    image, labels = view.find("Image"), view.find("RectangleLabels")
    assert image.get("value") == "$image" and labels.get("toName") == image.get("name")
    assert [x.get("value") for x in labels] == CLASSES
    assert len(tasks) == 3  # frames of a video are no images
    assert unquote(tasks[1]["data"]["image"]) == "/data/local-files/?d=set/deep/a b.png"
    assert tasks[2]["data"]["image"] == "http://x/y/a.jpg?z=1"
    ids = set()
    for task in tasks:
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "a model" and 0 <= prediction["score"] <= 1
        for box in prediction["result"]:
            assert (box["from_name"], box["to_name"], box["type"]) == ("label", "image", "rectanglelabels")
            value = box["value"]
            assert value["rectanglelabels"][0] in CLASSES
            assert 0 <= value["x"] <= value["x"] + value["width"] <= 100 >= value["y"] + value["height"]
            ids.add(box["id"])
    assert len(ids) == 3
    assert tasks[0]["predictions"][0]["result"][0]["value"] | {"rectanglelabels": 0} == {
        "x": 5, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": 0,
    }  # fmt: skip


def test_csv_and_json(made):
    with made["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ['a "dog" & co', "cat", "cat", "cat"]
    assert rows[0]["image"] == "set/a.jpg" and float(rows[0]["right"]) == 110 and rows[0]["frame"] == ""
    assert (rows[3]["frame"], rows[3]["time"], rows[3]["track"]) == ("7", "0.5", "3")
    data = json.loads(made["json"].read_text())
    assert data["images"] == ROWS[:-1] and data["classes"] == CLASSES


def test_nothing_is_replaced(made, tmp_cwd):
    before = {path: path.read_bytes() for path in (tmp_cwd / "out").rglob("*") if path.is_file()}
    again = write(tmp_cwd / "out", "detections", list(FORMATS), Results(ROWS[:1], CLASSES, 0.2))
    assert again["yolo"].name == "detections-yolo-2" and again["coco"].name == "detections-2.coco.json"
    assert again["labelstudio"].with_suffix(".xml").exists()
    assert write(tmp_cwd / "out", "detections", list(FORMATS), Results(ROWS[:1], CLASSES, 0.2), new=False) == made
    assert all(path.read_bytes() == content for path, content in before.items())
