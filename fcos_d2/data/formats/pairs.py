"""Formats with a file of labels for each image: beside it, or in a folder of its own."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ..layout import Split
from .listing import child, first_files, part_folders, pictures_below

__all__ = ["IMAGE_FOLDERS", "LABEL_FOLDERS", "Pairs", "find_pairs", "holds"]

logger = logging.getLogger("fcos_d2")

IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "image")
LABEL_FOLDERS = ("annotations", "annotation", "xml", "xmls", "labels", "json", "jsons")


def find_pairs(root: Path, suffix: str, is_label: Callable[[Path], bool]) -> dict[str, Split]:
    """The parts whose folders hold label files: root/PART, root/labels/PART, root/images/PART; else all as train."""
    labels, images = child(root, *LABEL_FOLDERS), child(root, *IMAGE_FOLDERS)
    for folder in (root, labels, images):
        found = {part: path for part, path in part_folders(folder or root).items() if holds(path, suffix, is_label)}
        if found:
            return {part: Split(path, root) for part, path in found.items()}
    here = next((folder for folder in (labels, images, root) if folder and holds(folder, suffix, is_label)), None)
    return {"train": Split(here, root)} if here else {}


def holds(folder: Path, suffix: str, is_label: Callable[[Path], bool]) -> bool:
    """Whether one of the first files of a folder, or of one for labels in it, is a file of labels."""
    places = [folder, child(folder, *LABEL_FOLDERS)]
    return any(is_label(file) for place in places if place is not None for file in first_files(place, suffix, 3))


class Pairs:
    """The images below a folder, by the label files that are beside them or in a folder like theirs."""

    def __init__(self, root: Path) -> None:
        self._all = pictures_below(root)
        self._like: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._named: dict[str, list[str]] = defaultdict(list)
        self._used: set[str] = set()
        self._places: set[str] = set()
        for name in self._all:
            self._like[_place(name)].append(name)
            self._named[_place(name)[1]].append(name)

    def image_of(self, file: str) -> str | None:
        """The image of a label file, which has its name; None where that is not certain."""
        folder, stem = _place(file)
        self._places.add(folder)
        beside = [name for name in self._named[stem] if os.path.dirname(name) == os.path.dirname(file)]
        found = next((names for names in (beside, self._like[folder, stem], self._named[stem]) if names), [])
        if len(found) != 1:
            return None
        self._used.add(found[0])
        return found[0]

    def tell_unlabelled(self, source: Path) -> None:
        """Warn of the images in folders like those of the label files that none of these is for."""
        left = [name for name in self._all if name not in self._used and _place(name)[0] in self._places]
        if left:
            logger.warning(
                "%s: %d images have no label file and are left out; the first: %s.", source, len(left), left[0]
            )


def _place(name: str) -> tuple[str, str]:
    """The folder of a file without the words that say whether it has images or labels, and the file's stem."""
    folder, file = os.path.split(name)
    words = [word for word in folder.lower().split("/") if word not in (*IMAGE_FOLDERS, *LABEL_FOLDERS)]
    return "/".join(words), os.path.splitext(file)[0]
