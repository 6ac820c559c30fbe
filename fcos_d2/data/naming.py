"""Names of images in a data set that is written: their own, unless the format cannot have them or two share one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..files import IMAGE_SUFFIXES
from .images import open_image
from .layout import PART_NAMES

__all__ = ["image_names", "without_common"]

_UNWRITABLE = re.compile("[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")  # ends of lines, bytes that are no text
_MISLEADING = {"images", "labels", "jpegimages", "imgs", "__macosx", "@eadir"}  # folders where readers look for others
_SAYS_NOTHING = {"images", "jpegimages", "imgs", "data", *(name for names in PART_NAMES.values() for name in names)}


def image_names(
    names: Sequence[str], files: Sequence[Path], pattern: str, own: bool, flat: bool, taken: dict[str, Path]
) -> list[str]:  # fmt: skip
    """The name of each image, relative to the folder of images of its part.

    Args:
        names: the images' names in the source, see `without_common`.
        files: the images.
        pattern: where the format has images, with a {name}.
        own: whether each image must have a name of its own but for the suffix, since labels are found by that.
        flat: whether names have no folders.
        taken: of the parts before: path -> the image; what is named here is added.
    """
    found = []
    for name, file in zip(names, files):
        path, number = PurePosixPath(_writable(name, file, flat) if own else name), 1
        while True:
            tried = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            key = pattern.format(name=tried.with_suffix("") if own else tried)
            if key not in taken or (not own and taken[key] == file):
                break
            number += 1
        taken[key] = file
        found.append(tried.as_posix())
    return found


def without_common(names: list[str]) -> list[str]:
    """Names without the folders that say nothing and that all are in."""
    paths = [PurePosixPath(os.path.normpath(name).replace(os.sep, "/")) for name in names]
    while paths and len(firsts := {path.parts[0] if len(path.parts) > 1 else "" for path in paths}) == 1:
        if firsts.pop().lower() not in _SAYS_NOTHING:
            break
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    return [path.as_posix() for path in paths]


def _writable(name: str, file: Path, flat: bool) -> str:
    """A name without what lists of names, hidden files or folders named "images" would make of it."""
    *folders, last = (re.sub(r"^\.+", "_", _UNWRITABLE.sub("_", part)) for part in PurePosixPath(name).parts)
    kept = [] if flat else [folder for folder in folders if folder.lower() not in _MISLEADING]
    if PurePosixPath(last).suffix.lower() not in IMAGE_SUFFIXES:
        with open_image(file) as image:
            suffix = f".{image.format or 'png'}".lower()
        last += suffix if suffix in IMAGE_SUFFIXES else ".png"
    return "/".join((*kept, last))
