"""The same labels in several formats are the same data set, to the last bit."""

from __future__ import annotations

import json

import pytest
from label_files import (
    as_yolo_and_voc,
    in_csv,
    in_cvat,
    in_labelme,
    in_labelstudio,
    in_voc,
    in_yolo,
    picture,
    write,
)  # fmt: skip

from fcos_d2.data import coco as coco_room
from fcos_d2.data import find_dataset, format_named, read_parts

SIZE = (31, 23)
BOXES = [("cat", [0.1, 0.2, 3.7, 9.35]), ("dog", [4, 6, 8, 3]), ("dog", [30, 22, 1, 1]), ("eel", [-2.5, 3, 7.125, 30])]


def cleaned(layout):
    """What training sees of each part: (image, size, class, box, area, crowd) of each annotation, and the report."""
    found = {}
    for part, coco in read_parts(layout, tuple(layout.splits)).items():
        prepared = coco_room.prepare(layout.splits[part], format_named(layout.format).read, coco)
        images = {row["id"]: row for row in prepared.coco["images"]}
        names = {row["id"]: row["name"] for row in prepared.coco["categories"]}
        rows = [
            (images[row["image_id"]]["file_name"].rpartition("/")[2], images[row["image_id"]]["width"],
             images[row["image_id"]]["height"], names[row["category_id"]], [float(one) for one in row["bbox"]],
             float(row["area"]), row["iscrowd"])
            for row in prepared.coco["annotations"]
        ]  # fmt: skip
        found[part] = (sorted(rows), prepared.class_names, prepared.report.left_out)
    return found


def test_real_data_as_coco_yolo_and_voc(shared, tmp_path):
    data = shared / "data" / "bccd"
    for part in ("train", "val"):
        coco = json.loads((data / f"{part}.json").read_text(encoding="utf-8"))
        as_yolo_and_voc(coco, data / "images", tmp_path / "yolo", tmp_path / "voc", part)
    expected = cleaned(find_dataset(data))
    del expected["test"]
    assert [len(rows) for rows, *_ in expected.values()] == [2804, 1137]
    for name in ("yolo", "voc"):
        layout = find_dataset(tmp_path / name)
        assert layout.format == name and cleaned(layout) == expected


NAMES = ["cat", "dog", "eel"]
COCO = {
    "images": [{"id": 1, "file_name": "0.png", "width": 31, "height": 23}],
    "annotations": [
        {"id": at, "image_id": 1, "category_id": NAMES.index(kind), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for at, (kind, box) in enumerate(BOXES, start=1)
    ],
    "categories": [{"id": at, "name": name} for at, name in enumerate(NAMES)],
}


@pytest.mark.parametrize(
    ("file", "text", "format"),
    [
        ("0.txt", in_yolo(SIZE, [(NAMES.index(kind), box) for kind, box in BOXES]), "yolo"),
        ("0.xml", in_voc("0.png", SIZE, BOXES), "voc"),
        ("0.json", in_labelme(BOXES), "labelme"),
        ("export.json", in_labelstudio(SIZE, BOXES), "labelstudio"),
        ("annotations.xml", in_cvat(SIZE, BOXES), "cvat"),
        ("boxes.csv", in_csv(BOXES), "csv"),
    ],
)
def test_boxes_with_fractions(tmp_path, file, text, format):
    for name, content in (("coco/train.json", json.dumps(COCO)), (f"other/{file}", text)):
        write(tmp_path / name, content)
        picture((tmp_path / name).parent / "0.png", SIZE)
    write(tmp_path / "other" / "classes.txt", "cat\ndog\neel\n")
    layout = find_dataset(tmp_path / "other")
    assert layout.format == format
    assert cleaned(layout) == cleaned(find_dataset(tmp_path / "coco"))
