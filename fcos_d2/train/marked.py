"""What is marked in the images of a data set of one's own, for `fcos explain`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ..errors import FcosError
from .own_data import open_data

__all__ = ["Marked"]


@dataclass(frozen=True)
class Marked:
    """The images of a data set, all its parts.

    Attributes:
        data: the folder or archive.
        records: in Detectron2's format.
        class_names: of its classes.
    """

    data: Path
    records: Sequence[Mapping[str, Any]]
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, data: Path, format: str | None = None) -> Marked:
        """See `own_data.open_data`."""
        own = open_data(data, need=(), format=format)
        names = [name for name in vars(own.names).values() if name is not None]
        return cls(data, [record for name in names for record in DatasetCatalog.get(name)], own.class_names)

    def image(self, name: str) -> Mapping[str, Any]:
        """The record of an image.

        Args:
            name: its file, or the end of its path (`0001.jpg`, `train/0001.jpg`).
        Raises:
            FcosError: it is not in the data set, or several images have that name.
        """
        found = [record for record in self.records if _same_file(record["file_name"], name)]
        if not found:
            words = Path(name).parts
            found = [record for record in self.records if Path(record["file_name"]).parts[-len(words) :] == words]
        files = {os.path.realpath(record["file_name"]) for record in found}
        if len(files) != 1:
            many = f"has {len(files)} images of that name: give more of its path" if files else "has no such image"
            raise FcosError(f"{name} cannot be looked up in {self.data}, which {many}.")
        return found[0]

    def numbered(self, record: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
        """A record whose classes are numbered as those of a detector, whose names are `known`.

        Raises:
            FcosError: an object in the image is of a class that the detector does not know.
        """
        rows = record.get("annotations", ())
        for row in rows:
            if (name := self.class_names[row["category_id"]]) not in known:
                raise FcosError(
                    f"{self.data} has the class {name!r}, which the detector does not know: {', '.join(known)}."
                )
        labelled = [{**row, "category_id": known.index(self.class_names[row["category_id"]])} for row in rows]
        return {**record, "annotations": labelled}


def _same_file(name: str, image: str) -> bool:
    try:
        return os.path.samefile(name, image)
    except OSError:
        return False
