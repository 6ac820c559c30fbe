"""A data set in any format that is read -> the same in a format that is written, with an account of every label.

Labels go over as they are, those included that training leaves out (degenerate boxes): mending is not converting. What
the other format has no way to say is counted. What was written is read again and compared before it gets its name.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FcosError
from . import find_dataset, read_parts
from .destination import new_folder
from .exports import WRITERS, Writer
from .formats.listing import pictures_below
from .meant import shown
from .naming import image_names, without_common
from .parts import Part
from .transfer import place_images

__all__ = ["Account", "write_set"]

_TOLERANCE = 1e-3  # pixels that a box may be off when it is read again
_PLAIN = {"id", "image_id", "category_id", "bbox", "iscrowd", "ignore", "area"}
_FIELDS = {"segmentation": "masks", "keypoints": "key points", "num_keypoints": "key points"}

Box = tuple[str, list[float], int]  # class name; x, y, width, height in pixels; whether it is a crowd


@dataclass
class Account:
    """What became of the labels of one part: `annotations` is the sum of `written` and all of `left_out`."""

    images: int
    annotations: int
    home: str  # folder of the data set that its images lie in
    images_from: Path | None = None  # the folder that could stand for it; None where none can
    written: int = 0
    crowds: int = 0  # of the written
    degenerate: int = 0  # of the written: kept as they are; training leaves them out
    clipped: int = 0  # of the written: cut to the image, beyond which the format cannot reach
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> annotations
    not_said: dict[str, int] = field(default_factory=dict)  # what the format has no field for -> annotations
    # What the format cannot have, or what clashes: old name -> new name.
    classes_renamed: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)  # images


def write_set(
    parts: Mapping[str, Part], destination: Path, to: str, images: str = "copy", *, source: Path,
    command: str = "fcos data convert", overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Account]:  # fmt: skip
    """Write a data set into a new folder.

    Args:
        parts: what `parts.open_parts` read.
        destination: must not exist, be empty, or, with `overwrite`, hold what an earlier call has made.
        to: a key of `WRITERS`.
        images: "copy"; "link", symbolic links; or "none": labels alone.
        source: what is read; the destination must not lie in it.
        progress: called with the number of images that are in place, and of all.
    Returns:
        The account of each part.
    Raises:
        FcosError: the folder cannot be used, or what was written does not read back as it was; nothing is left then.
    """
    writer = WRITERS[to]
    record = {"command": command, "format": to, "source": source}
    with new_folder(destination, source, record, overwrite) as folder:
        taken: dict[str, Path] = {}
        fitted, accounts = {}, {}
        placed: dict[str, Path] = {}
        for name, part in parts.items():
            fitted[name], files, accounts[name] = _fit(name, part, writer, taken)
            placed |= files
        writer.write(folder, fitted)
        place_images(folder, placed, images, progress)
        if images != "none":
            _read_back(folder, to, fitted)
        for account in accounts.values():
            (folder / account.home).parent.mkdir(parents=True, exist_ok=True)
    return accounts


def _fit(
    name: str, part: Part, writer: Writer, taken: dict[str, Path]
) -> tuple[dict, dict[str, Path], Account]:  # fmt: skip
    """What the format can say of a part; where its images go; and the account. `taken` are names of images so far."""
    coco, pattern = part.coco, writer.images.replace("{part}", name)
    home = os.path.dirname(pattern)
    account = Account(len(coco["images"]), len(coco["annotations"]) + sum(part.left_out.values()), home)
    plain = without_common([row["file_name"] for row in coco["images"]])
    files = [part.files[row["id"]] for row in coco["images"]]
    names = image_names(plain, files, pattern, writer.one_file_each, writer.flat, taken)
    placed = {pattern.format(name=new): file for new, file in zip(names, files)}
    account.renamed = {row["file_name"]: new for row, old, new in zip(coco["images"], plain, names) if new != old}
    folder = _one_folder(names, files)
    if folder is not None and writer.by_folder and len(pictures_below(folder)) > len(names):
        folder = None
    account.images_from = folder
    old = sorted(coco["categories"], key=lambda row: row["id"])
    classes = writer.names([row["name"] for row in old])
    account.classes_renamed = {row["name"]: new for row, new in zip(old, classes) if row["name"] != new}

    left_out: Counter[str] = Counter(part.left_out)
    not_said: Counter[str] = Counter()
    sizes = {row["id"]: (row["width"], row["height"]) for row in coco["images"]}
    rows = []
    for row in coco["annotations"]:
        degenerate = row["id"] in part.degenerate
        said, why = _said(row, sizes[row["image_id"]], writer)
        if said is not None and degenerate and said["bbox"] != row["bbox"]:
            said, why = None, "outside the image"  # cutting would make an object of it
        if said is None:
            left_out[why] += 1
            continue
        rows.append(said)
        not_said.update(() if writer.anything else _unsaid(row))
        account.clipped += said["bbox"] != row["bbox"]
        account.degenerate += degenerate
        account.crowds += row["iscrowd"] and not degenerate
    account.written, account.left_out, account.not_said = len(rows), dict(left_out), dict(not_said)
    fitted = {
        **_without_notes(coco),
        "images": [{**row, "file_name": new} for row, new in zip(coco["images"], names)],
        "annotations": rows,
        "categories": [{**row, "name": new} for row, new in zip(old, classes)],
    }
    return fitted, placed, account


def _one_folder(names: Sequence[str], files: Iterable[Path]) -> Path | None:
    """The folder below which images have these names, if there is one."""
    found = {
        str(file)[: -len(name)] if str(file).endswith(f"{os.sep}{name}") else "" for name, file in zip(names, files)
    }
    return Path(found.pop()) if len(found) == 1 and "" not in found else None


def _said(row: dict, size: tuple[int, int], writer: Writer) -> tuple[dict | None, str]:
    """An annotation as a format can say it, or the reason why it cannot."""
    row = _without_notes(row)
    if row["iscrowd"] and not writer.crowds:
        return None, "crowd"
    if not writer.shares:
        return row, ""
    (x, y, w, h), (width, height) = row["bbox"], size
    if min(w, h) < 0:
        return None, "negative size"
    if 0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height and w <= width and h <= height:
        return row, ""
    ends = min(x + w, width), min(y + h, height)
    x, y = max(x, 0), max(y, 0)
    if x >= ends[0] or y >= ends[1]:
        return None, "outside the image"
    return {**row, "bbox": [x, y, ends[0] - x, ends[1] - y]}, ""


def _without_notes(row: dict) -> dict:
    """A row without what readers note in it; the same one where that is nothing."""
    kept = {key: value for key, value in row.items() if not key.startswith("fcos_")}
    return kept if len(kept) < len(row) else row


def _unsaid(row: Mapping[str, Any]) -> set[str]:
    """What an annotation says beside class, box and crowd."""
    found = {
        _FIELDS.get(key, "other fields")
        for key, value in row.items()
        if not (key in _PLAIN or key.startswith("fcos_")) and value
    }
    area = row["bbox"][2] * row["bbox"][3]
    return found | ({"areas of masks"} if not math.isclose(row.get("area", area), area, abs_tol=1e-3) else set())


def _read_back(folder: Path, to: str, meant: Mapping[str, dict]) -> None:
    """Raise FcosError unless the labels in a folder are those that were meant, found as they will be."""
    layout = find_dataset(folder)
    if layout.format != to or set(layout.splits) != set(meant):
        raise FcosError(f"What was written as {to} is found as {layout.format} with {', '.join(layout.splits)}.")
    for part, coco in read_parts(layout, need=tuple(meant)).items():
        start = os.path.relpath(layout.splits[part].images, folder)
        found, wanted = (
            _boxes(coco, f"{start}/{{name}}"),
            _boxes(meant[part], WRITERS[to].images.replace("{part}", part)),
        )
        for name in wanted.keys() | found.keys():
            here, there = wanted.get(name), found.get(name)
            if here is None or there is None or len(here) != len(there) or not all(map(_agree, here, there)):
                raise FcosError(
                    f"The labels of {shown(name)} do not read back as they were written in the format {to} "
                    f"({shown(here)} became {shown(there)}); nothing is kept."
                )


def _boxes(coco: Mapping[str, Any], pattern: str) -> dict[str, list[Box]]:
    """Path of an image, by a pattern with its {name} -> its boxes, in their order."""
    names = {row["id"]: row["name"] for row in coco["categories"]}
    images = {row["id"]: os.path.normpath(pattern.format(name=row["file_name"])) for row in coco["images"]}
    found: dict[str, list[Box]] = {name: [] for name in images.values()}
    for row in coco["annotations"]:
        found[images[row["image_id"]]].append((names[row["category_id"]], row["bbox"], row.get("iscrowd", 0)))
    return found


def _agree(one: Box, other: Box) -> bool:
    near = all(abs(a - b) <= _TOLERANCE for a, b in zip(one[1], other[1]))
    return near and (one[0], bool(one[2])) == (other[0], bool(other[2]))
