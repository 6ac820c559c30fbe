"""Exports of Label Studio, labelme and CVAT."""

from __future__ import annotations

import json

import pytest
from label_files import parts_of, picture, write

from fcos_d2.data import find_dataset, read_parts
from fcos_d2.data.layout import UNREADABLE
from fcos_d2.errors import FcosError


def region(kind="rectanglelabels", names=("dog",), number="r1", **value):
    value = value or {"x": 12.5, "y": 25, "width": 25, "height": 12.5, "rotation": 0}
    sides = {"original_width": 32, "original_height": 24, "image_rotation": 0}
    return {"id": number, "type": kind, **sides, "value": {**value, kind: list(names)}}


def task(*regions, name="/data/upload/1/0a1b2c3d-0.png", **more):
    return {"id": 1, "data": {"image": name}, "annotations": [{"id": 1, "result": list(regions), **more}]}


@pytest.mark.parametrize(
    "name",
    ["/data/upload/1/0a1b2c3d-0.png", "/data/local-files/?d=images/0.png", "http://host:8080/data/upload/1/0.png",
     "s3://bucket/0.png", "images/0.png"],
)  # fmt: skip
def test_label_studio(tmp_path, name):
    picture(tmp_path / "images" / "0.png")
    write(tmp_path / "project-1-at-2024-01-01.json", json.dumps([task(region(), name=name)]))
    assert find_dataset(tmp_path).format == "labelstudio"
    assert parts_of(tmp_path)["train"] == [("images/0.png", "dog", [4, 6, 8, 3])]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (region(x=25, y=25, width=25, height=50, rotation=90), [-4, 6, 12, 8]),  # about its corner (8, 6)
        (region("polygonlabels", points=[[25, 25], [75, 25], [50, 75]]), [8, 6, 16, 12]),
        (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=0), [8, 6, 16, 12]),
        (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=90), [10, 4, 12, 16]),
        (region(x="12.5", y=25, width=25, height=12.5), [4, 6, 8, 3]),
        (region("keypointlabels", x=1, y=1, width=1), "a key point has no size"),
        (region("brushlabels", rle=[1, 2]), "a brush stroke is no box"),
        (region(x="a", y=25, width=25, height=12.5), "it has no numbers"),
        ({**region(), "image_rotation": 90}, "it is drawn on the image turned by 90 degrees"),
        (region("choices", choices=["day"]), None),
    ],
)
def test_regions_of_label_studio(tmp_path, shape, box):
    picture(tmp_path / "0.png")
    write(tmp_path / "train.json", json.dumps([task(shape, name="0.png")]))
    rows = read_parts(find_dataset(tmp_path), ("train",))["train"]["annotations"]
    if box is None:
        assert rows == []
    else:
        (row,) = rows
        assert row.get("bbox") == box if isinstance(box, list) else row[UNREADABLE].startswith(box)


def test_other_forms_of_label_studio(tmp_path, caplog):
    for name in ("0.png", "1.png", "2.png"):
        picture(tmp_path / name)
    plain = {"id": "a", "type": "rectangle", "original_width": 32, "original_height": 24,
             "value": {"x": 12.5, "y": 25, "width": 25, "height": 12.5}}  # fmt: skip
    named = {"id": "a", "type": "labels", "value": {"labels": ["cat"]}}
    tasks = [
        task(plain, named, name="0.png"),
        {"id": 2, "data": {"img": "1.png"}, "annotations": []},
        {"id": 3, "data": {"x": "2.png"}, "annotations": [
            {"result": [region()], "updated_at": "2024-01-02"}, {"result": [region(), region()], "updated_at": "2023"},
            {"result": [region()], "was_cancelled": True}]},
    ]  # fmt: skip
    write(tmp_path / "export.json", json.dumps(tasks))
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    assert [row["file_name"] for row in coco["images"]] == ["0.png", "2.png"] and "1 of 3 tasks" in caplog.text
    assert [row.get(UNREADABLE, row["category_id"])[:12] if UNREADABLE in row else row["category_id"]
            for row in coco["annotations"]] == [1, "an older ann", "an older ann", 2]  # fmt: skip


def test_short_form_of_label_studio(tmp_path):
    picture(tmp_path / "0.png")
    value = {"x": 12.5, "y": 25, "width": 25, "height": 12.5, "rotation": 0, "rectanglelabels": ["dog"]}
    tasks = [
        {"image": "0.png", "id": 1, "label": [{**value, "original_width": 32, "original_height": 24}], "annotator": 1}
    ]
    write(tmp_path / "min.json", json.dumps(tasks))
    assert parts_of(tmp_path)["train"] == [("0.png", "dog", [4, 6, 8, 3])]


def test_labelme(tmp_path):
    shapes = [
        {"label": "dog", "points": [[12, 9], [4, 6]], "group_id": None, "shape_type": "rectangle", "flags": {}},
        {"label": "cat", "points": [[8, 6], [24, 6], [16, 18]], "group_id": 3, "shape_type": "polygon"},
        {"label": "cat", "points": [[30, 6], [31, 6], [31, 20]], "group_id": 3, "shape_type": "polygon"},
        {"label": "sun", "points": [[16, 12], [19, 16]], "shape_type": "circle"},
        {"label": "sun", "points": [[16, 12]], "shape_type": "point"},
        {"label": "", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[1, "a"], [3, 4]], "shape_type": "rectangle"},
        "no shape",
    ]
    for part in ("train", "val"):
        picture(tmp_path / part / "0.png")
        said = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "..\\x\\0.png", "imageData": None}
        write(tmp_path / part / "0.json", json.dumps(said))
    assert find_dataset(tmp_path).format == "labelme"
    coco = read_parts(find_dataset(tmp_path), ("train", "val"))["train"]
    assert [row["file_name"] for row in coco["images"]] == ["train/0.png"]
    names = {row["id"]: row["name"] for row in coco["categories"]}
    found = [row.get(UNREADABLE) or (names.get(row["category_id"]), row["bbox"]) for row in coco["annotations"]]
    assert found == [
        ("dog", [4, 6, 8, 3]), ("sun", [11, 7, 10, 10]), "a point has no size", (None, [1, 2, 2, 2]),
        "its points are [[1, 'a'], [3, 4]]", "it is no shape, no shape", ("cat", [8, 6, 23, 14]),
    ]  # fmt: skip


@pytest.mark.parametrize("places", ["images labels", ". .", "images annotations"])
def test_places_of_labelme(tmp_path, places):
    images, labels = (tmp_path / place for place in places.split())
    picture(images / "0.png")
    shape = {"label": "dog", "points": [[12, 9], [4, 6]], "shape_type": "rectangle"}
    write(labels / "0.json", json.dumps({"version": "5", "shapes": [shape], "imagePath": "0.png"}))
    ((_, name, box),) = parts_of(tmp_path)["train"]
    assert (name, box) == ("dog", [4, 6, 8, 3])


CVAT = (
    "<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version><meta><task><labels><label>"
    "<name>cat</name></label><label><name>dog</name></label></labels></task></meta>{}</annotations>"
)
IMAGE = "<image id='0' name='{}' width='32' height='24' {}>{}</image>"
BOX = "<box label='dog' source='manual' occluded='0' xtl='4.00' ytl='6.00' xbr='12.00' ybr='9.00' z_order='0'/>"


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (BOX, [4, 6, 8, 3]),
        (BOX.replace("z_order", "rotation='90' z_order"), [6.5, 3.5, 3, 8]),
        ("<polygon label='dog' points='8,6;24,6;16.5,18'/>", [8, 6, 16, 12]),
        ("<ellipse label='dog' cx='16' cy='12' rx='4' ry='3'/>", [12, 9, 8, 6]),
        ("<mask label='dog' rle='1, 2' left='4' top='6' width='8' height='3'/>", [4, 6, 8, 3]),
        ("<skeleton label='dog'><points points='4,6'/><points points='12,9'/></skeleton>", [4, 6, 8, 3]),
        (BOX.replace("4.00", "30"), [30, 6, -18, 3]),  # left to `clean`
        ("<points label='dog' points='1,2'/>", "points have no size"),
        ("<box label='dog' xtl='a' ytl='1' xbr='2' ybr='3'/>", "its numbers are a 1 2 3"),
        ("<tag label='dog'/>", None),
    ],
)  # fmt: skip
def test_cvat(tmp_path, shape, box):
    picture(tmp_path / "images" / "0.png")
    write(tmp_path / "annotations.xml", CVAT.format(IMAGE.format("0.png", "", shape)))
    assert find_dataset(tmp_path).format == "cvat"
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    assert [row["name"] for row in coco["categories"]] == ["cat", "dog"]
    assert coco["images"][0]["file_name"] == "images/0.png"
    if box is None:
        assert coco["annotations"] == []
    else:
        (row,) = coco["annotations"]
        assert row.get(UNREADABLE) == box or (row["bbox"], row["category_id"]) == (box, 2)


def test_subsets_of_cvat_are_parts(tmp_path):
    images = "".join(
        IMAGE.format(f"{at}.png", f"subset='{name}'", BOX) for at, name in enumerate(("Train", "Validation"))
    )
    write(tmp_path / "annotations.xml", CVAT.format(images))
    for at in range(2):
        picture(tmp_path / "images" / f"{at}.png")
    found = parts_of(tmp_path)
    assert {part: rows[0][0] for part, rows in found.items()} == {"train": "images/0.png", "val": "images/1.png"}


def test_tracks_of_cvat_on_frames(tmp_path):
    boxes = "".join(
        f"<box frame='{at}' outside='{int(at == 2)}' occluded='0' keyframe='1' xtl='{at}' ytl='0' xbr='9' ybr='9'/>"
        for at in (0, 1, 2, 7)
    )
    write(tmp_path / "annotations.xml", CVAT.format(f"<track id='3' label='cat'>{boxes}</track>"))
    for at in range(3):
        picture(tmp_path / "images" / f"frame_{at:06d}.png")
    coco = read_parts(find_dataset(tmp_path), ("train",))["train"]
    assert [row.get("bbox", row.get(UNREADABLE)) for row in coco["annotations"]] == [
        [0, 0, 9, 9], [1, 0, 8, 9], "its frame does not lie as an image",
    ]  # fmt: skip


def test_a_file_that_is_cut_off_is_one_sentence(tmp_path):
    picture(tmp_path / "0.png")
    whole = CVAT.format(IMAGE.format("0.png", "", BOX))
    write(tmp_path / "annotations.xml", whole[:-20])
    with pytest.raises(FcosError, match=r"annotations\.xml is not valid XML"):
        read_parts(find_dataset(tmp_path), ("train",))
    (tmp_path / "annotations.xml").unlink()
    write(tmp_path / "train.json", json.dumps([task(region())])[:-9])
    with pytest.raises(FcosError, match=r"train\.json is not valid JSON"):
        read_parts(find_dataset(tmp_path), ("train",))
