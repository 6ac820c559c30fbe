"""What a person names as data -> the data set in it: a folder, an archive, or the file that describes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import FcosError
from .. import coco, places
from ..layout import DatasetFormat, DatasetLayout
from . import FORMATS, archive, yolo
from .foreign import name_of_foreign
from .listing import forget

__all__ = ["find_dataset", "format_named"]

_DEEPEST = 3  # folders in which there is nothing but a folder
_OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_PAPERS = (".md", ".txt", ".pdf", ".html", "")  # files that say something about the data beside them


def format_named(name: str) -> DatasetFormat:
    """The row of `FORMATS` of this name; raises FcosError if there is none."""
    for row in FORMATS:
        if row.name == name:
            return row
    raise FcosError(f"There is no format '{name}' of data sets; there are {', '.join(row.name for row in FORMATS)}.")


def find_dataset(folder: str | Path, format: str | None = None) -> DatasetLayout:
    """Recognise a data set; a part that it lacks is not in `splits`.

    Args:
        folder: holds the data set, or is a .zip of such a folder (unpacked once into the cache folder), or the
            data.yaml of a YOLO data set.
        format: name of the row of `FORMATS` that it has; by default what its files look like.
    Raises:
        FcosError: the folder is missing, not a folder, empty, or holds no known format, or several.
    """
    forget()
    root = Path(folder).expanduser()
    rows = [row for row in FORMATS if not row.when_asked] if format is None else [format_named(format)]
    if not root.exists():
        raise FcosError(f"The data set folder {root} does not exist.")
    if root.is_file():
        suffix = root.suffix.lower()
        if suffix in yolo.DESCRIPTIONS and format in (None, "yolo"):
            return DatasetLayout("yolo", root.parent, yolo.parts_of(root, root.parent))
        if suffix in _OTHER_ARCHIVES:
            raise FcosError(f"{root} is an archive of a kind that is not read: unpack it and give the folder.")
        if suffix != ".zip":
            raise FcosError(f"{root} is a file; give the folder that holds the data set.")
        root = archive.unpacked(root)
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    if not entries:
        raise FcosError(f"The data set folder {root} is empty.")
    for place in _chain(root):
        if (found := _one(place, rows)) is not None:
            return found
    hint = next(filter(None, map(name_of_foreign, _chain(root))), "") if format is None else ""
    if hint:
        raise FcosError(hint)
    looked_for = "; ".join(f"{row.name}: {row.looks_for}" for row in rows) + places.rename_hint(root)
    raise FcosError(f"No data set found in {root}, which holds {coco.shortened(entries)}; looked for {looked_for}.")


def _one(root: Path, rows: Sequence[DatasetFormat]) -> DatasetLayout | None:
    """The data set of a folder; None where there is none. Raises FcosError if there are several."""
    found = [DatasetLayout(row.name, root, splits) for row in rows if (splits := row.find(root))]
    if len(found) < 2:
        return found[0] if found else None
    names = " and as ".join(f"{one.format} ({_first_file(one)})" for one in found)
    choices = " or ".join(f"--format {one.format}" for one in found)
    raise FcosError(
        f"{root} can be read as {names}: say which is meant with {choices} (in Python format='{found[0].format}')."
    )


def _first_file(layout: DatasetLayout) -> str:
    """Where the first part of a data set stands, from its folder."""
    return next(iter(layout.splits.values())).annotations.relative_to(layout.root).as_posix()


def _chain(root: Path) -> list[Path]:
    """A folder, and the only one in it, where there is nothing else."""
    chain = [root]
    with suppress(OSError):
        for _ in range(_DEEPEST):
            there = [path for path in chain[-1].iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
            folders = [path for path in there if path.is_dir()]
            if len(folders) != 1 or any(path.suffix.lower() not in _PAPERS for path in there if path.is_file()):
                break
            chain.append(folders[0])
    return chain
