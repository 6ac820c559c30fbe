"""The boxes of a data set on disk as columns: those that are trained on, whatever its format."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..data import format_named, require_parts
from ..data.audit.columns import Table
from ..data.audit.reach import Rule, input_boxes
from ..data.clean import require_lists
from ..data.layout import DatasetLayout, Split
from ..data.pictures import fit_to_files
from ..errors import FcosError
from .assignment import Assignment, assign

__all__ = ["Objects", "read_objects"]


@dataclass(frozen=True)
class Objects:
    """M boxes of one part of a data set: those that are trained on.

    Attributes:
        split: where the part lies.
        table: all of its annotations; crowd regions and boxes that training leaves out, too.
        row: (M,) rows of the table.
        corners: (M, 4) float64 x1, y1, x2, y2 in pixels of the picture.
        frame: (M, 2) width and height of the picture of each.
        image: (M,) rows of `table.images`.
        label: (M,) rows of `table.categories`.
    """

    split: Split
    table: Table
    row: np.ndarray
    corners: np.ndarray
    frame: np.ndarray
    image: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, split: Split, table: Table, row: np.ndarray) -> Objects:
        """Some rows of a table."""
        columns = (table.corners, table.frame, table.image, table.category)
        return cls(split, table, row, *(column[row] for column in columns))

    @property
    def classes(self) -> int:
        """Number of classes of the data set."""
        return len(self.table.categories)

    def __len__(self) -> int:
        return len(self.row)

    def boxes(self, rule: Rule) -> np.ndarray:
        """(M, 4) float32 x1, y1, x2, y2 in pixels of the input."""
        return input_boxes(self.corners, self.frame, rule)

    def assign(self, rule: Rule) -> Assignment:
        """What becomes of each box."""
        return assign(self.boxes(rule), self.image, self.label, rule)

    def sample(self, most: int) -> Objects:
        """The boxes of some pictures, spread evenly over all, so that there are about `most` boxes."""
        if len(self) <= most:
            return self
        step = -(-len(self) // most)
        pictures = np.unique(self.image)
        return Objects.of(self.split, self.table, self.row[np.isin(self.image, pictures[::step])])

    def usual_frame(self) -> np.ndarray:
        """(1, 2) width and height that most of its pictures with boxes have."""
        sizes, counts = np.unique(self.table.size[np.unique(self.image)], axis=0, return_counts=True)
        return sizes[counts.argmax()][None]


def read_objects(layout: DatasetLayout, parts: Collection[str] = ()) -> dict[str, Objects]:
    """Read the boxes of a data set; the pictures need not be there, unless the annotations leave out their sizes.

    Args:
        layout: what `find_dataset` returned.
        parts: those to read; by default all.
    Returns:
        Part -> its boxes, train first.
    Raises:
        FcosError: such a part is not there or cannot be read, or there is no box in any.
    """
    require_parts(layout.root, layout.splits, parts)
    found = {}
    for part in ("train", "val", "test"):
        if part not in layout.splits or (parts and part not in parts):
            continue
        split = layout.splits[part]
        coco = format_named(layout.format).read(split)
        require_lists(coco, split.annotations)
        fit_to_files(coco, split.images, split.annotations)
        table = Table.of(part, split.annotations, coco)
        usable = table.objects() & ~np.isnan(table.frame).any(1)
        found[part] = Objects.of(split, table, np.flatnonzero(usable))
    if not any(map(len, found.values())):
        files = " and ".join(str(one.split.annotations) for one in found.values())
        raise FcosError(f"{files} has no usable box, so there is nothing to analyze.")
    return found
