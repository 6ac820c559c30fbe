"""A mended copy of a data set as COCO JSON: what was found is put right, or left out and counted."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FcosError
from ...files import write_atomically, write_json
from ..masks import finite_numbers, usable_masks
from ..meant import identity, number
from . import labels
from .columns import Table
from .confusion import to_pixels
from .report import Audit, Part

__all__ = ["require_new", "write"]

_MARK = "mended.json"
_ALIKE = 0.01  # share by which the proportions of a picture may differ where it was made smaller


@dataclass
class _Copy:
    """What is to be written of a part."""

    part: Part
    table: Table
    keep: np.ndarray  # (M,) bool, of annotations
    pictures: np.ndarray  # (N,) bool, of images
    changed: np.ndarray  # (M,) bool, boxes that are no longer as written
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> annotations
    lost: Counter[str] = field(default_factory=Counter)  # reason -> pictures

    def drop(self, those: np.ndarray, reason: str) -> None:
        self.dropped[reason] += int((those & self.keep).sum())
        self.keep &= ~those

    def drop_pictures(self, those: np.ndarray, reason: str) -> None:
        self.lost[reason] += int((those & self.pictures).sum())
        self.pictures &= ~those
        self.drop(np.append(those, False)[self.table.image], reason)


def write(found: Audit, out: Path, copy: bool = False) -> dict[str, Any]:
    """Write the mended copy into a new folder: a JSON file for each part, pictures linked or copied, `mended.json`.

    Args:
        found: what `audit` found, pictures included.
        out: folder that is empty or not there, outside of the data set's.
        copy: copy the pictures; otherwise links to them are made where the system can.
    Returns:
        What `mended.json` holds: of each part `in` = `written` + the sum of `dropped`.
    Raises:
        FcosError: the folder cannot be used, or nothing would be left.
    """
    require_new(out, found.layout.root)
    copies = {name: _put_right(name, part, found) for name, part in found.parts.items()}
    names = _merge_classes(copies)
    moved = _fill_train(copies, names)
    used = {names[name] for one in copies.values() for name in _classes_of(one)}
    classes = [name for name in dict.fromkeys(names.values()) if name in used]
    if not classes:
        raise FcosError(f"Nothing would be left of {found.layout.root}: no usable box is in it.")
    numbers = {name: place for place, name in enumerate(classes, start=1)}
    taken = {origin: {int(row) for row in np.flatnonzero(one.pictures)} for origin, one in copies.items()}
    sets: dict[str, list[tuple[str, int]]] = {part: [] for part in copies}
    for origin, rows in taken.items():
        for row in sorted(rows):
            sets["train" if (origin, row) in moved else origin].append((origin, row))
    for part, pictures in sets.items():
        text = _coco(part, pictures, copies, names, numbers)
        _link(pictures, copies, out / "images", copy)
        write_atomically(out / f"{part}.json", lambda file, text=text: file.write(text))
    summary = {
        "source": found.layout.root.resolve(), "format": found.layout.format, "classes": classes,
        "parts": {
            name: {
                "in": len(one.keep), "written": int(one.keep.sum()), "dropped": +one.dropped,
                "changed": int((one.changed & one.keep).sum()), "pictures": len(one.pictures),
                "pictures_written": int(one.pictures.sum()), "pictures_dropped": +one.lost,
                "moved_to_train": sum(origin == name for origin, _ in moved),
            }
            for name, one in copies.items()
        },
    }  # fmt: skip
    write_json(out / _MARK, summary)
    return summary


def require_new(out: Path, root: Path) -> None:
    """Raise FcosError unless a copy of the data set in `root` may be written to a folder."""
    if root.resolve() in (out.resolve(), *out.resolve().parents):
        raise FcosError(f"The folder {out} lies in the data set {root}, which stays as it is: choose another.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FcosError(f"{out} is there already and not an empty folder: choose a new one for --fix.")


def _put_right(name: str, part: Part, found: Audit) -> _Copy:
    """Boxes, class ids and sizes as they were meant; what cannot be used is left out."""
    table, seen = part.table, part.seen
    written = table.box.copy()
    if part.verdict.confused:
        table = replace(table, box=to_pixels(table.box, table.frame, part.verdict))
    if move := found.moves.get(name):
        ids = {identity(row.get("id")): place for place, row in enumerate(table.categories)}
        meant = [identity(row.get("category_id")) for row in table.rows]
        places = [ids.get(one + move, -1) if isinstance(one, int) else -1 for one in meant]
        table = replace(table, category=np.array(places, np.int64))
    table = _of_files(table, part)
    one = _Copy(part, table, np.ones(len(table.rows), bool), np.ones(len(table.images), bool), np.zeros(0, bool))
    for reason, those in table.reasons().items():
        if reason != "crowd":
            one.drop(those, reason)
    one.drop_pictures(np.array([not look.file for look in seen], bool), "picture missing")
    one.drop_pictures(np.array([bool(look.fault) for look in seen], bool), "picture unreadable")
    one.drop_pictures(_unnamed(table), "picture without an id of its own")
    files = [look.file for look in seen]
    first = {file: row for row, file in reversed(list(enumerate(files)))}
    again = np.array([bool(file) and first[file] < row for row, file in enumerate(files)], bool)
    one.drop_pictures(again, "picture listed twice")  # its annotations have gone to the first
    if name == "train":
        leaks = np.zeros(len(seen), bool)
        leaks[[row for _, row, *_ in found.alike]] = True
        one.drop_pictures(leaks, "picture in another part, too")
    _cut(one)
    _, again = labels.duplicates(replace(table, crowd=np.where(one.keep, table.crowd, -1)))
    twice = np.zeros(len(table.rows), bool)
    twice[again] = True
    one.drop(twice, "there twice")
    one.changed = ~np.isclose(one.table.box, written, atol=1e-9).all(1)
    return one


def _of_files(table: Table, part: Part) -> Table:
    """Sizes of the files; boxes follow where a picture was made larger or smaller. Entries of one file become one."""
    size = np.array([look.upright for look in part.seen], float).reshape(-1, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = size / table.size
        scaled = (np.abs(factor[:, 0] / factor[:, 1] - 1) < _ALIKE) & (size > 0).all(1)
    factor = np.where(scaled[:, None], factor, 1.0)
    known = np.concatenate((factor, np.ones((1, 2))))[table.image]
    size = np.where(size > 0, size, table.size)
    first: dict[str, int] = {}
    entry = [first.setdefault(look.file, row) if look.file else row for row, look in enumerate(part.seen)]
    image = np.array([*entry, -1], np.int64)[table.image]
    return replace(table, box=table.box * np.tile(known, 2), size=size, image=image)


def _unnamed(table: Table) -> np.ndarray:
    """(N,) bool, pictures whose annotations cannot be told, and further entries of a file."""
    ids: set[Any] = {None}
    bad = []
    for row in table.images:
        meant = identity(row.get("id"))
        bad.append(meant in ids)
        ids.add(meant)
    return np.array(bad, bool)


def _cut(one: _Copy) -> None:
    """Cut boxes at the borders of their pictures; what is left of some has no size."""
    table = one.table
    with np.errstate(invalid="ignore"):
        corners = np.concatenate((table.box[:, :2], table.box[:, :2] + table.box[:, 2:]), 1)
        cut = np.minimum(np.maximum(corners, 0), np.tile(table.frame, 2))
        box = np.concatenate((cut[:, :2], cut[:, 2:] - cut[:, :2]), 1)
        inside = np.asarray(table.beyond() <= 0)[:, None]
        one.table = replace(table, box=np.where(inside, table.box, box))
        one.drop(np.asarray(~(one.table.box[:, 2:] > 0).all(1)), "degenerate")


def _name(row: dict[str, Any]) -> str:
    return str(row.get("name"))


def _classes_of(one: _Copy) -> Counter[str]:
    """Class name -> objects that are kept, crowd regions aside."""
    rows = np.flatnonzero(one.keep & (one.table.crowd == 0))
    return Counter(_name(one.table.categories[place]) for place in one.table.category[rows].tolist())


def _merge_classes(copies: dict[str, _Copy]) -> dict[str, str]:
    """Name of a class -> its name in the copy; names that differ in case and spaces only become the most frequent."""
    total: Counter[str] = Counter()
    for one in copies.values():
        total.update({_name(row): 0 for row in one.table.categories})
        total.update(_classes_of(one))
    best: dict[str, str] = {}
    for name, _ in total.most_common():
        best.setdefault(" ".join(name.split()).casefold(), " ".join(name.split()))
    return {name: best[" ".join(name.split()).casefold()] for name in total}


def _fill_train(copies: dict[str, _Copy], names: dict[str, str]) -> set[tuple[str, int]]:
    """Pictures of other parts that go to train because train lacks a class of theirs: half of them, at least one."""
    if "train" not in copies:
        return set()
    have = {names[name] for name in _classes_of(copies["train"])}
    moved: set[tuple[str, int]] = set()
    for part in [part for part in copies if part != "train"]:
        one = copies[part]
        for name in sorted({names[name] for name in _classes_of(one)} - have):
            objects = np.flatnonzero(one.keep & (one.table.crowd == 0)).tolist()
            there = [row for row in objects if names[_name(one.table.categories[one.table.category[row]])] == name]
            pictures = sorted({int(one.table.image[row]) for row in there})
            moved |= {(part, row) for row in pictures[: (len(pictures) + 1) // 2]}
            have.add(name)
    return moved


def _coco(
    part: str, pictures: list[tuple[str, int]], copies: dict[str, _Copy], names: dict[str, str], numbers: dict[str, int]
) -> bytes:
    """The JSON file of a part."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    place = {picture: number for number, picture in enumerate(pictures, start=1)}
    for (origin, row), image in place.items():
        one = copies[origin]
        width, height = (int(side) for side in one.table.size[row])
        images.append({"id": image, "file_name": _file(origin, one, row), "width": width, "height": height})
    for origin, one in copies.items():
        for row in np.flatnonzero(one.keep).tolist():
            name = names[_name(one.table.categories[one.table.category[row]])]
            if (picture := (origin, int(one.table.image[row]))) not in place:
                continue
            if name not in numbers:  # of a crowd region alone
                one.keep[row] = False
                one.dropped["class without a box"] += 1
                continue
            annotations.append(_annotation(one, row, len(annotations) + 1, place[picture], numbers[name]))
    info = {"description": f"{part} part, mended by `fcos check --fix`"}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    found = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(found).encode()


def _annotation(one: _Copy, row: int, number_: int, image: int, category: int) -> dict[str, Any]:
    given, box = one.table.rows[row], [float(x) for x in one.table.box[row]]
    changed = bool(one.changed[row])
    area = number(given.get("area"))
    fits = not changed and area is not None and 0 < area <= one.table.frame[row].prod()
    new = {
        "id": number_, "image_id": image, "category_id": category, "bbox": box,
        "area": area if fits else box[2] * box[3], "iscrowd": int(one.table.crowd[row]),
    }  # fmt: skip
    if not changed and (masks := usable_masks(given.get("segmentation"))) is not None:
        new["segmentation"] = masks
    if not changed and len(points := finite_numbers(given.get("keypoints"))) % 3 == 0 < len(points):
        new |= {key: given[key] for key in ("keypoints", "num_keypoints") if key in given}
    return new


def _file(origin: str, one: _Copy, row: int) -> str:
    return f"{origin}/{Path(one.part.seen[row].file).as_posix()}"


def _link(pictures: list[tuple[str, int]], copies: dict[str, _Copy], folder: Path, copy: bool) -> None:
    for origin, row in pictures:
        one = copies[origin]
        source = (one.part.split.images / one.part.seen[row].file).resolve()
        target = folder / _file(origin, one, row)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not copy:
                os.symlink(source, target)
                continue
        except OSError:  # Windows asks for a right
            pass
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise FcosError(f"{target} cannot be written: {error.strerror or error}.") from error
