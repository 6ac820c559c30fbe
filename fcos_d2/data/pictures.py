"""The image files that annotations name: found below one folder, their sizes, and the frame that boxes are drawn in.

Labelling tools write file names of other machines (`images\\0.png`, `C:\\me\\0.png`, `/data/upload/1/0.png`), and some
write the size that a photograph has before its EXIF orientation turns it. Nothing outside the folder is ever read, but
where its owner has put a link into it.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import unicodedata
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..errors import FcosError
from .images import complaint, frame_sizes, named, open_image, orientation
from .meant import number, shown

__all__ = ["Pictures", "fit_to_files", "is_inside", "require_files", "require_sizes", "size_of_file"]

logger = logging.getLogger("fcos_d2")

_LARGEST_SIDE = 1e6  # pixels
_SLACK = 2.0  # pixels that boxes may reach beyond the image they are drawn on
_ORIENTED = (b"Exif\0", b"eXIf", b"exif", b"tiff:Orientation", b"II*\0", b"MM\0*")  # where there may be an orientation


class Pictures:
    """Files below a folder, by the names that annotations have for them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def holds(self, name: str) -> bool:
        """Whether a name stands for a file of the folder as it is."""
        return is_inside(name) and os.path.isfile(os.path.join(self.root, name))

    def find(self, name: str, by_name: bool = True) -> list[str]:
        """The files that a name may stand for, relative to the folder; one if that is certain.

        Letter case, `%20` and the forms of Unicode make no difference. Of files with the last part of the name, those
        count whose folders agree the longest with the name's.

        Args:
            by_name: whether a file may lie in another folder than a name without any sign of another machine says.
        """
        with suppress(ValueError):
            if os.path.isabs(name) and self.holds(inside := os.path.relpath(name, os.path.abspath(self.root))):
                return [inside]
        words, there = _words(name), self._index
        if not words:
            return []
        if not (by_name or _is_foreign(name)):
            return [path for path in there.get(words[-1], ()) if _words(path) == words]
        if len(words) > 1 and not _is_foreign(name) and os.path.isdir(self.root / os.path.dirname(name)):
            return []  # the folder is there, the image is not
        agree = {path: _agreement(_words(path), words) for path in there.get(words[-1], ())}
        found = [path for path, length in agree.items() if length == max(agree.values())]
        last = re.split(r"[/\\]", name)[-1]
        return [path for path in found if os.path.basename(path) == last] or found

    @functools.cached_property
    def _index(self) -> dict[str, list[str]]:
        """Files by the last of their `_words`, but hidden ones and what a Mac adds to archives."""
        found = defaultdict(list)
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            for name in sorted(files):
                if not name.startswith("."):
                    found[_words(name)[-1]].append(os.path.relpath(os.path.join(folder, name), self.root))
        return found


def is_inside(name: str) -> bool:
    """Whether a name stands for something below a folder, whichever that is."""
    path = PurePath(name)
    return not (path.drive or path.root or ".." in path.parts)


def _is_foreign(name: str) -> bool:
    """Whether a name is that of another machine, or an address."""
    return "\\" in name or "://" in name or not is_inside(name) or bool(re.match("[A-Za-z]:", name))


def _words(name: str) -> list[str]:
    """Folders and file of a name, to be compared."""
    with suppress(UnicodeError):  # of a system whose encoding is not UTF-8
        name = os.fsencode(name).decode()
    head, _, query = urllib.parse.unquote(name).replace("\\", "/").partition("?")
    if query and not os.path.splitext(head)[1]:  # Label Studio's /data/local-files/?d=images/0.png
        head = query.rpartition("=")[2]
    head = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]+://[^/]*|^[A-Za-z]:", "", head)
    return [unicodedata.normalize("NFC", word).casefold() for word in head.split("/") if word not in ("", ".", "..")]


def _agreement(one: list[str], other: list[str]) -> int:
    """How many words two names have in common from the last on."""
    same = [a == b for a, b in zip(reversed(one), reversed(other))]
    return same.index(False) if False in same else len(same)


def require_files(coco: Mapping[str, Any], root: Path, source: Path) -> None:
    """Raise FcosError unless every image that a COCO JSON object names is a file below a folder."""
    pictures, names = Pictures(root), [row["file_name"] for row in coco["images"]]
    missing = [name for name in names if not pictures.holds(name)]
    if missing:
        why, several = "", pictures.find(missing[0])
        if len(several) > 1:
            why = f", which may be {several[0]} or {several[1]}"
        elif several:
            why = ", which seems to be the file of another name, too"
        raise FcosError(
            f"{len(missing)} of {len(names)} images named in {source} are missing from {root}, the first: "
            f"{shown(missing[0])}{why}; put them there, or correct their 'file_name' "
            f"(only images below {root} are read)."
        )


def size_of_file(path: str | Path) -> tuple[int, int] | None:
    """Upright width and height of an image file; None where it cannot be read."""
    try:
        with open_image(path) as image:
            return frame_sizes(image)[1]
    except Exception:  # whoever reads it whole says what is wrong
        return None


def require_sizes(coco: Mapping[str, Any], root: Path, source: Path) -> None:
    """Raise FcosError if an image that is there has no size, since the file that would say it cannot be read."""
    for row in coco["images"]:
        if "width" not in row:
            path = root / row["file_name"]
            with named(f"The image {path} of {source}"):
                try:
                    open_image(path).close()
                except FcosError:
                    raise
                except Exception as error:  # Pillow's plugins raise anything
                    raise FcosError(
                        f"An image cannot be read: {complaint(error, path)}; mend it, or take it and its labels out."
                    ) from error


def fit_to_files(coco: Any, root: Path, source: Path) -> bool:
    """Let the images of a COCO JSON object, checked or not, have the names, sizes and frames of the files in a folder.

    Names of other machines become those of the files. Sizes that are absent or no sizes become the files', upright.
    Where a size is that before the EXIF orientation turns the image, the image gets the size after it, and its boxes
    are turned unless they show that they have been drawn on the turned image. A warning tells each of these.

    Returns:
        Whether anything was changed.
    Raises:
        FcosError: some boxes say the one, and some the other.
    """
    if not isinstance(coco, dict) or not isinstance(coco.get("images"), list):
        return False
    rows = [row for row in coco["images"] if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    pictures = Pictures(root)
    changed = _find_files(rows, pictures, source)
    files = [file for row in rows if pictures.holds(row["file_name"]) and (file := _look(pictures, row)) is not None]
    for file in files:
        if file.is_settled:
            changed |= file.set_size()
    lacking = [file for file in files if file.said is None]
    if lacking:
        _warn_once(
            f"{source}: {len(lacking)} of {len(rows)} images have no usable width and height, which are read from the "
            f"files; the first: {shown(lacking[0].row['file_name'])}."
        )
    boxes = defaultdict(list)
    for annotation in coco.get("annotations") or () if isinstance(coco.get("annotations"), list) else ():
        if isinstance(annotation, dict):
            boxes[str(annotation.get("image_id"))].append(annotation)
    for before in (True, False):  # the size before turning is written, or none
        doubtful = [file for file in files if not file.is_settled and (file.said is not None) is before]
        changed |= bool(doubtful)
        if doubtful:
            _settle(doubtful, boxes, before, source)
    return changed


def _find_files(rows: list[dict], pictures: Pictures, source: Path) -> bool:
    """Replace names that stand for exactly one file, which no other name stands for."""
    absent = [row for row in rows if row["file_name"] and not pictures.holds(row["file_name"])]
    by_name = len(absent) == len(rows)
    found = {row["file_name"]: pictures.find(row["file_name"], by_name) for row in absent}
    used = Counter(os.path.normpath(row["file_name"]) for row in rows if row["file_name"] not in found)
    used += Counter(files[0] for files in found.values() if len(files) == 1)
    certain = {name: files[0] for name, files in found.items() if len(files) == 1 and used[files[0]] == 1}
    for row in absent:
        row["file_name"] = certain.get(row["file_name"], row["file_name"])
    if certain:
        name, file = next(iter(certain.items()))
        _warn_once(f"{source}: {len(certain)} images are found by their names, the first: {shown(name)} as {file}.")
    return bool(certain)


@dataclass
class _File:
    """An image that may need another size or frame than is written."""

    row: dict[str, Any]
    said: tuple[float, float] | None  # width and height that are written, if they are a size
    stored: tuple[int, int]  # the file's
    upright: tuple[int, int]  # after turning
    orientation: int

    @property
    def is_settled(self) -> bool:
        """Whether it is clear in which frame its boxes are: not where turning it changes the size that is written."""
        return self.stored == self.upright or self.said not in (None, self.stored)

    def set_size(self) -> bool:
        """Write the upright size where none is written, and say so."""
        if self.said is None:
            self.row["width"], self.row["height"] = self.upright
        return self.said is None


def _look(pictures: Pictures, row: dict[str, Any]) -> _File | None:
    """Open an image if its size is needed, or if it may be turned; None where neither is the case, or it is none."""
    said, path = _size_of(row), os.path.join(pictures.root, row["file_name"])
    if said is not None and not _may_be_turned(path):
        return None
    try:
        with open_image(path) as image:
            return _File(row, said, *frame_sizes(image), orientation(image))
    except Exception:  # whoever reads it whole says what is wrong
        return None


def _size_of(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height where they are numbers that an image can have, or texts of such."""
    width, height = (number(row.get(key)) or 0 for key in ("width", "height"))
    return (width, height) if 0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE else None


def _may_be_turned(path: str) -> bool:
    """Whether the first bytes of a file tell of metadata; most images of data sets have none."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(4096)
    except OSError:
        return False
    webp = head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 8)  # its EXIF data stands at the end
    return webp or any(mark in head for mark in _ORIENTED)


def _settle(files: list[_File], boxes: Mapping[str, list[dict]], before: bool, source: Path) -> None:
    """Decide for some images whether their boxes are drawn before turning, and give them the upright size and boxes."""
    only: dict[tuple[bool, bool], list[_File]] = defaultdict(list)  # by whether the boxes fit before, and after
    for file in files:
        found = list(filter(None, map(_numbers, boxes[str(file.row.get("id"))])))
        only[_fits(found, file.stored), _fits(found, file.upright)].append(file)
    stored, upright = only[True, False], only[False, True]
    if stored and upright:
        first = [shown(side[0].row["file_name"]) for side in (stored, upright)]
        raise FcosError(
            f"{source}: EXIF turns {len(files)} images, and the boxes of {first[0]} are drawn before turning, those of "
            f"{first[1]} after it; export the labels anew in one frame, or turn the image files themselves."
        )
    drawn_before = bool(stored) or (before and not upright)
    for file in files:
        for annotation in boxes[str(file.row.get("id"))] if drawn_before else ():
            _turn(annotation, file.orientation, file.stored)
        file.row["width"], file.row["height"] = file.upright
    what = "their width and height are those before turning" if before else "no width and height are written"
    how = "are taken as drawn before turning, too, and are turned with them"
    if not drawn_before:
        how = "are taken as drawn on the turned images" + (", beyond whose other size they reach" if before else "")
    _warn_once(
        f"{source}: {len(files)} photographs are turned by their EXIF orientation, and {what}; their boxes {how}. "
        f"The first: {shown(files[0].row['file_name'])}."
    )


def _numbers(annotation: Mapping[str, Any]) -> list[Any] | None:
    """The four numbers of a box; None where there are no such."""
    bbox = annotation.get("bbox")
    found = [number(value) for value in bbox] if isinstance(bbox, list) else []
    return found if len(found) == 4 and all(value is not None and math.isfinite(value) for value in found) else None


def _fits(boxes: Iterable[list[Any]], size: tuple[int, int]) -> bool:
    return all(x + w <= size[0] + _SLACK and y + h <= size[1] + _SLACK for x, y, w, h in boxes)


def _turn(annotation: dict[str, Any], turned: int, size: tuple[int, int]) -> None:
    """Turn a box with its image, by an orientation of 5 to 8; masks and key points go, no detector here uses them."""
    if (box := _numbers(annotation)) is None:
        return
    (x, y, w, h), (width, height) = box, size
    left = y if turned in (5, 8) else height - y - h
    top = x if turned in (5, 6) else width - x - w
    annotation["bbox"] = [left, top, h, w]
    for key in ("segmentation", "keypoints", "num_keypoints"):
        annotation.pop(key, None)


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
