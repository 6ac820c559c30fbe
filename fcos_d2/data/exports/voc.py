"""Pascal VOC: an XML file for each image, the parts as lists of names.

VOC counts pixels from 1, and its corners are pixels inside the box. So a box from x to x + w, in the continuous
coordinates of all else here, has `xmin` x + 1 and `xmax` x + w. Fractions of pixels are kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

__all__ = ["writable_names", "write"]

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def writable_names(names: list[str]) -> list[str]:
    """Class names that XML gives back as they are, one for each class: blanks joined, control letters as escapes."""
    found: list[str] = []
    for name in names:
        plain = " ".join(_NO_XML.sub(lambda letter: letter[0].encode("unicode_escape").decode(), name).split())
        tried, number = plain or "class", 1
        while tried in found:
            number += 1
            tried = f"{plain or 'class'}-{number}"
        found.append(tried)
    return found


def write(folder: Path, parts: Mapping[str, dict]) -> None:
    """Write Annotations/, ImageSets/Main/ with the parts, and labelmap.txt with the classes in their order."""
    categories = sorted(next(iter(parts.values()))["categories"], key=lambda row: row["id"])
    names = {row["id"]: row["name"] for row in categories}
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:::" for name in names.values())]
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for part, coco in parts.items():
        stems = [PurePosixPath(row["file_name"]).with_suffix("") for row in coco["images"]]
        (lists / f"{part}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        objects: dict[int | str, list[dict]] = defaultdict(list)
        for row in coco["annotations"]:
            objects[row["image_id"]].append(row)
        for row, stem in zip(coco["images"], stems):
            path = folder / "Annotations" / f"{stem}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_annotation(row, objects[row["id"]], names))


def _annotation(image: Mapping, rows: list[dict], names: Mapping[int, str]) -> bytes:
    """The text of one image's file."""
    name = PurePosixPath(image["file_name"])
    root = ElementTree.Element("annotation")
    _add(root, folder="JPEGImages", filename=name.name)
    _add(_add(root, size=""), width=image["width"], height=image["height"], depth=3)
    _add(root, segmented=0)
    for row in rows:
        thing = _add(root, object="")
        difficult = int(bool(row.get("iscrowd")))
        _add(thing, name=names[row["category_id"]], pose="Unspecified", truncated=0, difficult=difficult)
        x, y, w, h = row["bbox"]
        corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
        _add(_add(thing, bndbox=""), **{key: _text(value) for key, value in corners.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _add(parent: ElementTree.Element, **fields: object) -> ElementTree.Element:
    """Add elements with a text; the last of them."""
    made = parent
    for key, value in fields.items():
        made = ElementTree.SubElement(parent, key)
        made.text = str(value)
    return made


def _text(number: float) -> str:
    return np.format_float_positional(number, trim="-")
