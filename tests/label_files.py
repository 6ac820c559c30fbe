"""The same boxes in files of several formats, as tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from fcos_d2.data import find_dataset, read_parts
from fcos_d2.data.layout import UNREADABLE


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)
    return path


def in_voc(name: str, size: tuple[int, int] | None, objects: list[tuple[str, list[Any]]], more: str = "") -> str:
    """An XML file for boxes x, y, width, height, its corners counted from 1 and both within the box."""
    sides = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    rows = "".join(
        f"<object><name>{kind}</name>{more}<bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
        f"<ymax>{y + h}</ymax></bndbox></object>"
        for kind, (x, y, w, h) in objects
    )
    return f"<annotation><filename>{name}</filename>{sides}{rows}</annotation>"


def in_yolo(size: tuple[int, int], objects: list[tuple[int, list[Any]]]) -> str:
    """Lines of shares with as many digits as float64 has."""
    return "".join(
        f"{kind} {(x + w / 2) / size[0]!r} {(y + h / 2) / size[1]!r} {w / size[0]!r} {h / size[1]!r}\n"
        for kind, (x, y, w, h) in objects
    )


def in_csv(objects: list[tuple[str, list[Any]]]) -> str:
    """Lines without a header: edges in pixels."""
    return "".join(f"0.png,{x},{y},{x + w},{y + h},{kind}\n" for kind, (x, y, w, h) in objects)


def in_labelme(objects: list[tuple[str, list[Any]]]) -> str:
    shapes = [
        {"label": kind, "points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"} for kind, (x, y, w, h) in objects
    ]
    return json.dumps({"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "0.png", "imageData": None})


def in_labelstudio(size: tuple[int, int], objects: list[tuple[str, list[Any]]]) -> str:
    """One task, its regions in percent."""
    width, height = size
    regions = [
        {"id": str(at), "type": "rectanglelabels", "original_width": width, "original_height": height, "value": {
            "x": x / width * 100, "y": y / height * 100, "width": w / width * 100, "height": h / height * 100,
            "rotation": 0, "rectanglelabels": [kind]}}
        for at, (kind, (x, y, w, h)) in enumerate(objects)
    ]  # fmt: skip
    return json.dumps([{"id": 1, "data": {"image": "0.png"}, "annotations": [{"id": 1, "result": regions}]}])


def in_cvat(size: tuple[int, int], objects: list[tuple[str, list[Any]]]) -> str:
    boxes = "".join(
        f"<box label='{kind}' occluded='0' xtl='{x}' ytl='{y}' xbr='{x + w}' ybr='{y + h}'/>"
        for kind, (x, y, w, h) in objects
    )
    image = f"<image id='0' name='0.png' width='{size[0]}' height='{size[1]}'>{boxes}</image>"
    return f"<annotations><version>1.1</version>{image}</annotations>"


def as_yolo_and_voc(coco: dict, images: Path, yolo: Path, voc: Path, part: str) -> None:
    """Write one part of a COCO file with images in a folder as both; the pictures are links."""
    names = [row["name"] for row in sorted(coco["categories"], key=lambda row: row["id"])]
    order = {row["id"]: at for at, row in enumerate(sorted(coco["categories"], key=lambda row: row["id"]))}
    write(yolo / "data.yaml", f"path: .\ntrain: train/images\nval: val/images\nnames: {json.dumps(names)}\n")
    for image in coco["images"]:
        name, size = image["file_name"], (image["width"], image["height"])
        rows = [row for row in coco["annotations"] if row["image_id"] == image["id"]]
        stem = name.rpartition(".")[0]
        for target in (yolo / part / "images" / name, voc / "JPEGImages" / name):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(images / name)
        numbered = [(order[row["category_id"]], row["bbox"]) for row in rows]
        write(yolo / part / "labels" / f"{stem}.txt", in_yolo(size, numbered))
        named = [(names[at], box) for at, box in numbered]
        write(voc / "Annotations" / f"{stem}.xml", in_voc(name, size, named))
    stems = "".join(row["file_name"].rpartition(".")[0] + "\n" for row in coco["images"])
    write(voc / "ImageSets" / "Main" / f"{part}.txt", stems)


def rows(coco: dict) -> list[tuple[str, str | None, list[float]]]:
    """(file, class, box) of each label that is a box."""
    files = {row["id"]: row["file_name"] for row in coco["images"]}
    names = {row["id"]: row["name"] for row in coco["categories"]}
    return [
        (files[row["image_id"]], names.get(row["category_id"]), row["bbox"])
        for row in coco["annotations"]
        if UNREADABLE not in row
    ]


def parts_of(root: Path, format: str | None = None) -> dict[str, list[tuple[str, str | None, list[float]]]]:
    """The `rows` of each part of the data set in a folder."""
    layout = find_dataset(root, format)
    return {part: rows(coco) for part, coco in read_parts(layout, tuple(layout.splits)).items()}
