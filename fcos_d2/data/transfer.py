"""Images of a data set to where another one has them: copied, linked, or left in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import FcosError

__all__ = ["WAYS", "place_images"]


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written, 1 << 20)


def _link(source: Path, target: Path) -> None:
    target.symlink_to(source.resolve())


WAYS: Mapping[str, Callable[[Path, Path], None] | None] = {"copy": _copy, "link": _link, "none": None}


def place_images(
    folder: Path, images: Mapping[str, Path], way: str, progress: Callable[[int, int], object]
) -> None:  # fmt: skip
    """Put images where a data set has them.

    Args:
        folder: of the data set.
        images: path from the folder -> the image.
        way: a key of `WAYS`: "copy"; "link", symbolic links to the absolute path; "none".
        progress: called with the number of images that are done, and of all.
    Raises:
        FcosError: there is no room for the copies, or the system has no links.
    """
    if (put := WAYS[way]) is None:
        return
    if way == "copy":
        needed, free = sum(path.stat().st_size for path in images.values()), shutil.disk_usage(folder).free
        if needed > free:
            sizes = f"{needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
            raise FcosError(f"The images take {sizes} for {folder.parent}: link them with --images link.")
    for done, (inside, source) in enumerate(images.items(), start=1):
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            put(source, target)
        except OSError as error:
            if way == "copy" or not hasattr(os, "symlink"):
                raise
            raise FcosError(
                f"No link to {source} can be made ({error.strerror or error}): copy the images with --images copy."
            ) from error
        progress(done, len(images))
