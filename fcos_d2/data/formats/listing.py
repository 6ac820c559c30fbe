"""Folders of pictures and of label files, as people and tools lay them out."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ...files import IMAGE_SUFFIXES
from ..layout import PART_NAMES

__all__ = ["child", "files_below", "first_files", "forget", "is_picture", "part_folders", "part_of", "pictures_below"]

_SKIPPED = {"__macosx", "@eadir"}


def is_picture(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def files_below(folder: Path) -> Iterator[str]:
    """All files below a folder by their paths from it, in order; hidden ones aside, and what a Mac adds to archives.

    Links that the owner of the data has put there are followed.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        with suppress(OSError):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
                folders[:] = []
                continue
            seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in _SKIPPED)
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")


def pictures_below(folder: Path) -> list[str]:
    """The images below a folder by their paths from it, in order."""
    return [name for name in files_below(folder) if is_picture(name)]


@functools.lru_cache(maxsize=256)
def _names(folder: str, changed: int) -> tuple[list[str], list[str]]:
    """Files that are no images, and folders, in order, of one state of a folder, into which each format looks."""
    files: list[str] = []
    folders: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not is_picture(entry.name):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(files), sorted(folders)


def _look_into(folder: Path) -> tuple[list[str], list[str]]:
    try:
        return _names(os.fspath(folder), os.stat(folder).st_mtime_ns)
    except (OSError, ValueError):
        return [], []


def forget() -> None:
    """Look into each folder anew; its time of change is too coarse for what is written at once."""
    _names.cache_clear()


def first_files(folder: Path, suffix: str, most: int = 5) -> list[Path]:
    """Some files with a suffix in a folder itself, in order of their names; hidden ones aside."""
    there = (name for name in _look_into(folder)[0] if name.lower().endswith(suffix) and not name.startswith("."))
    return [folder / name for name in islice(there, most) if os.path.isfile(folder / name)]


def child(folder: Path, *names: str) -> Path | None:
    """The folder with one of these names in a folder, whatever its letter case."""
    found = {name.lower(): name for name in _look_into(folder)[1] if name.lower() in names}
    return next((folder / found[name] for name in names if name in found), None)


def part_of(name: str) -> str | None:
    """The part that the name of a folder or a list stands for."""
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def part_folders(folder: Path) -> dict[str, Path]:
    """The folders of the parts in a folder."""
    found = {part: child(folder, *names) for part, names in PART_NAMES.items()}
    return {part: path for part, path in found.items() if path is not None}
