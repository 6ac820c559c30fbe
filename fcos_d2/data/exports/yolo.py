"""YOLO: data.yaml and a text file for each image, with a line of class, center, width and height in shares of it.

The numbers are those of float64 in the fewest digits that give it back, so that reading them loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

__all__ = ["writable_names", "write"]


def writable_names(names: list[str]) -> list[str]:
    """Class names without the blanks around them, which readers of data.yaml take away."""
    return [name.strip() for name in names]


def write(folder: Path, parts: Mapping[str, dict]) -> None:
    """Write data.yaml and the label files; an image without objects has an empty one."""
    categories = sorted(next(iter(parts.values()))["categories"], key=lambda row: row["id"])
    index = {row["id"]: number for number, row in enumerate(categories)}
    names = {number: row["name"] for number, row in enumerate(categories)}
    about = {part: f"images/{part}" for part in parts} | {"nc": len(names), "names": names}
    text = yaml.safe_dump(about, allow_unicode=True, sort_keys=False, width=10**6)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    for part, coco in parts.items():
        lines: dict[int | str, list[str]] = defaultdict(list)
        sizes = {row["id"]: (row["width"], row["height"]) for row in coco["images"]}
        for row in coco["annotations"]:
            numbers = _shares(row["bbox"], *sizes[row["image_id"]])
            lines[row["image_id"]].append(" ".join((str(index[row["category_id"]]), *map(_text, numbers))))
        for row in coco["images"]:
            path = folder / "labels" / part / PurePosixPath(row["file_name"]).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines[row["id"]]), encoding="utf-8")


def _shares(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """x, y, width and height in pixels -> center, width and height in shares of the image."""
    x, y, w, h = box
    return (x + w / 2) / width, (y + h / 2) / height, w / width, h / height


def _text(number: float) -> str:
    return np.format_float_positional(number, trim="-")
